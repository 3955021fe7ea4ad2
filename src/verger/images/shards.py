"""Packed images, listed and read out of the shards that `verger pack` made like files."""

import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pyarrow as pa

from verger import storage
from verger.errors import InputError
from verger.images.decoding import Rejection
from verger.images.listing import ListedImage, label_rule, list_images
from verger.images.shard_files import read_pack, read_rows
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
    pack = read_pack(folder)
    if pack is None:
        return list_images(folder, label_from)
    if pack.status != "complete":
        raise InputError(f"Packing {folder} is not finished.", "Give `verger pack` again first.")
    label = label_rule(label_from)
    return (
        ListedImage(path, label(path), size, etag=sha256, **place._asdict())
        for _, place, (path, size, sha256) in read_rows(folder, pack.shards, ("size", "sha256"))
    )


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


@lru_cache(maxsize=OPEN_SHARDS)
def _opened(file: Location) -> Any:
    import pyarrow.parquet as pq  # slow to import, and most workers read files

    return pq.ParquetFile(file.path, filesystem=storage.file_system(file), pre_buffer=True)


@lru_cache(maxsize=OPEN_SHARDS)
def _row_group(file: Location, group: int) -> pa.Table:
    return _opened(file).read_row_group(group, columns=["bytes", "reason", "detail"])
