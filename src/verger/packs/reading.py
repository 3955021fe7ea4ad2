"""Rows and images read out of the shards that `verger pack` made."""

import errno
import hashlib
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from heapq import merge
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from verger.errors import InputError
from verger.output.layout import ListedImage, Reason, Rejection
from verger.packs.format import FINGERPRINT, Shard, read_tag
from verger.store import storage
from verger.store.location import Location

OPEN_SHARDS = 8
"""Shards whose footers a worker keeps, and row groups whose images it keeps."""

_reading = threading.Lock()


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


def has_changed(folder: Location, image: ListedImage, packed: Packed) -> bool:
    """Whether an image of a folder is another than when it was packed."""
    if image.size != packed.size or packed.tag is None:
        return image.size != packed.size
    try:
        file = Path(folder.child(image.path).path)
        return (image.etag or read_tag(file, image.size)) != packed.tag
    except OSError:  # it was read when it was packed
        return True


def read_packed(folder: Location, image: ListedImage) -> bytes | Rejection:
    """The bytes of a packed image, or why packing it was refused.

    Raises:
        OSError: the shard cannot be read, or holds other bytes there than it held.
    """
    # One thread reads a row group, which the others then find.
    with _reading:
        rows = _row_group(folder.child(str(image.shard)), int(image.row_group or 0))
    found = rows.slice(image.row, 1).to_pylist()
    if not found or found[0]["path"] != image.path:
        raise FileNotFoundError(errno.ENOENT, "packed anew since it was listed", image.path)
    row = found[0]
    if row["bytes"] is None:
        return Rejection(Reason(row["reason"]), row["detail"])
    data = bytes(row["bytes"])
    # Images stand in a shard as they are: nothing of Parquet's would notice a bit that has turned.
    if image.etag and hashlib.sha256(data).hexdigest() != image.etag:
        raise OSError(errno.EIO, "not the bytes that were packed", image.path)
    return data


@lru_cache(maxsize=OPEN_SHARDS)
def _opened(file: Location) -> Any:
    import pyarrow.parquet as pq  # slow to import, and most workers read files

    return pq.ParquetFile(file.path, filesystem=storage.file_system(file), pre_buffer=True)


@lru_cache(maxsize=OPEN_SHARDS)
def _row_group(file: Location, group: int) -> pa.Table:
    return _opened(file).read_row_group(group, columns=["path", "bytes", "reason", "detail"])
