"""Where files are: an absolute path on this machine, or `s3://bucket/key`."""

import os
from dataclasses import dataclass
from pathlib import Path

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
            UsageError: the text is empty, no path, or names another scheme or no bucket.
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
        try:
            return cls(str(Path(path).expanduser().resolve()))
        except RuntimeError as error:  # of a ~ with the name of nobody, or links in a circle
            raise UsageError(f"{text!r} is no path: {error}.", "Give another one.") from error

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


def bucket_and_key(path: str) -> tuple[str, str]:
    """Bucket and key of `bucket/key`."""
    bucket, _, key = path.partition("/")
    return bucket, key


def check_apart(source: Location, output: Location) -> None:
    """Refuse an output inside its input.

    Raises:
        UsageError: naming both.
    """
    if source.contains(output):
        raise UsageError(
            f"The output {output} lies inside the input {source}.",
            "Give an output elsewhere: its files would be listed as images by the next run.",
        )


def cache_folder() -> Path:
    """For what can be made again: `verger` in `XDG_CACHE_HOME`, else in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "verger"
