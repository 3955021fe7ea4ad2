"""What tasks do before their work, and what the driver does instead of them."""

import importlib.util
import sys
import zipfile
import zipimport
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from helpers import go, matrix_of
from verger.spark import comparison, scan
from verger.spark.reading import Reader
from verger.spark.scan import Scan, keep_archives
from verger.store.location import Location


def test_workers_have_pyspark_from_where_it_was_installed(spark: SparkSession) -> None:
    def where(_: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyspark.worker

        preloaded = {"openvino", "verger.spark.extraction"} <= sys.modules.keys()
        yield pa.RecordBatch.from_pydict(
            {"file": [pyspark.worker.__file__], "path": ["\n".join(sys.path)], "ready": [preloaded]}
        )

    tasks = Scan(spark, Reader(Location("/"), pa.schema([])), [[], []])
    for row in tasks.mapInArrow(where, "file string, path string, ready boolean").collect():
        assert Path(row.file).is_file()
        assert "pyspark.zip" not in row.path
        assert row.ready


def test_an_archive_on_the_path_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "code.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("in_an_archive.py", "")
    monkeypatch.syspath_prepend(archive)
    importlib.import_module("in_an_archive")
    read: list[str] = []
    monkeypatch.setattr(zipimport, "_read_directory", read.append)
    keep_archives()
    importlib.invalidate_caches()
    assert importlib.util.find_spec("not_in_an_archive") is None
    assert read == []


def test_few_rows_give_what_tasks_give(
    spark: SparkSession,
    orchard: Path,
    sound: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(comparison, "FEW", 0)
    monkeypatch.setattr(scan, "FEW_BYTES", -1)
    go(orchard, tmp_path / "tasks", components=5, wave_size=10)
    assert spark.sparkContext._jsc.getPersistentRDDs().size() == 0, "it holds what was compared"
    ours, theirs = matrix_of(sound), matrix_of(tmp_path / "tasks")
    assert list(ours.path) == list(theirs.path)
    np.testing.assert_allclose(ours.iloc[:, 2:], theirs.iloc[:, 2:], atol=1e-9)
    variances = [pd.read_csv(output / "pca/variance.csv") for output in (sound, tmp_path / "tasks")]
    pd.testing.assert_frame_equal(*variances, rtol=1e-9)
    parts = [sorted((output / "pca/csv").iterdir()) for output in (sound, tmp_path / "tasks")]
    texts = [b"".join(part.read_bytes() for part in some).splitlines() for some in parts]
    assert len(texts[0]) == len(ours) + 1
