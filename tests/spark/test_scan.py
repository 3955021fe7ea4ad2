"""What tasks do before their work."""

import sys
from collections.abc import Iterable, Iterator
from zipimport import zipimporter

import pyarrow as pa
from pyspark.sql import SparkSession

from verger.spark.scan import Reader, Scan
from verger.store.location import Location


def test_a_worker_reads_the_archives_on_its_path_once(spark: SparkSession) -> None:
    def times_read(_: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        finders = [f for f in sys.path_importer_cache.values() if isinstance(f, zipimporter)]
        known = [finder._get_files() if hasattr(finder, "_get_files") else finder._files
                 for finder in finders]  # fmt: skip
        for finder in finders:
            finder.invalidate_caches()
        after = [finder._get_files() if hasattr(finder, "_get_files") else finder._files
                 for finder in finders]  # fmt: skip
        same = [old is new for old, new in zip(known, after, strict=True)]
        yield pa.RecordBatch.from_pydict({"finders": [len(same)], "kept": [sum(same)]})

    scan = Scan(spark, Reader(Location("/"), pa.schema([])), [[], []])
    for row in scan.mapInArrow(times_read, "finders long, kept long").collect():
        assert row.finders > 0
        assert row.kept == row.finders
