"""The top of a report as the picture that the READMEs show.

    .venv/bin/python presentation/picture.py OUTPUT

OUTPUT is what `verger run IMAGES OUTPUT` made of a folder of Fruits-360. It needs a Chromium.
"""

import argparse
import io
from pathlib import Path

from browser import get_browser
from figures import DOCS
from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1200, 1310


def main() -> None:
    """Open the report in a browser and write `report.png`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    report = parser.parse_args().output.resolve() / "report.html"
    executable = get_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(report.as_uri())
        page.wait_for_selector(".plotly .point")
        shot = page.screenshot()
        browser.close()
    with Image.open(io.BytesIO(shot)) as image:
        image.quantize(256).save(DOCS / "report.png", optimize=True)


if __name__ == "__main__":
    main()
