"""The data set Fruits-360: downloaded in as many attempts as it takes, checked, unpacked, named."""

import errno
import lzma
import os
import re
import shutil
import struct
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from verger.datasets.archives import RECORD, STATE, checked_files, leaves
from verger.datasets.download import (
    CHUNK,
    PUBLISHED,
    Download,
    Origin,
    parse_source,
    read_json,
    require_space,
    size_of,
    write_json,
)
from verger.errors import InputError, SetupError, UsageError
from verger.images.opening import claims_image
from verger.output.manifest import now
from verger.packs.format import read_pack
from verger.progress import Progress
from verger.store import storage
from verger.store.location import Location
from verger.store.lock import flock

CREDIT = "Fruits-360, Mihai Oltean, CC BY-SA 4.0"

# (images, classes) as the README of each release states them; read in copies on GitHub, but for
# 155,491 in 224, which is unverified and must be newer than the rest.
RELEASES = {
    (155_491, 224): "a release later than March 2025",
    (102_639, 155): "release 2025.03.09.0",
    (94_110, 141): "release 2024.08.04.0",
    (90_483, 131): "release 2020.05.18.0",
    (90_380, 131): "release 2020.05.18.0 (Training and Test)",
    (67_692, 131): "release 2020.05.18.0 (Training only)",
}
SPLITS = frozenset({"Training", "Test", "Validation"})

DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    ValueError,
)


@dataclass(frozen=True)
class Fetched:
    """What a folder holds.

    Attributes:
        images: in all its folders.
        classes: different names of folders that directly hold images, in Training or Test or both.
        release: in words, with its counts; of each data set, where the archive has several.
        folders: those that hold the classes, such as Training and Test, and those of other images.
    """

    images: int
    classes: int
    release: str
    folders: tuple[str, ...]


def fetch(
    folder: str, source: str = PUBLISHED, *, fresh: bool = False, progress: Progress | None = None
) -> Fetched:
    """Download and unpack the data set; after an interruption, the same call goes on.

    Args:
        folder: on this machine; made if it is missing.
        source: an http or https URL, or a zip file on this machine, which is left as it is.
        fresh: start over; files of an earlier call are deleted once the new archive is there.
        progress: hears of the stages "download" (bytes) and "unpack" (files).

    Raises:
        UsageError: the folder is not on this machine, or the source has another scheme.
        InputError: the source is missing or forbidden, or its archive is damaged or unsafe.
        SetupError: no connection, no space, or a folder that cannot be written or is in use.
    """
    origin, location = parse_source(source), Location.parse(folder)
    if location.is_s3:
        raise UsageError(f"{location} is not on this machine.", "Give a folder, then upload it.")
    root = Path(location.path)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _held(root):
            return _fetch(root, origin, fresh, progress or Progress())
    except OSError as error:
        raise SetupError(
            f"{error.filename or root}: {error.strerror or error}.",
            "Give a folder on a disk that works and that this user may write.",
        ) from error


def _held(root: Path) -> AbstractContextManager[None]:
    """Keep other processes out of the folder, without a file in it."""
    in_use = SetupError(f"Another process fetches into {root}.", "Let it end.")
    return flock(os.open(root, os.O_RDONLY | os.O_CLOEXEC), str(root), in_use)


def _fetch(root: Path, origin: Origin, fresh: bool, shown: Progress) -> Fetched:
    state = Location(str(root / STATE))
    record = {"source": "", "files": {}} | read_json(root / RECORD)
    if fresh:
        storage.delete(state)
    elif _complete(root, record["files"]):
        _check_same(root, record, origin)
        storage.delete(state)
        shown.note(f"{root} is complete, from {record['source']}; --fresh gets it again.")
        return _describe(record["files"])
    (root / STATE).mkdir(exist_ok=True)
    download = Download(origin, root / STATE, shown) if origin.url else None
    archive = download.run() if download else Path(origin.shown)
    again = "It was removed: give the command again." if download else "Download it again."
    try:
        with _opened(archive, origin, again) as (zipped, files):
            if fresh:
                _forget(root, [*record["files"], *files])
            _unpack(zipped, files, root, shown)
    except InputError:
        storage.delete(state)  # the same archive would be refused again
        raise
    described = _describe(files)
    etag, size = download and download.known.get("etag"), archive.stat().st_size
    record = {"source": origin.shown, "etag": etag, "size": size}
    record |= asdict(described) | {"finished": now()}
    record["files"] = {name: entry.file_size for name, entry in files.items()}
    write_json(root / RECORD, record)
    storage.delete(state)
    return described


