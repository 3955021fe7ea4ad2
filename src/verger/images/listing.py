"""Which files there are: every regular file below a folder, with what tells that it changed."""

import errno
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from verger.errors import InputError
from verger.output.layout import ListedImage
from verger.packs.format import read_pack
from verger.packs.reading import read_rows
from verger.store.location import Location, bucket_and_key
from verger.store.objects import list_objects


@dataclass
class Noticed:
    """What a listing noticed on its way.

    Attributes:
        passed_over: files that systems leave beside images, and that are not listed.
        labels: labels beyond ASCII as they were written, by what they are composed.
    """

    passed_over: int = 0
    labels: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def notes(self) -> Iterator[str]:
        """What a reader wants to know, in sentences."""
        if self.passed_over:
            yield f"{self.passed_over:,} files of systems, such as .DS_Store, were passed over."
        doubled = sorted(label for label, forms in self.labels.items() if len(forms) > 1)
        if doubled:
            yield (
                f"{len(doubled):,} labels were written in two ways of Unicode, and are one each: "
                f"{', '.join(doubled[:3])}{' …' if len(doubled) > 3 else ''}."  # noqa: PLR2004
            )


def is_passed_over(path: str) -> bool:
    """Whether a file is what systems leave beside images: it is neither an image nor lost."""
    *folders, name = path.split("/")
    return (
        name in _LEFT_BY_SYSTEMS
        or name.startswith("._")
        or name.endswith("_$folder$")
        or not _FOLDERS_OF_SYSTEMS.isdisjoint(folders)
    )


_LEFT_BY_SYSTEMS = {".DS_Store", "Thumbs.db"}

_FOLDERS_OF_SYSTEMS = {"__MACOSX", "@eaDir", ".ipynb_checkpoints", ".thumbnails"}
"""Of macOS' archives, Synology, Jupyter and Linux desktops; files called `._` are macOS' too, and
`_$folder$` is what Hadoop and EMR write for a folder on S3."""


def list_input(
    folder: Location, label_from: str = "parent", noticed: Noticed | None = None
) -> Iterator[ListedImage]:
    """List the images of a folder, be they files or packed; arguments as for `list_images`.

    Raises:
        InputError: as `list_images`, or packing is not finished.
    """
    pack = read_pack(folder)
    if pack is None:
        return list_images(folder, label_from, noticed)
    if pack.status != "complete":
        raise InputError(f"Packing {folder} is not finished.", "Give `verger pack` again first.")
    label = label_rule(label_from, noticed)
    return (
        ListedImage(path, label(path), size, etag=sha256, **place._asdict())
        for _, place, (path, size, sha256) in read_rows(folder, pack.shards, ("size", "sha256"))
    )


def list_images(
    folder: Location, label_from: str = "parent", noticed: Noticed | None = None
) -> Iterator[ListedImage]:
    """List the files below a folder, in a fixed order, without opening them.

    What systems leave beside images is passed over; see `is_passed_over`.

    Args:
        folder: the input; on this machine, links are followed, a folder inside itself is not.
        label_from: `parent` for the name of the folder that holds the file (none for a file
            directly in the input), `none`, or a regular expression whose group is the label.
        noticed: is told what was noticed.

    Raises:
        InputError: the folder or bucket is missing or cannot be read, or holds no file.
    """
    images = _list(folder, label_from, noticed or Noticed())
    first = next(images, None)
    if first is None:
        raise InputError(f"The input {folder} holds no file.", "Give a folder of images.")
    return chain([first], images)


def _list(folder: Location, label_from: str, noticed: Noticed) -> Iterator[ListedImage]:
    label = label_rule(label_from, noticed)
    if folder.is_s3:
        prefix = f"{bucket_and_key(folder.path)[1]}/".lstrip("/")
        for listed in list_objects(folder.path):
            path = listed.key.removeprefix(prefix)
            if is_passed_over(path):
                noticed.passed_over += 1
                continue
            yield ListedImage(path, label(path), listed.size, etag=listed.etag)
        return
    try:
        if not Path(folder.path).is_dir():
            what = "is a file, not a folder" if Path(folder.path).exists() else "does not exist"
            raise InputError(f"The input {folder} {what}.", "Give a folder that holds images.")
        for path, entry in _walk(folder.path):
            if is_passed_over(path):
                noticed.passed_over += 1
                continue
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


def label_rule(label_from: str, noticed: Noticed | None = None) -> Callable[[str], str]:
    """The function from a path to its label that `--label-from` names.

    macOS writes an accent as a character of its own, others do not: labels are composed (NFC), so
    that they are one.
    """
    if label_from == "none":
        return lambda _: ""
    pattern = re.compile("([^/]*)/[^/]*$" if label_from == "parent" else label_from)

    def matched(path: str) -> str:
        match = pattern.search(path)
        label = (match[1] or "") if match else ""
        if label.isascii():
            return label
        composed = unicodedata.normalize("NFC", label)
        if noticed:
            noticed.labels[composed].add(label)
        return composed

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
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG}:
            return True
        raise  # what must not be read may be an image
