"""Results from the bucket to this machine."""

import os
from pathlib import Path
from typing import Any

from verger.errors import InputError, SetupError
from verger.progress import Progress
from verger.store.errors import bucket_errors
from verger.store.location import Location, bucket_and_key
from verger.store.objects import list_objects
from verger.store.storage import ARROW_REFUSES

LAST = "manifest.json"
"""Comes when all else is there, so that half a result does not look whole."""


def download(session: Any, output: Location, folder: Path, progress: Progress) -> int:
    """Copy an output; files of tables that are there already stay, and those that went are deleted.

    Returns:
        How many files there are.

    Raises:
        InputError: the bucket is missing or forbidden, or a key is no path.
        SetupError: S3 does not answer, or the folder cannot be written.
    """
    bucket, key = bucket_and_key(output.path)
    prefix = f"{key}/" if key else ""
    sizes = {one.key.removeprefix(prefix): one.size for one in list_objects(output.path)}
    names = sorted(sizes, key=lambda name: (name == LAST, name))
    client = session.client("s3")
    progress.start("download", sum(sizes.values()))
    done = 0
    try:
        _forget(folder, set(names))
        for name in names:
            # One that begins with a slash would be a place anywhere on this machine.
            if not ARROW_REFUSES.isdisjoint(name.split("/")):
                raise InputError(f"{output}/{name} is no path.", "Delete it: no run made it.")
            file = folder / name
            if not _is_final(name) or not file.is_file() or file.stat().st_size != sizes[name]:
                file.parent.mkdir(parents=True, exist_ok=True)
                partial = file.with_name(f".{file.name}.partial")
                with bucket_errors(bucket):
                    client.download_file(bucket, prefix + name, os.fspath(partial))
                partial.replace(file)
            done += sizes[name]
            progress.update(done)
    except OSError as error:
        raise SetupError(f"{folder} cannot be written: {error.strerror}.", "Look at it.") from error
    progress.finish()
    return len(names)


def _is_final(name: str) -> bool:
    """Whether it is a file of a table, whose name no other file will have."""
    return name.startswith(("files/", "pca/parquet/")) and name.endswith(".parquet")


def _forget(folder: Path, names: set[str]) -> None:
    """Delete the files of tables that an earlier copy has and the output has no longer."""
    if not (folder / LAST).is_file():
        return
    for file in folder.rglob("*.parquet"):
        name = file.relative_to(folder).as_posix()
        if _is_final(name) and name not in names:
            file.unlink()
