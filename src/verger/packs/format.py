"""A pack as files: `pack.json` and its shards, Parquet sorted by path, which are streams."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from heapq import merge
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from verger.errors import InputError
from verger.output.layout import ListedImage
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
"""The columns that tell whether a file has changed since; an ETag, or see `packs.tags`."""

SHARD_NAME = re.compile(r"shard-(\d{6,})\.parquet")

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
        storage.write_bytes(pack_file(target), self.model_dump_json(indent=1).encode() + b"\n")


def pack_file(location: Location) -> Location:
    """Where a folder of shards says what it holds."""
    return location.child("pack.json")


def read_pack(location: Location) -> Pack | None:
    """What a folder of shards holds, or None when it has no `pack.json`.

    Raises:
        InputError: the file is damaged, or of another version.
    """
    file = pack_file(location)
    try:
        return Pack.model_validate_json(storage.read_bytes(file))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        raise InputError(
            f"{file} is damaged or of another version.",
            "Pack the images again with --fresh, or into another folder.",
        ) from error


class PackedAt(NamedTuple):
    """Where a packed image is."""

    shard: str
    row_group: int
    row: int


class Packed(NamedTuple):
    """What a file was when it was packed: size in bytes, and ETag or tag."""

    key: str
    size: int
    tag: str | None


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


def in_order(images: Iterable[ListedImage]) -> Iterator[ListedImage]:
    """The same images.

    Raises:
        InputError: they do not come in the order that comparisons rely on.
    """
    last = ""
    for image in images:
        if (key := sort_key(image.path)) <= last:
            raise InputError(
                f"{image.path} is not listed in the order of names.",
                "Rename it, if its name holds a backslash; or give the same command again.",
            )
        last = key
        yield image


def sort_key(path: str) -> str:
    r"""What listings are sorted by: the path, where bytes shown as `\xNN` sort as Python has them.

    Those are bytes of a local name that are not UTF-8.
    """
    return re.sub(r"\\x([89a-f][0-9a-f])", lambda byte: chr(0xDC00 + int(byte[1], 16)), path)


def join(
    images: Iterable[ListedImage], folder: Location, shards: Iterable[Shard]
) -> Iterator[tuple[ListedImage | None, Packed | None]]:
    """Images and packed rows, side by side where their paths are equal, else alone.

    Neither is ever in memory as a whole.

    Raises:
        InputError: images come out of order, or a shard is missing or damaged.
    """
    rows = (Packed(key, *rest) for key, _, (_, *rest) in read_rows(folder, shards, FINGERPRINT))
    row = next(rows, None)
    for image in in_order(images):
        key = sort_key(image.path)
        while row is not None and row.key < key:
            yield None, row
            row = next(rows, None)
        if row is not None and row.key == key:
            yield image, row
            row = next(rows, None)
        else:
            yield image, None
    while row is not None:
        yield None, row
        row = next(rows, None)


def chains(shards: Iterable[Shard]) -> list[list[Shard]]:
    """Shards that follow each other in the order of paths, as those of one run do.

    Merging chains, and not shards, keeps as few files open as there were runs.
    """
    found: list[list[Shard]] = []
    for shard in sorted(shards, key=lambda shard: sort_key(shard.first)):
        for chain in found:
            if sort_key(chain[-1].last) < sort_key(shard.first):
                chain.append(shard)
                break
        else:
            found.append([shard])
    return found


def read_rows(
    folder: Location, shards: Iterable[Shard], columns: Sequence[str]
) -> Iterator[tuple[str, PackedAt, tuple[Any, ...]]]:
    """Columns of the rows of all shards, in the order of paths, a row group in memory a chain.

    Yields:
        The key that a row is sorted by, its place, and its path with the values of the columns.

    Raises:
        InputError: a shard is missing or damaged.
        OSError: one must not be read.
        SetupError: the store does not answer.
    """
    return merge(*(_chained(folder, chain, columns) for chain in chains(shards)))


def _chained(
    folder: Location, shards: list[Shard], columns: Sequence[str]
) -> Iterator[tuple[str, PackedAt, tuple[Any, ...]]]:
    from pyarrow.parquet import ParquetFile  # slow to import, and no worker needs it

    for shard in shards:
        file = folder.child(shard.name)
        try:
            with ParquetFile(file.path, filesystem=storage.file_system(file)) as parquet:
                for number in range(parquet.num_row_groups):
                    group = parquet.read_row_group(number, columns=["path", *columns])
                    paths, *values = (group[name].to_pylist() for name in ("path", *columns))
                    for row, (path, *rest) in enumerate(zip(paths, *values, strict=True)):
                        yield sort_key(path), PackedAt(shard.name, number, row), (path, *rest)
        except PermissionError:
            raise
        except (OSError, KeyError, ValueError) as error:  # Arrow says of damage any of these
            storage.check_reachable(file)
            raise InputError(
                f"{file} is missing or damaged, and pack.json names it.",
                "Pack the images again with --fresh, or into another folder.",
            ) from error
