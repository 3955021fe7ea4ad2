"""Delta Lake's tables: opened in a folder or on S3, their commits, and what their errors mean."""

import json
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

from verger.errors import SetupError, UsageError
from verger.output.layout import DataFile
from verger.store.client import delta_options
from verger.store.location import Location, bucket_and_key

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from deltalake.transaction import AddAction, RemoveAction

WITHOUT_LINKS = ("/Volumes/",)
"""Unity Catalog's volumes are mounts without hard links, by which delta-rs commits elsewhere. There
it renames, which two writers at once would not survive; an output has one."""


def open_delta(location: Location) -> "DeltaTable | None":
    """The table in a folder as it is now; None where there is none.

    Raises:
        SetupError: it cannot be read.
    """
    # It takes 50 ms to load, and no worker needs it.
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    with explained(location):
        try:
            return DeltaTable(uri(location), storage_options=options(location))
        except TableNotFoundError:
            return None


def check_name(location: Location) -> None:
    """Refuse a folder that Delta would take for another one.

    Raises:
        UsageError: no table may have such a name.
    """
    if re.search("%[0-9A-Fa-f]{2}", location.uri):
        raise UsageError(
            f"The name {location} has a % with two digits, which no table may be below.",
            "Give another output.",
        )


@contextmanager
def explained(location: Location) -> Iterator[None]:
    """Say what an error of Delta means.

    Raises:
        SetupError: another process has changed the table, or it cannot be read or written.
    """
    from deltalake.exceptions import CommitFailedError, DeltaError

    try:
        yield
    except CommitFailedError as error:
        raise changed(location) from error
    except DeltaError as error:
        raise SetupError(
            # Lines of Rust's may follow.
            f"The table {location} cannot be used: {str(error).partition(chr(10))[0]}",
            "Look at the disk, or at the store and its credentials; the same command goes on. "
            "If the table itself is damaged, give another output, or start this one over with "
            "--fresh.",
        ) from error


def changed(location: Location) -> SetupError:
    """What is raised when somebody else has changed a table."""
    return SetupError(
        f"Another process has changed the table {location}; nothing of this commit counts.",
        "Wait until the other one has ended; the same command goes on.",
    )


def file_actions(
    added: Iterable[DataFile],
    removed: Iterable[DataFile],
    partition: str | None,
    *,
    data_change: bool,
) -> list["AddAction | RemoveAction"]:
    """What a commit says of files that it adds to a table and takes out of it.

    Their statistics are how many rows they have, and nothing of what is in these.
    """
    from deltalake.transaction import AddAction, RemoveAction

    now = int(time.time() * 1000)

    def part_of(file: DataFile) -> dict[str, str | None]:
        return {partition: file.part} if partition else {}

    adds = (
        AddAction(
            path=file.name,
            size=file.size,
            partition_values=part_of(file),
            modification_time=now,
            data_change=data_change,
            stats=json.dumps({"numRecords": file.rows}),
        )
        for file in added
    )
    removes = (
        RemoveAction(
            path=file.name,
            data_change=data_change,
            deletion_timestamp=now,
            size=file.size,
            partition_values=part_of(file),
        )
        for file in removed
    )
    return [*adds, *removes]


def uri(location: Location) -> str:
    """A folder as Delta takes it."""
    return location.uri if location.is_s3 else f"file://{quote(location.uri)}"


def options(location: Location) -> dict[str, str] | None:
    """What Delta needs to know of the store."""
    if location.is_s3:
        return delta_options(bucket_and_key(location.path)[0])
    return {"allow_unsafe_rename": "true"} if location.path.startswith(WITHOUT_LINKS) else None
