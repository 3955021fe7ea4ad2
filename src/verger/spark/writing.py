"""Parquet out of tasks: they write rows themselves, and tell the driver which files those are."""

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import write_table

from verger.errors import DefectError
from verger.output.layout import ROW_GROUP, DataFile
from verger.spark.scan import Batches, Rows, Step, map_rows, spark_schema
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


@dataclass(frozen=True)
class Writing:
    """A step whose batches are written by the task that makes them; see `write_rows`."""

    step: Step
    folder: Location
    partition: str | None = None

    def __call__(self, batches: Batches) -> Iterator[pa.RecordBatch]:
        """Do the step, and tell what was written."""
        return write_rows(self.folder, self.step(batches), self.partition)


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
    files = []
    for row in map_rows(rows, Writing(step, folder, partition), spark_schema(WRITTEN_SCHEMA)):
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
