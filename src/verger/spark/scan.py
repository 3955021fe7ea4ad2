"""Parquet into tasks: they read the files themselves, from disk and from S3, as they write them.

So features never pass through Java, and Spark needs no jar for S3. Java gets what is to be joined
or sorted.
"""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar
from zipimport import zipimporter

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from verger.output.layout import ROW_GROUP, DataFile
from verger.output.table import Table
from verger.spark.connect import is_connect, processors
from verger.spark.reading import FILE, Reader, Slice
from verger.store.location import Location

FEW_BYTES, FEW_ROWS = 48 * 2**20, 100_000
"""What the driver reads by itself, where it is no more: about 8,000 rows of features, or 100,000 of
scores. A job of Spark takes longer to begin."""

T = TypeVar("T")
Batches = Iterable[pa.RecordBatch]
Step = Callable[[Batches], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class Scan:
    """Rows of Parquet files, each task of which reads its own slices.

    Attributes:
        spark: the session.
        reader: what is read, and how.
        tasks: what each task reads.
    """

    spark: SparkSession
    reader: Reader
    tasks: list[list[Slice]]

    @classmethod
    def of_files(
        cls, spark: SparkSession, folder: Location, schema: pa.Schema, files: Iterable[DataFile]
    ) -> "Scan":
        """All rows of some files, spread over the processors."""
        return cls(spark, Reader(folder, schema), _spread(spark, files))

    @classmethod
    def of_table(
        cls,
        spark: SparkSession,
        table: Table,
        *columns: str,
        part: str | None = None,
        files: list[DataFile] | None = None,
    ) -> "Scan":
        """Some columns of a table, `file` among them if wanted; of one partition, or of some files.

        Raises:
            SetupError: the table cannot be read.
        """
        known = {field.name: field for field in (*table.schema, FILE)}
        schema = pa.schema([known[name] for name in columns])
        reader = Reader(table.location, schema, table.partition)
        chosen = table.files(part) if files is None else files
        return cls(spark, reader, _spread(spark, chosen))

    def mapInArrow(self, function: Step, schema: StructType | str) -> DataFrame:  # noqa: N802
        """As a DataFrame's: apply a function to the batches of each task."""
        reader, tasks = self.reader, self.tasks

        def run(numbers: Batches) -> Iterator[pa.RecordBatch]:
            keep_archives()
            mine = (piece for batch in numbers for n in batch[0].to_pylist() for piece in tasks[n])
            return function(reader.read(mine))

        count = len(tasks)
        return self.spark.range(0, count, 1, max(count, 1)).mapInArrow(run, schema)

    def run(self, step: Step) -> list[pa.RecordBatch]:
        """What a step makes of the rows of each task, in this process; not under Connect.

        Spark's SQL, which takes a second to begin with, is not needed.
        """
        reader = self.reader

        def of_tasks(tasks: Iterable[list[Slice]]) -> Iterator[pa.RecordBatch]:
            keep_archives()
            return step(reader.read(itertools.chain.from_iterable(tasks)))

        tasks = self.spark.sparkContext.parallelize(self.tasks, max(len(self.tasks), 1))
        return _checked(tasks.mapPartitions(of_tasks).collect(), self.spark)

    @property
    def count(self) -> int:
        """How many rows there are."""
        return sum(piece.rows for piece in itertools.chain(*self.tasks))

    @property
    def is_short(self) -> bool:
        """Whether the rows are so few that the driver is to read them."""
        size = sum(piece.size for piece in itertools.chain(*self.tasks))
        return self.count <= FEW_ROWS and size <= FEW_BYTES

    def read(self) -> Iterator[pa.RecordBatch]:
        """The rows, in this process."""
        return self.reader.read(itertools.chain(*self.tasks))

    def rows(self) -> DataFrame:
        """The rows for Spark's SQL."""
        return self.mapInArrow(iter, spark_schema(self.reader.schema))


Rows = DataFrame | Scan
"""What can be mapped in tasks."""


def keep_archives() -> None:
    """Have this worker read the archives of Python code on its path once, and not for every task.

    PySpark invalidates what is known of them before each task, as if they could change; that costs
    70 ms of a processor, since its own code is in archives.
    """
    for finder in sys.path_importer_cache.values():
        if isinstance(finder, zipimporter):
            finder.invalidate_caches = lambda: None  # type: ignore[method-assign]


def spark_schema(schema: pa.Schema) -> StructType:
    """A schema of Arrow in Spark's words."""
    return from_arrow_schema(schema)


def map_rows(rows: Rows, step: Step, schema: StructType | str) -> Iterator[dict[str, Any]]:
    """What a step makes of all rows in tasks, in this process.

    Raises:
        Py4JError, OSError: Java has ended meanwhile.
    """
    if isinstance(rows, Scan) and not is_connect(rows.spark):
        for batch in rows.run(step):
            yield from batch.to_pylist()
    else:
        yield from collect(rows.mapInArrow(step, schema))


def collect(rows: DataFrame) -> Iterator[dict[str, Any]]:
    """All rows, in this process, by the names of their columns.

    Raises:
        Py4JError, OSError: Java has ended meanwhile.
    """
    spark = rows.sparkSession
    found = rows.toLocalIterator() if is_connect(spark) else _checked(rows.collect(), spark)
    return (row.asDict() for row in found)


def _checked(answer: list[T], spark: SparkSession) -> list[T]:
    """An answer of Java's, which still runs: PySpark takes one that was cut off for a short one."""
    # Only a Java that runs can say its version.
    _ = spark.sparkContext.version
    return answer


def _spread(spark: SparkSession, files: Iterable[DataFile]) -> list[list[Slice]]:
    """Cut files into as many tasks as there are processors, or fewer where rows are few."""
    pieces = [
        Slice(file, start, min(start + ROW_GROUP, file.rows))
        for file in files
        for start in range(0, file.rows, ROW_GROUP)
    ]
    total = sum(piece.rows for piece in pieces)
    count = min(processors(spark), -(-total // ROW_GROUP))
    tasks: list[list[Slice]] = [[] for _ in range(count)]
    done = 0
    for piece in pieces:
        mine = tasks[done * count // total]
        if mine and mine[-1].file is piece.file:
            mine[-1] = Slice(piece.file, mine[-1].start, piece.stop)
        else:
            mine.append(piece)
        done += piece.rows
    return tasks
