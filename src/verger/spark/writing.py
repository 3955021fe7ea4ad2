"""Parquet out of tasks: they write rows themselves, and tell the driver which files those are.

Small files of a table are merged by tasks too, so that a driver never reads what is merged.
"""

import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import write_table
from pyspark.sql import SparkSession

from verger.errors import DefectError
from verger.output.layout import ROW_GROUP, DataFile
from verger.output.table import Table
from verger.spark.reading import Reader, whole
from verger.spark.scan import Batches, Rows, Scan, Step, map_rows, spark_schema
from verger.store import storage
from verger.store.location import Location

WRITTEN_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("rows", pa.int64()),
        pa.field("part", pa.string()),
    ]
)
"""A `DataFile`, as a task tells the driver of it."""

HELD_BYTES = 64 * 2**20
"""Of rows that a task holds before it writes them: of MobileNetV2's features 13,000 rows."""

MERGED_ROWS = 10_000
"""About the rows of a file that others were merged into: of features 32 MB, and 51 MB in memory.
Files of half of it and more are left as they are. Bytes would not bound what a task reads: those of
images that are all alike are few."""

Parts = dict[str | None, list[pa.RecordBatch]]


def write_rows(
    folder: Location, batches: Batches, partition: str | None = None
) -> Iterator[pa.RecordBatch]:
    """Write the rows of a task: a file, or one for each value of a column, in folders `name=value`.

    A file appears whole, under a name that nothing has had. Each time the task holds `HELD_BYTES`
    of rows it writes them, so that its memory is bounded.

    Yields:
        `WRITTEN_SCHEMA`, a row a file.

    Raises:
        OSError: it cannot be written.
    """
    parts: Parts = defaultdict(list)
    held = 0
    for batch in batches:
        if partition is None:
            parts[None].append(batch)
        else:
            column = batch.column(partition)
            for part in column.unique().to_pylist():
                of_part = batch.filter(pc.equal(column, part)).drop_columns(partition)
                parts[part].append(of_part)
        held += batch.nbytes
        if held >= HELD_BYTES:
            yield from _write_files(folder, parts, partition)
            parts.clear()
            held = 0
    yield from _write_files(folder, parts, partition)


def _write_files(folder: Location, parts: Parts, partition: str | None) -> Iterator[pa.RecordBatch]:
    for part, batches in parts.items():
        rows = pa.Table.from_batches(batches)
        if not len(rows):
            continue
        prefix = f"{partition}={part}/" if partition else ""
        name = f"{prefix}{uuid.uuid4().hex}.parquet"
        data = pa.BufferOutputStream()
        words = [field.name for field in rows.schema if pa.types.is_string(field.type)]
        options = {"compression": "zstd", "use_dictionary": words}
        write_table(rows, data, row_group_size=ROW_GROUP, **options)
        content = data.getvalue()
        storage.write_bytes(folder.child(name), content.to_pybytes())
        yield pa.RecordBatch.from_pylist(
            [{"name": name, "size": content.size, "rows": len(rows), "part": part}], WRITTEN_SCHEMA
        )


def write_here(folder: Location, batches: Batches, partition: str | None = None) -> list[DataFile]:
    """As `write_rows`, in this process; which files that are."""
    written = write_rows(folder, batches, partition)
    return [DataFile(**row) for batch in written for row in batch.to_pylist()]


def write(
    rows: Rows,
    step: Step,
    folder: Location,
    partition: str | None = None,
    *,
    tell: Callable[[DataFile], None] | None = None,
) -> list[DataFile]:
    """Map rows in tasks and write what comes out; which files that are.

    Args:
        rows: what is mapped.
        step: what is done with them.
        folder: where files are written.
        partition: the column whose values have folders of their own.
        tell: is told of each file; under Connect as tasks end, in their order.
    """

    def written(batches: Batches) -> Iterator[pa.RecordBatch]:
        return write_rows(folder, step(batches), partition)

    files = []
    for row in map_rows(rows, written, spark_schema(WRITTEN_SCHEMA)):
        files.append(DataFile(**row))
        if tell:
            tell(files[-1])
    return files


def check_rows(written: Iterable[DataFile], count: int) -> None:
    """Refuse to commit files that do not have all rows.

    Raises:
        DefectError: they have fewer or more than `count`.
    """
    if (rows := sum(file.rows for file in written)) != count:
        raise DefectError(f"{count} rows were to be written, and {rows} were.")


def merge_files(spark: Callable[[], SparkSession], table: Table, most: int) -> bool:
    """Merge small files where a partition has more than `most` of them.

    Args:
        spark: gives the session; asked only where there is something to merge.
        table: whose rows stay the same, in one commit.
        most: small files that a partition may have.

    Returns:
        Whether files were merged.

    Raises:
        DefectError: rows would be lost.
    """
    small = [file for file in table.files() if file.rows < MERGED_ROWS / 2]
    counts = Counter(file.part for file in small)
    groups = group_files(file for file in small if counts[file.part] > most)
    if not groups:
        return False
    merged = [file for group in groups for file in group]
    reader = Reader(table.location, table.schema, table.partition)
    scan = Scan(spark(), reader, [whole(group) for group in groups])
    written = write(scan, iter, table.location, table.partition)
    check_rows(written, sum(file.rows for file in merged))
    table.commit(written, merged, same_rows=True)
    return True


def group_files(files: Iterable[DataFile]) -> list[list[DataFile]]:
    """Files of one partition each, as many as have `MERGED_ROWS`; none is alone."""
    groups: list[list[DataFile]] = []
    for _, of_part in groupby(files, key=lambda file: file.part):
        rows = MERGED_ROWS
        for file in of_part:
            if rows >= MERGED_ROWS:
                groups.append([])
                rows = 0
            groups[-1].append(file)
            rows += file.rows
    return [group for group in groups if len(group) > 1]
