"""A real browser, and a page opened in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from browser import get_browser
from playwright.sync_api import Browser, Page, expect, sync_playwright

# What all other waits of playwright have.
expect.set_options(timeout=30_000)


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    executable = get_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", *arguments]
        )
        yield browser
        browser.close()


def open_page(browser: Browser, report: Path, width: int = 1440) -> tuple[Page, list[str]]:
    """The page, and what it complained of or asked of other places."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
    page.on(
        "request",
        lambda asked: None if asked.url.startswith(("file:", "data:", "blob:"))
        else complaints.append(asked.url),
    )  # fmt: skip
    page.goto(report.as_uri())
    page.wait_for_timeout(500)
    return page, complaints
