"""What the page says, in English and in French (`texts.json`), and how each writes numbers."""

import json
import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Literal, get_args

Language = Literal["en", "fr"]
LANGUAGES: tuple[str, ...] = get_args(Language)

Texts = dict[str, str]


def texts(language: str, section: str = "page") -> Texts:
    """Texts by name.

    Args:
        language: "en" or "fr".
        section: `page`; `summary`, what a run says at its end; or what `stages`, `reasons` for
            rejecting a file and `special` ways of reading one are called.
    """
    words = {key: text[language] for key, text in _read()[section].items()}
    if language == "fr":
        # No line begins with what French writes after a space.
        words = {key: re.sub(" (?=[:;?!%»])", "\u00a0", text) for key, text in words.items()}
    return words


def number_formats(language: str) -> dict[str, Callable[[float], str]]:
    """How a language writes a count, a decimal, a share and seconds.

    Examples:
        >>> formats = number_formats("en")
        >>> formats["count"](12345), formats["share"](0.12345)
        ('12,345', '12.3%')
    """

    def localized(text: str) -> str:
        text = text.replace("-", "\u2212")
        if language == "fr":
            return text.translate({ord(","): "\u202f", ord("."): ","}).replace("%", "\u00a0%")
        return text

    return {
        "count": lambda value: localized(f"{value:,.0f}"),
        "decimal": lambda value: localized(f"{value:,.2f}"),
        "share": lambda value: localized(f"{value:.1%}"),
        "exact_share": lambda value: localized(f"{value:.2%}"),
        "cosine": lambda value: localized(f"{value:.4f}"),
        "seconds": lambda value: localized(f"{value:,.1f}") + "\u00a0s",
    }


@cache
def _read() -> dict[str, dict[str, Texts]]:
    known: dict[str, dict[str, Texts]] = json.loads(
        (files("verger.report") / "texts.json").read_text(encoding="utf-8")
    )
    return known
