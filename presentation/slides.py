"""Fill the slides with the results in `data/`, and have Marp make HTML and PDF of them.

    .venv/bin/python presentation/slides.py [--images]

`make slides` installs Marp, draws the figures, and runs this.
"""

import argparse
import base64
import subprocess
from pathlib import Path
from typing import Any

from browser import BIN, get_browser, node_environment
from figures import BUILD, HERE, fullest, load_data, rates
from jinja2 import Environment, StrictUndefined

MARP = HERE / "node_modules/@marp-team/marp-cli/marp-cli.js"


def number(value: float, digits: int = 0) -> str:
    """A number as French writes it: a comma, and narrow spaces between thousands."""
    return f"{value:,.{digits}f}".replace(",", "\u202f").replace(".", ",")


def percent(share: float, digits: int = 1) -> str:
    """A share in percent, as French writes it."""
    return f"{number(100 * share, digits)}\u00a0%"


def figure(name: str, *, height: int) -> str:
    """A figure as part of the page, so that the slides are one file.

    Args:
        name: of its file in `build/`.
        height: in pixels; the width follows, and is at most that of the slide.
    """
    kind = {".svg": "svg+xml", ".png": "png"}[Path(name).suffix]
    content = base64.b64encode((BUILD / name).read_bytes()).decode()
    # Markdown takes no SVG from a data URI; HTML does.
    return f'<img alt="" style="height:{height}px" src="data:image/{kind};base64,{content}">'


def fill(data: dict[str, Any]) -> str:
    """The slides in Markdown, with every number in its place."""
    found = rates(data["bench"]) if "bench" in data else {}
    environment = Environment(undefined=StrictUndefined)  # noqa: S701 - Markdown of ours, no page
    template = environment.from_string((HERE / "slides.md.j2").read_text(encoding="utf-8"))
    return template.render(
        n=number,
        pct=percent,
        figure=figure,
        rates=found,
        measured=fullest(data["bench"]) if "bench" in data else None,
        **data,
    )


def convert(source: Path, *options: str) -> None:
    """Have Marp convert the slides."""
    # It would wait for more of the slides where standard input is a pipe.
    fixed = ["--no-stdin", "--html", "--theme", str(HERE / "theme.css")]
    subprocess.run(
        [BIN / "node", MARP, source, *fixed, *options],
        check=True,
        env={**node_environment(), "CHROME_PATH": get_browser()},
    )


def main() -> None:
    """Write `build/slides.md`, `verger.html` and `verger.pdf`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", action="store_true", help="a PNG of each slide as well")
    options = parser.parse_args()
    source = BUILD / "slides.md"
    source.write_text(fill(load_data()), encoding="utf-8")
    convert(source, "--output", str(BUILD / "verger.html"))
    convert(source, "--pdf", "--output", str(BUILD / "verger.pdf"))
    if options.images:
        convert(source, "--images", "png", "--output", str(BUILD / "verger.png"))


if __name__ == "__main__":
    main()
