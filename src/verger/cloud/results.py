"""Results from the bucket to this machine."""

import os
from pathlib import Path, PurePosixPath
from typing import Any

from verger import s3
from verger.errors import InputError, SetupError
from verger.progress import Progress
from verger.storage import ARROW_REFUSES, Location

LAST = "manifest.json"
"""Comes when all else is there, so that half a result does not look whole."""


def download(session: Any, output: Location, folder: Path, progress: Progress) -> int:
    """Copy an output; files that are there already stay.

    Args:
        session: a session of boto3.
        output: on S3.
        folder: where it goes.
        progress: is told the bytes.

    Returns:
        How many files there are.

    Raises:
        InputError: the bucket is missing or forbidden, or a key is no path.
        SetupError: S3 does not answer, or the folder cannot be written.
    """
    bucket, prefix = s3.split(output.path)
    found = {one.key.removeprefix(f"{prefix}/"): one.size for one in s3.list_objects(output.path)}
    names = sorted(found, key=lambda name: (name == LAST, name))
    client = session.client("s3")
    progress.start("download", sum(found.values()))
    done = 0
    try:
        for name in names:
            if not ARROW_REFUSES.isdisjoint(PurePosixPath(name).parts) or "//" in name:
                raise InputError(f"{output}/{name} is no path.", "Delete it: no run made it.")
            file = folder / name
            # A run never writes another file under a name, but for a few small ones.
            if not file.is_file() or file.stat().st_size != found[name] or "wave" not in name:
                file.parent.mkdir(parents=True, exist_ok=True)
                partial = file.with_name(f".{file.name}.partial")
                with s3.explained(bucket):
                    client.download_file(bucket, f"{prefix}/{name}", os.fspath(partial))
                partial.replace(file)
            done += found[name]
            progress.update(done)
    except OSError as error:
        raise SetupError(f"{folder} cannot be written: {error.strerror}.", "Look at it.") from error
    progress.finish()
    return len(names)
