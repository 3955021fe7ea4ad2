"""Small orchards for the tests, and one Spark session for all of them."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyspark
import pytest
from pyspark.sql import SparkSession

from helpers import go
from verger.datasets.demo import KINDS, render
from verger.spark.session import start_session

if TYPE_CHECKING:
    from playwright.sync_api import Browser


STARTED = {"spark", "sound", "browser", "port", "moto_port", "bucket"}
"""The fixtures that start what takes long: Spark, a browser, a server of S3 or AWS."""

SLOWER = ("spark", "tensorflow", "docs", "slow", "speed", "bench")
"""The markers of tests that are not fast."""

# A shell that starts the tests in the background has them ignore Ctrl-C, which runs would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    return f"Spark {pyspark.__version__}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test is fast unless a fixture or a marker says otherwise; fast ones come last.

    Each of two processes begins with half of the list, and at the end waits for no long one.
    """
    slow, fast = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        needs = STARTED & set(getattr(item, "fixturenames", ()))
        if needs or any(map(item.get_closest_marker, SLOWER)):
            slow.append(item)
        else:
            fast.append(item)
            item.add_marker("fast")
    of_slow, of_fast = len(slow) // 2, len(fast) // 2
    items[:] = [*slow[:of_slow], *fast[:of_fast], *slow[of_slow:], *fast[of_fast:]]


@pytest.fixture(autouse=True)
def _fast_is_fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast test that starts Spark, here or in a process of its own, fails."""
    if request.node.get_closest_marker("fast"):
        monkeypatch.setenv("JAVA_HOME", "/a fast test starts no Java")


@pytest.fixture(scope="session")
def spark() -> SparkSession:
    # Rows are few: a shuffle in two pieces gives the same in less time. So do two tries of a task,
    # of those that kill their worker.
    session = start_session("local[2,2]")
    session.conf.set("spark.sql.shuffle.partitions", "2")
    return session


@pytest.fixture(scope="session")
def orchard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photographs of 4 kinds; tests must not write to it."""
    folder = tmp_path_factory.mktemp("orchard")
    for kind in KINDS[:4]:
        (folder / kind).mkdir()
        for frame in range(6):
            render(kind, frame, 6).save(folder / kind / f"r_{frame}_100.jpg", quality=90)
    return folder


@pytest.fixture(scope="session")
def sound(spark: SparkSession, orchard: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run makes of the orchard, with 5 components; tests must not write to it."""
    output = tmp_path_factory.mktemp("sound") / "out [1] {a} é"
    go(orchard, output, components=5)
    return output


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from browsers import chromium

    with chromium() as opened:
        yield opened


@pytest.fixture
def path_without_java(tmp_path: Path) -> Path:
    """A folder with what Spark's scripts call, and no java."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in (
        "bash",
        "env",
        "dirname",
        "basename",
        "ps",
        "nice",
        "uname",
        "sh",
        "readlink",
        "chmod",
        "ls",
        "id",
    ):
        found = shutil.which(name)
        if found:
            (folder / name).symlink_to(found)
    return folder
