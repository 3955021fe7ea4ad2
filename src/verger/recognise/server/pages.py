"""The files of the page, read from the package once."""

import json
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import jinja2

from verger.recognise.names import find_name

if TYPE_CHECKING:
    from verger.recognise.server.phone import OnPhone

STATIC = {
    "app.css": "text/css",
    "app.js": "text/javascript",
    "worker.js": "text/javascript",
    "phone.js": "text/javascript",
    "onnxruntime/ort.mjs": "text/javascript",
    "icon.svg": "image/svg+xml",
    "app.webmanifest": "application/manifest+json",
}
"""What is served as it is, and its media type."""

FOLDER = files("verger.recognise") / "server" / "static"


@cache
def static(name: str) -> tuple[bytes, str]:
    """A file of `STATIC`, and its media type."""
    return (FOLDER / name).read_bytes(), STATIC[name]


@cache
def make_page(
    language: str, labels: tuple[str, ...], *, corrects: bool, on_phone: "OnPhone | None" = None
) -> str:
    """The page in a language; names of classes are text in it, whatever they hold."""
    texts = json.loads((FOLDER / "texts.json").read_text(encoding="utf-8"))
    words = {key: text[language] for key, text in texts.items()}
    if language == "fr":
        # No line begins with what French writes after a space.
        words = {key: re.sub(" (?=[:;?!])", "\u00a0", text) for key, text in words.items()}
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (FOLDER / "page.html.j2").read_text(encoding="utf-8")
    )
    return template.render(
        words=words,
        language=language,
        labels=labels,
        names=[name and name.model_dump() for name in map(find_name, labels)],
        corrects=corrects,
        on_phone=on_phone,
    )
