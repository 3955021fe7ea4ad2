"""An open table: Parquet files that count from the commit that names them, in Delta's log.

Whoever writes a file makes it whole and tells nobody; a commit adds files to the table and takes
others out, all at once. Delta Lake's own readers see the same: DuckDB, polars, Spark, Trino.
https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from verger.errors import SetupError
from verger.output.delta import (
    changed,
    check_name,
    explained,
    file_actions,
    open_delta,
    options,
    uri,
)
from verger.output.layout import DataFile
from verger.store import storage
from verger.store.location import Location

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable
    from pyarrow.dataset import FileSystemDataset

LOG = "_delta_log"

CONFIGURATION = {
    # Names of files and labels stay out of the log: an erased row leaves nothing there.
    "delta.dataSkippingNumIndexedCols": "0",
    # Opening a table reads the log since the last checkpoint.
    "delta.checkpointInterval": "10",
}

WRITER = "verger"
"""Under this name each commit counts itself, so that of two from the same version one fails."""

Words = Mapping[str, str | int]


class Table:
    """The table in a folder, at the version that this process has read or made.

    Args:
        location: the folder; nothing else may be kept in it.
        schema: its columns, that of the partition last.
        partition: the name of the column whose value names the folder of a file.
        said: of each commit, for the history: who made it, and why.
        check: called before each change; raises when the table is another process' by now.
        anew: whatever is there is not read, so that `delete` helps where it is damaged.
    """

    def __init__(
        self,
        location: Location,
        schema: pa.Schema,
        partition: str | None = None,
        *,
        said: Words | None = None,
        check: Callable[[], None] = lambda: None,
        anew: bool = False,
    ) -> None:
        self.location = location
        self.schema = schema
        self.partition = partition
        self.said = said or {}
        self.check = check
        check_name(location)
        self._delta = None if anew else open_delta(location)
        self.version = self._delta.version() if self._delta else -1

    @property
    def exists(self) -> bool:
        """Whether it was made."""
        return self._delta is not None

    @property
    def properties(self) -> dict[str, str]:
        """What all its rows have in common: names and values as `create` was given them."""
        if self._delta is None:
            return {}
        with explained(self.location):
            configuration = self._delta.metadata().configuration
        own = f"{WRITER}."
        return {
            name.removeprefix(own): value
            for name, value in configuration.items()
            if name.startswith(own)
        }

    def files(self, part: str | None = None) -> list[DataFile]:
        """The files that count, or those of one partition."""
        if self._delta is None:
            return []
        with explained(self.location):
            actions = pa.table(self._delta.get_add_actions(flatten=True)).to_pylist()
        files = [
            DataFile(
                action["path"],
                action["size_bytes"],
                action["num_records"],
                action.get(f"partition.{self.partition}"),
            )
            for action in actions
        ]
        return sorted(
            (file for file in files if part is None or file.part == part), key=lambda f: f.name
        )

    def counts(self) -> Counter[str]:
        """How many rows each partition has; from the log alone."""
        counts: Counter[str] = Counter()
        for file in self.files():
            counts[file.part or ""] += file.rows
        return counts

    def dataset(self, part: str | None = None) -> "FileSystemDataset":
        """The rows for Arrow, those of one partition where it is given; read when they are used."""
        from pyarrow.dataset import FileSystemDataset, ParquetFileFormat, dataset

        columns = [field for field in self.schema if field.name != self.partition]
        paths = [self.location.child(file.name).path for file in self.files(part)]
        files = storage.file_system(self.location)
        if not paths:
            return FileSystemDataset.from_paths([], pa.schema(columns), ParquetFileFormat(), files)
        return dataset(paths, schema=pa.schema(columns), filesystem=files, format="parquet")

    def create(self, properties: Words) -> None:
        """Make it, with no row; `properties` is what its rows will have in common."""
        from deltalake import DeltaTable, Schema

        with explained(self.location):
            DeltaTable.create(
                uri(self.location),
                Schema.from_arrow(self.schema),
                partition_by=[self.partition] if self.partition else None,
                configuration=CONFIGURATION | _own(properties),
                storage_options=options(self.location),
                commit_properties=self._commit_properties(),
                raise_if_key_not_exists=False,
            )
        self._advance()

    def delete(self) -> None:
        """Delete it with all its files; the log first, so that what is left of it is no table."""
        storage.delete(self.location.child(LOG))
        storage.delete(self.location)
        self._delta, self.version = None, -1

    def set_properties(self, properties: Words) -> None:
        """Change what its rows have in common."""
        self.check()
        with explained(self.location):
            self._opened().alter.set_table_properties(
                _own(properties),
                raise_if_not_exists=False,
                commit_properties=self._commit_properties(),
            )
        self._advance()

    def add_columns(self) -> None:
        """Give a table of an earlier version the columns that it lacks; its rows have null."""
        from deltalake import Schema

        with explained(self.location):
            has = {field.name for field in self._opened().schema().fields}
            lacking = [f for f in Schema.from_arrow(self.schema).fields if f.name not in has]
        if not lacking:
            return
        self.check()
        with explained(self.location):
            self._opened().alter.add_columns(lacking, commit_properties=self._commit_properties())
        self._advance()

    def commit(
        self, added: Iterable[DataFile], removed: Iterable[DataFile], *, same_rows: bool = False
    ) -> None:
        """Make files part of the table and take others out, all at once.

        Args:
            added: files that are whole.
            removed: files of the table.
            same_rows: those added have the rows of those removed, so that nothing has changed for
                whoever follows the table.

        Raises:
            SetupError: another process has changed the table since; nothing was changed.
        """
        from deltalake import Schema
        from deltalake.exceptions import CommitFailedError

        added = list(added)
        token = uuid.uuid4().hex
        counts = Counter[str]()
        for file in added:
            counts[file.part or "rows"] += file.rows
        self.check()
        try:
            with explained(self.location):
                self._opened().create_write_transaction(
                    file_actions(added, removed, self.partition, data_change=not same_rows),
                    "append",
                    Schema.from_arrow(self.schema),
                    partition_by=[self.partition] if self.partition else None,
                    commit_properties=self._commit_properties(**counts, token=token),
                )
        except SetupError as error:
            # A put whose answer was lost is repeated, and then meets its own work.
            conflict = isinstance(error.__cause__, CommitFailedError)
            if not conflict or not self._is_next(token):
                raise
        self._advance()

    def vacuum(self, hours: int) -> int:
        """Delete what the table has not named for so many hours; how many files that were.

        Args:
            hours: with 0 nothing is left but what counts; files of a commit that failed go as well.
        """
        if self._delta is None:
            return 0
        # Found by Delta, deleted here: its own deletion would be two commits more, every night.
        with explained(self.location):
            names = self._opened().vacuum(
                hours, dry_run=True, enforce_retention_duration=False, full=True
            )
        folders = {"", *(name.rpartition("/")[0] for name in names)}
        folders |= {f"{self.partition}={file.part}" for file in self.files() if file.part}
        for folder in () if self.location.is_s3 else map(self.location.child, folders):
            for name in storage.names(folder):
                if name.startswith("."):  # what a killed process was writing
                    storage.delete(folder.child(name))
        # Of another process there may be files that have no commit yet.
        storage.delete_files([self.location.child(name) for name in names], self.check)
        return len(names)

    def _opened(self) -> "DeltaTable":
        """The table as it was left; on S3 with credentials as they are now.

        Raises:
            SetupError: somebody else has changed it.
        """
        if self._delta is None or self.location.is_s3:
            self._delta = open_delta(self.location)
        if self._delta is None or self._delta.version() != self.version:
            raise changed(self.location)
        return self._delta

    def _advance(self) -> None:
        """Go to the version that this process made."""
        if self._delta is None or self.location.is_s3:
            self._delta = open_delta(self.location)
        else:
            with explained(self.location):
                self._delta.update_incremental()
        if self._delta is None:
            raise changed(self.location)
        self.version = self._delta.version()
        # The commit, and the checkpoint that some make.
        storage.sync(self.location.child(LOG), f"{self.version:020}.*", "_last_checkpoint")

    def _is_next(self, token: str) -> bool:
        """Whether the next commit is the one with this token."""
        entry = self.location.child(LOG, f"{self.version + 1:020}.json")
        try:
            return token.encode() in storage.read_bytes(entry)
        except FileNotFoundError:
            return False

    def _commit_properties(self, **more: str | int) -> "CommitProperties":
        from deltalake import CommitProperties, Transaction

        return CommitProperties(
            custom_metadata={**self.said, **more},
            max_commit_retries=0,
            app_transactions=[Transaction(WRITER, self.version + 1)],
        )


def _own(properties: Words) -> dict[str, str]:
    return {f"{WRITER}.{name}": str(value) for name, value in properties.items()}
