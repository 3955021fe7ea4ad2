"""Rows out of Parquet files, in the driver and in tasks, from a disk and from a store."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
from pyarrow.parquet import ParquetFile

from verger.errors import SetupError
from verger.output.layout import DataFile
from verger.store import storage
from verger.store.location import Location

OPENED_AHEAD = 16
"""Files of a store that are asked for at once."""

WHOLE_BYTES = 2**20
"""A file of a store that is no larger is fetched whole: a request takes as long as a megabyte."""

FILE = pa.field("file", pa.string())
"""The column of a scan that says which file a row is in."""


@dataclass(frozen=True)
class Slice:
    """Rows of a file, from `start` on and before `stop`."""

    file: DataFile
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.stop - self.start

    @property
    def size(self) -> int:
        """Its share of the file's bytes."""
        return self.file.size * self.rows // self.file.rows


def whole(files: Iterable[DataFile]) -> list[Slice]:
    """All rows of some files."""
    return [Slice(file, 0, file.rows) for file in files]


@dataclass(frozen=True)
class Reader:
    """Reads slices of the files in a folder.

    Attributes:
        folder: that the names of the files are relative to.
        schema: the columns wanted; `file` is the name of a row's file.
        partition: the column that is not in the files, but the part of each.
    """

    folder: Location
    schema: pa.Schema
    partition: str | None = None

    def read(self, slices: Iterable[Slice]) -> Iterator[pa.RecordBatch]:
        """The rows of some slices, a row group at a time."""
        for piece, parquet in self._opened(slices):
            try:
                yield from self._rows(piece, parquet)
            finally:
                parquet.close(force=True)

    def table(self, slices: Iterable[Slice]) -> pa.Table:
        """The rows of some slices, in memory."""
        return pa.Table.from_batches(self.read(slices), self.schema)

    def _opened(self, slices: Iterable[Slice]) -> Iterator[tuple[Slice, ParquetFile]]:
        """Slices with their files; a store is asked for the next ones meanwhile."""
        if not self.folder.is_s3:
            yield from ((piece, self._open(piece.file)) for piece in slices)
            return
        waiting: deque[tuple[Slice, Future[ParquetFile]]] = deque()
        with ThreadPoolExecutor(OPENED_AHEAD) as pool:
            for piece in slices:
                waiting.append((piece, pool.submit(self._open, piece.file)))
                if len(waiting) > OPENED_AHEAD:
                    first, opened = waiting.popleft()
                    yield first, opened.result()
            yield from ((piece, opened.result()) for piece, opened in waiting)

    def _open(self, file: DataFile) -> ParquetFile:
        place = self.folder.child(file.name)
        try:
            if place.is_s3 and 0 < file.size <= WHOLE_BYTES:
                return ParquetFile(pa.BufferReader(storage.read_bytes(place)))
            stream = storage.file_system(place).open_input_file(place.path)
            return ParquetFile(stream, pre_buffer=place.is_s3)
        except FileNotFoundError as error:
            raise SetupError(
                f"{place} has gone, though it counts.",
                "Put it back from a copy, or give --fresh to compute everything anew.",
            ) from error

    def _rows(self, piece: Slice, parquet: ParquetFile) -> Iterator[pa.RecordBatch]:
        stored = [name for name in self.schema.names if name in parquet.schema_arrow.names]
        first = 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            start, stop = max(piece.start - first, 0), min(piece.stop - first, rows)
            first += rows
            if start < stop:
                rows_of_group = parquet.read_row_group(group, columns=stored)
                table = self._complete(rows_of_group.slice(start, stop - start), piece.file)
                yield from table.to_batches()

    def _complete(self, rows: pa.Table, file: DataFile) -> pa.Table:
        columns = []
        for field in self.schema:
            if field.name in rows.column_names:
                columns.append(rows[field.name].cast(field.type))
            else:
                known = {FILE.name: file.name, self.partition: file.part}
                value = pa.scalar(known.get(field.name), field.type)
                columns.append(pa.repeat(value, len(rows)))
        return pa.Table.from_arrays(columns, schema=self.schema)
