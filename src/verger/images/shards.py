"""Packed images, listed and read out of the shards that `verger pack` made like files."""

import heapq
import threading
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from typing import Any

import pyarrow as pa

from verger import storage
from verger.errors import InputError
from verger.images.decoding import Rejection
from verger.images.listing import ListedImage, label_rule, list_images
from verger.images.shard_files import chains, sort_key
from verger.results import Reason
from verger.storage import Location

OPEN_SHARDS = 8
"""Shards whose footers a worker keeps, and row groups whose images it keeps."""

_reading = threading.Lock()


def list_input(folder: Location, label_from: str = "parent") -> Iterator[ListedImage]:
    """List the images of a folder, be they files or packed; arguments as for `list_images`.

    Raises:
        InputError: as `list_images`, or packing is not finished.
    """
    from verger.images.packing import read_pack  # which needs this module itself

    pack = read_pack(folder)
    if pack is None:
        return list_images(folder, label_from)
    if pack.status != "complete":
        raise InputError(f"Packing {folder} is not finished.", "Give `verger pack` again first.")
    # Shards that follow each other are opened one after the other, not all at once.
    runs = [
        chain.from_iterable(_list_shard(folder, shard.name, label_from) for shard in shards)
        for shards in chains(pack.shards)
    ]
    return heapq.merge(*runs, key=lambda image: sort_key(image.path))


def read_packed(folder: Location, image: ListedImage) -> bytes | Rejection:
    """The bytes of a packed image, or why packing it was refused.

    Raises:
        OSError: the shard cannot be read.
    """
    # One thread reads a row group, which the others then find.
    with _reading:
        rows = _row_group(folder.child(str(image.shard)), int(image.row_group or 0))
    row = rows.slice(image.row, 1).to_pylist()[0]
    if row["bytes"] is None:
        return Rejection(Reason(row["reason"]), row["detail"])
    return bytes(row["bytes"])


def _list_shard(folder: Location, name: str, label_from: str) -> Iterator[ListedImage]:
    label = label_rule(label_from)
    shard = _open(folder.child(name))
    for group in range(shard.num_row_groups):
        rows = shard.read_row_group(group, columns=["path", "size", "sha256"]).to_pylist()
        for number, row in enumerate(rows):
            yield ListedImage(
                row["path"], label(row["path"]), row["size"],
                etag=row["sha256"], shard=name, row_group=group, row=number,
            )  # fmt: skip


def _open(file: Location) -> Any:
    import pyarrow.parquet as pq  # slow to import, and most workers read files

    return pq.ParquetFile(file.path, filesystem=storage.file_system(file), pre_buffer=True)


_opened = lru_cache(maxsize=OPEN_SHARDS)(_open)


@lru_cache(maxsize=OPEN_SHARDS)
def _row_group(file: Location, group: int) -> pa.Table:
    return _opened(file).read_row_group(group, columns=["bytes", "reason", "detail"])
