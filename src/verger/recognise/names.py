"""What a class is called in English and French, and by botanists (`names.json`)."""

import json
import re
import unicodedata
from functools import cache
from importlib.resources import files

from pydantic import BaseModel


class Name(BaseModel):
    """Common names, botanical name and family of a kind of fruit or vegetable."""

    en: str
    fr: str
    botanical: str
    family: str


def find_name(label: str) -> Name | None:
    """The name of the kind that the words of a label mention, the longest mention first.

    Examples:
        >>> find_name("Apple Red Yellow 1").botanical
        'Malus domestica'
        >>> find_name("Potato Sweet 1").fr
        'patate douce'
        >>> find_name("Cherries").fr
        'cerise'
        >>> find_name("Brick") is None
        True
    """
    words = f" {_plain(label)} "
    found = [(len(word), name) for word, mention, name in _by_word() if mention.search(words)]
    return max(found, key=lambda pair: pair[0])[1] if found else None


@cache
def _by_word() -> list[tuple[str, re.Pattern[str], Name]]:
    """Words, what finds them and their plurals, and names."""
    table = json.loads((files("verger.recognise") / "names.json").read_text(encoding="utf-8"))
    return [
        (word, re.compile(f" {re.sub('y$', '(y|ie)', word)}(s|es)? "), Name.model_validate(entry))
        for entry in table["names"]
        for word in map(_plain, (entry["en"], entry["fr"], *entry["also"]))
    ]


def _plain(text: str) -> str:
    """Letters without accents, in lower case; all else is a space."""
    bare = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return " ".join(re.findall("[a-z]+", bare.lower()))
