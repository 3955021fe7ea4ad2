"""What several tests use to run the chain and to read what it made."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import psutil
import pyarrow.parquet as pq

from verger.chain import run
from verger.errors import SetupError
from verger.output.files import open_files
from verger.output.layout import Output
from verger.output.manifest import Manifest
from verger.output.table import Table
from verger.settings import RunSettings
from verger.store.location import Location

VERGER = [sys.executable, "-m", "verger"]


def go(images: Path, output: Path, **options: object) -> Manifest:
    return run(RunSettings(input=str(images), output=str(output), **options))


def verger(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*VERGER, *map(str, arguments)], capture_output=True, text=True, env=env, check=False
    )


@contextmanager
def running(command: list[object], **options: object) -> Iterator[subprocess.Popen]:
    """A process that is gone after the block, however the block ends."""
    with subprocess.Popen(list(map(str, command)), **options) as process:
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()


def spark_workers(pid: int | None = None) -> list[psutil.Process]:
    """Spark's Python workers and their daemons, below a process (None: this one)."""
    return processes_below(pid, "spark.daemon")


def processes_below(pid: int | None, words: str) -> list[psutil.Process]:
    """The processes below one (None: this one) with these words in their command line."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if words in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:  # it ended meanwhile
            continue
    return found


def features_of(output: Path) -> pd.DataFrame:
    """All rows of features, sorted by path, as whoever knows no Delta reads them."""
    return _rows_of(output, "featurized")[["path", "label", "features"]]


def rejected_of(output: Path) -> dict[str, str]:
    """The reason of each rejected file."""
    rows = _rows_of(output, "rejected")
    return dict(zip(rows.path, rows.reason, strict=True)) if len(rows) else {}


def table_of(output: Path) -> Table:
    """The table of an output's files."""
    return open_files(output_of(output))


def output_of(folder: Path) -> Output:
    """The names in an output."""
    return Output(Location(str(folder)))


def committed(output: Path) -> int:
    """How many rows of features the table of an output has; it may be about to be made."""
    # A run deletes a table without rows and makes it anew, while a test is looking.
    with suppress(SetupError):
        return table_of(output).counts()["featurized"]
    return 0


def matrix_of(output: Path) -> pd.DataFrame:
    return pd.read_csv(
        output / "pca/matrix.csv", float_precision="round_trip", keep_default_na=False
    )


def assert_same_features(left: Path, right: Path) -> None:
    """Same paths, once each, and bit for bit the same features."""
    ours, theirs = features_of(left), features_of(right)
    assert ours.path.is_unique
    pd.testing.assert_frame_equal(ours, theirs)


def _rows_of(output: Path, outcome: str) -> pd.DataFrame:
    files = sorted(output.glob(f"files/outcome={outcome}/*.parquet"))
    if not files:
        return pd.DataFrame({"path": [], "label": [], "features": []})
    table = pd.concat([pq.read_table(file, partitioning=None).to_pandas() for file in files])
    return table.sort_values("path").reset_index(drop=True)
