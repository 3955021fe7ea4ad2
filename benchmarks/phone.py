"""What an answer takes on the phone itself: bytes to load, and milliseconds a photograph.

    .venv/bin/python benchmarks/phone.py PHOTOGRAPHS OUTPUT… [--images 30] [--json FILE]

The page runs in Chromium on this machine, and answers photographs twice: computed by the page, and
by the server. A time begins when the photograph is given to the page, and ends when it shows the
answer. A phone takes longer by as much as its processor is slower than this one.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from machine import machine, tell
from playwright.sync_api import Page, Request, expect
from serving import what_it_is

sys.path.insert(0, str(Path(__file__).parents[1] / "presentation"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browsers import chromium
from servers import serving

WATCH = """() => {
  window.answered = new Promise((resolve, reject) => {
    const status = document.getElementById("status");
    let started;
    let looking;
    const begin = () => { started = performance.now(); };
    const file = document.getElementById("file");
    file.addEventListener("change", begin, { capture: true, once: true });
    new MutationObserver((_, observer) => {
      if (started === undefined) return;
      looking ??= status.textContent;
      if (status.textContent === looking) return;
      observer.disconnect();
      if (status.textContent) reject(new Error(status.textContent));
      else resolve(performance.now() - started);
    }).observe(status, { childList: true });
  });
}"""
"""The page says that it looks at a photograph until it shows what it is."""


def answer_ms(page: Page, photograph: Path) -> float:
    """Milliseconds from the photograph to the answer, by the page's own clock."""
    page.evaluate(WATCH)
    page.set_input_files("#file", photograph)
    milliseconds: float = page.evaluate("window.answered")
    return milliseconds


def measure(output: Path, photographs: list[Path]) -> dict[str, Any]:
    """What the page of an output loads, and how long it and the server take."""
    with serving(output, "--on-phone") as port, chromium() as browser:
        page = browser.new_page(viewport={"width": 360, "height": 740}, locale="en")
        page.goto(f"http://127.0.0.1:{port}/")
        by_server = [answer_ms(page, photograph) for photograph in photographs]
        loaded: list[int] = []

        def weigh(request: Request) -> None:
            loaded.append(request.sizes()["responseBodySize"])

        page.on("requestfinished", weigh)
        started = time.monotonic()
        page.check("#on-phone")
        expect(page.locator("#status")).to_contain_text("can answer by itself", timeout=120_000)
        ready = time.monotonic() - started
        weight = sum(loaded)
        on_phone = [answer_ms(page, photograph) for photograph in photographs]
    return {
        "loaded_bytes": weight,
        "ready_seconds": round(ready, 1),
        "on_phone_ms": {"median": round(median(on_phone)), "most": round(max(on_phone))},
        "by_server_ms": {"median": round(median(by_server)), "most": round(max(by_server))},
    }


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("outputs", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    files = sorted(file for file in given.photographs.rglob("*") if file.is_file())
    photographs = files[:: max(len(files) // given.images, 1)][: given.images]
    facts = machine()
    found = [what_it_is(output) | measure(output, photographs) for output in given.outputs]
    tell({"machine": facts, "photographs": len(photographs), "outputs": found}, given.json)


if __name__ == "__main__":
    main()
