"""The one door to bytes: folders on this machine and `s3://` prefixes, through `pyarrow.fs`."""

import os
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from verger.errors import UsageError

S3_SCHEME = "s3://"


@dataclass(frozen=True)
class Location:
    """A folder or file: an absolute local path, or `s3://bucket/key`, without a final slash."""

    uri: str

    @classmethod
    def parse(cls, text: str) -> "Location":
        """Read what a user types: a path (`~` and relative ones too), `file://` or `s3://`.

        Raises:
            UsageError: the text is empty, or names another scheme or no bucket.
        """
        if text.startswith(S3_SCHEME):
            key = text.removeprefix(S3_SCHEME).strip("/")
            if not key:
                raise UsageError(f"{text!r} names no bucket.", "Write s3://bucket/prefix.")
            return cls(S3_SCHEME + key)
        scheme, separator, _ = text.partition("://")
        if separator and scheme.isalnum() and scheme != "file":
            raise UsageError(
                f"{text!r} has the scheme {scheme}://, which verger does not read.",
                "Give a folder, or s3://bucket/prefix.",
            )
        path = text.removeprefix("file://")
        if not path:
            raise UsageError("An empty path was given.", "Give a folder, or s3://bucket/prefix.")
        return cls(str(Path(path).expanduser().resolve()))

    @property
    def is_s3(self) -> bool:
        """Whether it is on S3."""
        return self.uri.startswith(S3_SCHEME)

    @property
    def path(self) -> str:
        """The path as `pyarrow.fs` takes it: `bucket/key` on S3."""
        return self.uri.removeprefix(S3_SCHEME)

    def child(self, *parts: str) -> "Location":
        """The location below this one; parts may hold slashes."""
        return Location("/".join((self.uri.rstrip("/"), *parts)))

    @property
    def parent(self) -> "Location":
        """The location above this one."""
        return Location(self.uri.rpartition("/")[0] or "/")

    def contains(self, other: "Location") -> bool:
        """Whether `other` is this location or lies below it."""
        return f"{other.uri}/".startswith(f"{self.uri.rstrip('/')}/")

    def __str__(self) -> str:
        return self.uri


@cache
def file_system(is_s3: bool) -> fs.FileSystem:
    """The file system of a kind of location; credentials on S3 come from the AWS chain alone."""
    return fs.S3FileSystem() if is_s3 else fs.LocalFileSystem()


def exists(location: Location) -> bool:
    """Whether a file or folder is there."""
    found = file_system(location.is_s3).get_file_info(location.path)
    return bool(found.type != fs.FileType.NotFound)


def is_folder(location: Location) -> bool:
    """Whether it is a folder."""
    found = file_system(location.is_s3).get_file_info(location.path)
    return bool(found.type == fs.FileType.Directory)


def names(folder: Location) -> list[str]:
    """The names directly inside a folder, sorted; none when the folder is absent."""
    selector = fs.FileSelector(folder.path, allow_not_found=True)
    return sorted(info.base_name for info in file_system(folder.is_s3).get_file_info(selector))


def read_bytes(file: Location, limit: int | None = None) -> bytes:
    """The whole file, or its first `limit` bytes.

    Raises:
        OSError: it is missing or cannot be read.
    """
    with file_system(file.is_s3).open_input_file(file.path) as stream:
        return bytes(stream.read(limit))


def write_bytes(file: Location, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Raises:
        OSError: it cannot be written.
    """
    if file.is_s3:
        # An object appears when its upload is complete.
        with file_system(is_s3=True).open_output_stream(file.path) as stream:
            stream.write(data)
        return
    folder = Path(file.path).parent
    folder.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=folder, prefix=".partial-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(partial).chmod(0o644)
        Path(partial).replace(file.path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def read_parquet(folder: Location) -> pa.Table:
    """All rows of the Parquet files in a folder, in memory."""
    from pyarrow.dataset import dataset  # slow to import, and no worker needs it

    files = file_system(folder.is_s3)
    return dataset(folder.path, filesystem=files, format="parquet").to_table()


def write_parquet(file: Location, rows: pa.Table) -> None:
    """Write a Parquet file, and the folders that it lies in.

    Raises:
        OSError: it cannot be written.
    """
    from pyarrow.parquet import write_table

    files = file_system(file.is_s3)
    if not file.is_s3:
        Path(file.path).parent.mkdir(parents=True, exist_ok=True)
    write_table(rows, file.path, filesystem=files)


def count_rows(folder: Location) -> int:
    """The rows of the Parquet files in a folder, from their footers; 0 when it is absent."""
    from pyarrow.dataset import dataset  # slow to import, and no worker needs it

    if not exists(folder):
        return 0
    parquet = dataset(folder.path, filesystem=file_system(folder.is_s3), format="parquet")
    return int(parquet.count_rows())


def delete(location: Location) -> None:
    """Delete a file, or a folder and all that is in it, if it is there."""
    files = file_system(location.is_s3)
    kind = files.get_file_info(location.path).type
    if kind == fs.FileType.Directory:
        files.delete_dir(location.path)
    elif kind == fs.FileType.File:
        files.delete_file(location.path)