@contextmanager
def _opened(
    archive: Path, origin: Origin, again: str
) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """An archive, and its files to unpack.

    Raises:
        InputError: it is damaged, which may show as it is read, or unsafe, or holds no image.
    """
    try:
        with zipfile.ZipFile(archive) as zipped:
            yield zipped, checked_files(zipped, archive.stat().st_size)
    except (*DAMAGED, OSError) as error:
        # A seek to where nothing is has a number, and damage that bzip2 finds has none.
        if isinstance(error, OSError) and error.errno not in {errno.EINVAL, None}:
            raise
        raise InputError(f"{origin.shown} is damaged, or no zip: {error}.", again) from error


def _check_same(root: Path, record: dict[str, Any], origin: Origin) -> None:
    """Refuse an archive of this machine whose files are others than those that a folder holds.

    Raises:
        UsageError: nothing of it was unpacked.
    """
    if origin.url:
        return
    with _opened(Path(origin.shown), origin, "Download it again.") as (_, files):
        pass
    if {name: entry.file_size for name, entry in files.items()} != record["files"]:
        raise UsageError(
            f"{root} holds what came from {record['source']}; {origin.shown} holds other files, "
            "and nothing of it was unpacked.",
            "Replace what is there with --fresh, or give another folder.",
        )


def _complete(root: Path, files: dict[str, int]) -> bool:
    """Whether each file of the record is there in its size."""
    return bool(files) and all(size_of(root / name) == size for name, size in files.items())


def _forget(root: Path, names: list[str]) -> None:
    """Delete files and the record, so that two releases are never mixed."""
    for name in names:
        if not leaves(name):
            (root / name).unlink(missing_ok=True)
    (root / RECORD).unlink(missing_ok=True)


def _unpack(
    zipped: zipfile.ZipFile, files: dict[str, zipfile.ZipInfo], root: Path, shown: Progress
) -> None:
    """Write each file that is not there in its size; zipfile compares its CRC at its end."""
    left = [name for name, entry in files.items() if size_of(root / name) != entry.file_size]
    require_space(root, sum(files[name].file_size for name in left), "Unpacking")
    whole = root / STATE / "entry"  # a killed process leaves no part among the images
    shown.start("unpack", len(files))
    for done, name in enumerate(left, start=len(files) - len(left) + 1):
        with zipped.open(files[name]) as packed, whole.open("wb") as out:
            shutil.copyfileobj(packed, out, CHUNK)
            if out.tell() != files[name].file_size:
                raise zipfile.BadZipFile(f"{name!r} ends early")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        whole.replace(root / name)
        shown.update(done)
    shown.finish()
    for name in files:
        if name.lower().endswith(".zip"):
            shown.note(f"{name!r} stays packed; to unpack it, give it by --from with another DIR.")


def _describe(names: Iterable[str]) -> Fetched:
    """Count images and classes, of each folder that has Training or Test in it and together."""
    holders = Counter(name.rpartition("/")[0] for name in names if claims_image(name))
    paths = {PurePosixPath(holder): count for holder, count in holders.items()}
    splits = {path: next((up for up in path.parents if up.name in SPLITS), None) for path in paths}
    homes = {split.parent for split in splits.values() if split}
    images: Counter[PurePosixPath] = Counter()
    classes: defaultdict[PurePosixPath, set[str]] = defaultdict(set)
    folders = set()
    for path, count in paths.items():
        split = splits[path]
        beside = not split and path.parent in homes  # such as test-multiple_fruits: no class
        home = split.parent if split else path.parent if beside else PurePosixPath()
        images[home] += count
        classes[home] |= {path.name} - {""} if not beside else set()
        folders.add(str(split or (path if beside else path.parent)))
    releases = []
    for home, count in images.most_common() or [(PurePosixPath(), 0)]:
        name = RELEASES.get((count, len(classes[home])), "an unknown release")
        place = f" in {home}" if len(images) > 1 else ""
        releases.append(f"{name} with {count:,} images in {len(classes[home]):,} classes{place}")
    together = set().union(*classes.values())
    return Fetched(images.total(), len(together), "; ".join(releases), tuple(sorted(folders)))


def credit_by_name(place: str) -> str | None:
    """The credit for the images of an input that is called after its data set."""
    return CREDIT if re.search(r"fruits?[-_ ]?360", place, re.IGNORECASE) else None


def find_credit(place: Location) -> str | None:
    """The credit for the images of an input.

    Raises:
        VergerError: the input is a pack that cannot be read.
    """
    if credit := credit_by_name(str(place)):
        return credit
    # `fetch` writes to this machine only; a role may be forbidden to look beside a prefix of S3.
    if not place.is_s3 and any(
        storage.exists(folder.child(RECORD)) for folder in (place, place.parent)
    ):
        return CREDIT
    pack = read_pack(place)
    return pack.credit if pack else None
