"""A pack as files: `pack.json` and its shards, Parquet sorted by path, which are streams."""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from verger.errors import InputError
from verger.store import storage
from verger.store.location import Location

ROW_GROUP_BYTES = 4 * 2**20
"""What is held in memory before it is written; the image that fills it may be larger."""

ROW_GROUP_ROWS = 8192
"""Likewise, for files that have no bytes because they were refused."""

SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("bytes", pa.binary()),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("source_size", pa.int64(), nullable=False),
        pa.field("source_tag", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]
)
"""A row a file: its bytes without metadata, or the reason why there are none.

A pack is sent away, so that it says of a source only what its name says, and no time."""

FINGERPRINT = ("source_size", "source_tag")
"""The columns that tell whether a file has changed since; an ETag, or see `tag_of`."""

PACK = "pack.json"
SHARD_NAME = re.compile(r"shard-(\d{6,})\.parquet")

END_BYTES = 2**16
"""A tag is a checksum of so many bytes at each end: cameras and editors write at the beginning."""

Row = dict[str, Any]


class Shard(BaseModel):
    """A Parquet file that is whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    images: int
    """Its rows, those of refused files among them."""
    bytes: int
    """Of the images in it."""
    first: str
    last: str
    """The paths between which it is sorted."""


class Pack(BaseModel):
    """`pack.json`: what the shards beside it hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1, 2] = 2
    """Those of 1 are read, and nothing is added to them: they say where and when images were."""
    verger_version: str
    source: str | None = None
    """Of version 1."""
    label_from: str
    credit: str | None = None
    """Whose images they are."""
    status: Literal["incomplete", "complete"] = "incomplete"
    images: int = 0
    """Rows of all shards: a row a file of the source."""
    refused: dict[str, int] = {}
    """Those without bytes, by reason."""
    bytes_before: int = 0
    """Of the others, in the source."""
    bytes_after: int = 0
    """Of the others, in the shards."""
    shards: tuple[Shard, ...] = ()

    def write(self, target: Location) -> None:
        """Put it in place, whole."""
        storage.write_bytes(target.child(PACK), self.model_dump_json(indent=1).encode() + b"\n")


def read_pack(location: Location) -> Pack | None:
    """What a folder of shards holds, or None when it has no `pack.json`.

    Raises:
        InputError: the file is damaged, or of another version.
    """
    file = location.child(PACK)
    try:
        return Pack.model_validate_json(storage.read_bytes(file))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        raise InputError(
            f"{file} is damaged or of another version.",
            "Pack the images again with --fresh, or into another folder.",
        ) from error


def row_groups(rows: Iterator[Row], shard_bytes: int) -> Iterator[list[Row]]:
    """The row groups of one shard; what is left of the rows is for the next."""
    group: list[Row] = []
    in_group = in_shard = 0
    for row in rows:
        group.append(row)
        in_group += row["size"]
        in_shard += row["size"]
        if in_group >= ROW_GROUP_BYTES or len(group) >= ROW_GROUP_ROWS or in_shard >= shard_bytes:
            yield group
            group, in_group = [], 0
        if in_shard >= shard_bytes:
            return
    if group:
        yield group


@contextmanager
def written(file: Location) -> Iterator[Callable[[list[Row]], None]]:
    """A shard that is written a row group at a time, and is on the disk itself at the end.

    Yields:
        A function that writes a row group.

    Raises:
        OSError: it cannot be written.
    """
    from pyarrow.parquet import ParquetWriter  # slow to import, and no worker needs it

    others = [name for name in SCHEMA.names if name != "bytes"]
    with (
        storage.open_output(file) as stream,
        ParquetWriter(
            stream,
            SCHEMA,
            # Images are compressed already.
            compression={"bytes": "none", **dict.fromkeys(others, "snappy")},
            use_dictionary=["label", "reason"],
            write_statistics=others,
        ) as writer,
    ):
        yield lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
    storage.sync(file.parent, Path(file.path).name)


def tag_of(data: bytes) -> str:
    """What tells that a file has changed, without a word of when it was."""
    ends = data if len(data) <= 2 * END_BYTES else data[:END_BYTES] + data[-END_BYTES:]
    return hashlib.sha256(ends).hexdigest()[:32]


def read_tag(file: Path, size: int) -> str:
    """The tag of a file of `size` bytes.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        if size <= 2 * END_BYTES:
            return tag_of(stream.read())
        first = stream.read(END_BYTES)
        stream.seek(size - END_BYTES)
        return tag_of(first + stream.read(END_BYTES))
