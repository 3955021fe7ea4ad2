"""Which files there are: every regular file below a folder, with what tells that it changed."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from verger.errors import InputError
from verger.output.layout import ListedImage
from verger.packs.format import read_pack, read_rows
from verger.store.listing import list_objects
from verger.store.location import Location, bucket_and_key


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


def list_images(folder: Location, label_from: str = "parent") -> Iterator[ListedImage]:
    """List all files below a folder, in a fixed order, without opening them.

    Args:
        folder: the input; on this machine, links are followed, a folder inside itself is not.
        label_from: `parent` for the name of the folder that holds the file (none for a file
            directly in the input), `none`, or a regular expression whose group is the label.

    Raises:
        InputError: the folder or bucket is missing or cannot be read.
    """
    label = label_rule(label_from)
    if folder.is_s3:
        prefix = f"{bucket_and_key(folder.path)[1]}/".lstrip("/")
        for listed in list_objects(folder.path):
            path = listed.key.removeprefix(prefix)
            yield ListedImage(path, label(path), listed.size, etag=listed.etag)
        return
    try:
        if not Path(folder.path).is_dir():
            what = "is a file, not a folder" if Path(folder.path).exists() else "does not exist"
            raise InputError(f"The input {folder} {what}.", "Give a folder that holds images.")
        for path, entry in _walk(folder.path):
            try:
                stat = entry.stat()
            except FileNotFoundError:
                continue  # deleted since its folder was read
            text = os.fsencode(path).decode(errors="backslashreplace")
            yield ListedImage(text, label(text), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        # Going on without a folder would take its images for deleted ones.
        raise InputError(
            f"{error.filename} cannot be read: {error.strerror}.",
            "Give this user the right to read it, or move it out of the input.",
        ) from error


def label_rule(label_from: str) -> Callable[[str], str]:
    """The function from a path to its label that `--label-from` names."""
    if label_from == "none":
        return lambda _: ""
    if label_from == "parent":
        return lambda path: path.rpartition("/")[0].rpartition("/")[2]
    pattern = re.compile(label_from)

    def matched(path: str) -> str:
        match = pattern.search(path)
        return (match[1] or "") if match else ""

    return matched


def _walk(root: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Files below a folder, each with its path from there."""
    # The folders on the way down: identity, which a link may repeat, and what is left to do.
    trail = [(_identity(root), "", _entries(root))]
    while trail:
        _, prefix, entries = trail[-1]
        entry = next(entries, None)
        if entry is None:
            trail.pop()
        elif not entry.is_dir():
            yield f"{prefix}{entry.name}", entry
        elif (identity := _identity(entry.path)) not in {above for above, _, _ in trail}:
            trail.append((identity, f"{prefix}{entry.name}/", _entries(entry.path)))


def _identity(folder: str) -> tuple[int, int]:
    stat = Path(folder).stat()
    return stat.st_dev, stat.st_ino


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """What is in a folder, in the order of S3, where a folder's name ends in a slash."""
    with os.scandir(folder) as entries:
        return iter(
            sorted(
                (entry for entry in entries if not _leads_nowhere(entry)),
                key=lambda entry: f"{entry.name}/" if entry.is_dir() else entry.name,
            )
        )


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Whether no file is there to list: a pipe, or a link that is dead or leads to itself."""
    try:
        return not (entry.is_dir() or entry.is_file())
    except OSError:
        return True
