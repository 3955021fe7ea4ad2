"""Which browser the tests and the slides take, and what is said where there is none."""

import shutil
import subprocess
from pathlib import Path

import browser
import pytest
from browser import NoBrowserError, find_browser, get_browser


def fake(path: Path, status: int = 0) -> str:
    """A program that ends with a status."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nexit {status}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a browser: its folder of programs."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin")
    monkeypatch.setattr(browser, "NAMES", ("fake-chromium", "fake-chrome"))
    monkeypatch.setattr(browser, "FETCHED", tmp_path / "fetched")
    monkeypatch.setattr(browser, "_playwrights", lambda: str(tmp_path / "playwrights"))
    return tmp_path


def test_the_machines_browser_comes_first_then_playwrights_then_the_fetched_one(bare: Path) -> None:
    assert find_browser() is None
    fetched = fake(bare / "fetched/chromium.sh")
    shutil.copy(browser.SOURCE / browser.LOCK, bare / "fetched")
    assert find_browser() == fetched
    downloaded = fake(bare / "playwrights")
    assert find_browser() == downloaded
    chrome = fake(bare / "bin/fake-chrome")
    assert find_browser() == chrome
    chromium = fake(bare / "bin/fake-chromium")
    assert find_browser() == chromium


def test_a_browser_that_does_not_start_is_passed_over(bare: Path) -> None:
    fake(bare / "bin/fake-chromium", status=127)
    downloaded = fake(bare / "playwrights")
    assert find_browser() == downloaded


def test_a_fetched_browser_of_another_version_is_not_taken(bare: Path) -> None:
    fake(bare / "fetched/chromium.sh")
    (bare / "fetched" / browser.LOCK).write_text("{}")
    assert find_browser() is None


def test_what_an_interrupted_fetch_left_is_made_again(bare: Path, monkeypatch) -> None:
    (bare / "fetched.new").mkdir()
    (bare / "fetched.new/half").touch()
    fake(bare / "fetched/chromium.sh", status=1)

    def run(command: list[str], **_: str) -> None:
        if command[0].endswith("npm"):
            (bare / "fetched.new/node_modules").mkdir()
        elif command[0].endswith("node"):
            fake(bare / "fetched.new/chromium.sh")

    monkeypatch.setattr(browser, "_run", run)
    assert get_browser() == str(bare / "fetched/chromium.sh")
    assert not (bare / "fetched/half").exists()
    assert not (bare / "fetched/node_modules").exists()


def test_where_none_can_be_had_each_reason_is_said(bare: Path, monkeypatch) -> None:
    def refuse(command: list[str], **_: str) -> None:
        raise subprocess.CalledProcessError(
            1, command, stderr=f"no {Path(command[0]).name} today\n"
        )

    monkeypatch.setattr(browser, "_run", refuse)
    with pytest.raises(NoBrowserError, match=r"no python.* today; no npm today"):
        get_browser()
