"""Images read out of the shards that `verger pack` made."""

import threading
from functools import lru_cache
from typing import Any

import pyarrow as pa

from verger.output.layout import ListedImage, Reason, Rejection
from verger.store import storage
from verger.store.location import Location

OPEN_SHARDS = 8
"""Shards whose footers a worker keeps, and row groups whose images it keeps."""

_reading = threading.Lock()


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
