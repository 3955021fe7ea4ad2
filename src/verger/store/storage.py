"""The one door to bytes: folders on this machine and `s3://` prefixes, through `pyarrow.fs`."""

import errno
import glob
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

from verger.store import objects
from verger.store.client import arrow_file_system, check_answers
from verger.store.location import Location, bucket_and_key

ARROW_REFUSES = frozenset({"", ".", ".."})
"""Parts of keys that Arrow refuses, or resolves as if a key were a path: to another object."""

PARTIAL_SECONDS = 3600
"""A part of a file that has not grown for so long belongs to a process that was killed."""


def file_system(location: Location) -> fs.FileSystem:
    """Arrow's file system for a location; credentials on S3 come from the AWS chain alone."""
    if location.is_s3:
        return arrow_file_system(bucket_and_key(location.path)[0])
    return fs.LocalFileSystem()


def exists(location: Location) -> bool:
    """Whether a file or folder is there."""
    if location.is_s3:
        return objects.exists(location.path)
    return Path(location.path).exists()


def is_folder(location: Location) -> bool:
    """Whether it is a folder."""
    if location.is_s3:
        return objects.is_folder(location.path)
    return Path(location.path).is_dir()


def names(folder: Location) -> list[str]:
    """The names directly inside a folder, sorted; none when the folder is absent."""
    if folder.is_s3:
        return objects.names(folder.path)
    path = Path(folder.path)
    return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []


def read_bytes(file: Location, limit: int | None = None) -> bytes:
    """The whole file, or its first `limit` bytes.

    Raises:
        OSError: it is missing or cannot be read.
    """
    if file.is_s3 and not ARROW_REFUSES.isdisjoint(file.path.split("/")):
        return objects.get(file.path, limit)
    with file_system(file).open_input_file(file.path) as stream:
        return bytes(stream.read(limit))


def check_reachable(file: Location) -> None:
    """Tell whether a store answers at all, where a file of it could not be read.

    Raises:
        SetupError: it does not, or the credentials have expired or are refused.
    """
    if file.is_s3:
        check_answers(file.path)


def write_bytes(file: Location, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Raises:
        OSError: it cannot be written.
    """
    if file.is_s3:
        # An object appears when its upload is complete.
        objects.put(file.path, data)
        return
    path = Path(file.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _delete_left(path)
    # A name of its own: two processes may write one file at once.
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        with partial.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
        _sync(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _delete_left(path: Path) -> None:
    """Delete what killed processes left of writing a file: parts that nobody writes any more."""
    pattern = f".{glob.escape(path.name)}.*.partial"
    for partial in path.parent.glob(pattern):
        with suppress(FileNotFoundError):  # another process has just finished with it
            if time.time() - partial.stat().st_mtime > PARTIAL_SECONDS:
                partial.unlink()


def sync(folder: Location, *patterns: str) -> None:
    """Have files of a folder on the disk itself, should the power fail; S3 has them already."""
    path = Path(folder.path)
    if folder.is_s3 or not path.is_dir():
        return
    for pattern in patterns:
        for file in path.glob(pattern):
            _sync(file)
    _sync(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_parquet(folder: Location) -> pa.Table:
    """All rows of the Parquet files in a folder, in memory."""
    from pyarrow.dataset import dataset  # slow to import, and no worker needs it

    files = file_system(folder)
    return dataset(folder.path, filesystem=files, format="parquet").to_table()


def write_parquet(file: Location, rows: pa.Table) -> None:
    """Write a Parquet file, and the folders that it lies in.

    Raises:
        OSError: it cannot be written.
    """
    from pyarrow.parquet import write_table

    with open_output(file) as stream:
        write_table(rows, stream)


def open_output(file: Location) -> pa.NativeFile:
    """A stream to write a file through, and the folders that it lies in; seen while it grows.

    Raises:
        OSError: it cannot be written.
    """
    if not file.is_s3:
        Path(file.path).parent.mkdir(parents=True, exist_ok=True)
    return file_system(file).open_output_stream(file.path)


def delete_files(files: Sequence[Location], check: Callable[[], None] = lambda: None) -> None:
    """Delete files of one place; `check` is called before each, on S3 before each thousand."""
    if files and files[0].is_s3:
        objects.delete_many([file.path for file in files], check)
        return
    for file in files:
        check()
        Path(file.path).unlink(missing_ok=True)


def delete(location: Location) -> None:
    """Delete a file, or a folder and all that is in it, if it is there."""
    if location.is_s3:
        objects.delete(location.path)
        return
    path = Path(location.path)
    for pause in (0.1, 0.5, 2.5, None):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            # The last job of a run that was killed may still be writing there.
            if pause is None or error.errno not in {errno.ENOENT, errno.ENOTEMPTY}:
                raise
            time.sleep(pause)
        else:
            return
