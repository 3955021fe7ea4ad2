"""Fills pages that say `results: true` with what runs have measured, so that none is typed in."""

import json
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, StrictUndefined

ROOT = Path(__file__).parents[1]
RESULTS = (
    *sorted((ROOT / "presentation/data").glob("*.json")),
    ROOT / "src/verger/cloud/money/prices.json",
)


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Called by MkDocs for each page."""
    if not page.meta.get("results"):
        return markdown
    results = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in RESULTS}
    environment = Environment(undefined=StrictUndefined)  # noqa: S701 - Markdown of ours, no page
    return environment.from_string(markdown).render(n=number, median=median, **results)


def number(value: float, digits: int = 0) -> str:
    """A number as English writes it."""
    return f"{value:,.{digits}f}"
