"""Many small image files become a few shards, without metadata but the orientation.

A shard counts when `pack.json` names it and not before.
"""

import errno
import hashlib
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, cast

from verger.datasets.cleaning import clean
from verger.datasets.fruits360 import find_credit
from verger.errors import SetupError, UsageError
from verger.images.ahead import read_ahead
from verger.images.decoding import Rules, at_full_size, decode
from verger.images.guard import Guard
from verger.images.listing import Noticed, list_images
from verger.images.loading import HEAD_BYTES, Loader, judged
from verger.images.opening import sniff
from verger.output.layout import ListedImage, Rejection
from verger.packs.format import SHARD_NAME, Pack, Row, Shard, read_pack, row_groups, tag_of, written
from verger.packs.reading import has_changed, in_order, join
from verger.progress import Progress
from verger.settings import MAX_IMAGE_PIXELS, RunSettings, make_settings
from verger.store import storage
from verger.store.location import Location, check_apart
from verger.store.lock import held
from verger.version import VERSION

SHARD_BYTES = 128 * 2**20
"""A shard is closed when its images have so many bytes."""

FAILED_READS = 64
"""So many files in a row that cannot be read, though they are there: it is the store that fails."""

GETS_A_SHARD = 34
"""Two for the footer, and one for each row group of a shard of `SHARD_BYTES`."""


def pack(
    source: Location,
    target: Location,
    *,
    label_from: str = "parent",
    shard_bytes: int = SHARD_BYTES,
    threads: int = 16,
    fresh: bool = False,
    max_pixels: int = MAX_IMAGE_PIXELS,
    progress: Progress | None = None,
) -> Pack:
    """Pack the images of a folder into shards, go on with that, or add images that are new.

    Images are decoded in a child process, which imports the caller's main module: a script
    needs its `if __name__ == "__main__"`.

    Args:
        source: a folder of images.
        target: where the shards go; other files in it are left alone.
        label_from: where labels come from, as for `list_images`.
        shard_bytes: a shard is closed when its images have so many.
        threads: files that are read at once.
        fresh: delete the shards in the target, and start over.
        max_pixels: the largest image that is packed, width x height.
        progress: who is told how far it is.

    Raises:
        UsageError: the target lies inside the source, or holds what does not fit.
        InputError: the source holds no file, or cannot be listed; what was packed is damaged.
        SetupError: the target is in use or cannot be written, or the source fails.
    """
    check_apart(source, target)
    # Of a run over the same images: its limits, and its rules for labels.
    settings = make_settings(
        input=source, output=target, label_from=label_from, max_pixels=max_pixels
    )
    if read_pack(source):
        raise UsageError(f"{source} is packed already.", "Copy its files, or give the images.")
    noticed = Noticed()
    images = list_images(source, label_from, noticed)
    shown = progress or Progress()
    with _explained(target), held(target, target.child(".lock")) as check_lock:
        packer = _Packer(settings, source, target, shard_bytes, threads, shown, check_lock)
        packed = packer.open(fresh)
        if packed.shards:
            if not packer.compare(packed, images) and packed.status == "complete":
                return packed
            # Those that are missing, listed anew.
            joined = join(list_images(source, label_from), target, packed.shards)
            images = (image for image, row in joined if image is not None and row is None)
        packed = packer.write(packed, images)
    for note in noticed.notes():
        shown.note(note)
    return packed


@dataclass
class _Packer:
    """The stages of packing, which share their settings."""

    settings: RunSettings
    source: Location
    target: Location
    shard_bytes: int
    threads: int
    progress: Progress
    check_lock: Callable[[], None]
    next_number: int = 0

    def open(self, fresh: bool) -> Pack:
        """Read what the target holds, refuse what does not fit, delete what does not count."""
        packed = None if fresh else read_pack(self.target)
        present = [name for name in storage.names(self.target) if SHARD_NAME.fullmatch(name)]
        if packed is None:
            if present and not fresh:
                raise UsageError(
                    f"{self.target} holds {present[0]}, and no pack.json that names it.",
                    "Give another output folder, or have such files deleted with --fresh.",
                )
            packed = Pack(
                verger_version=VERSION,
                label_from=self.settings.label_from,
                credit=find_credit(self.source),
            )
            # From here on, files with the names of shards are ours.
            packed.write(self.target)
        if packed.version == 1:
            raise UsageError(
                f"{self.target} was packed by an earlier version, which kept the place of the "
                "images and their times.",
                "Start it over with --fresh, or give another output folder.",
            )
        old, new = packed.label_from, self.settings.label_from
        if old != new:
            raise UsageError(
                f"{self.target} was packed with --label-from {old!r} instead of {new!r}.",
                "Give another output folder, or start this one over with --fresh.",
            )
        named = {shard.name for shard in packed.shards}
        for name in set(present) - named:
            storage.delete(self.target.child(name))
        numbers = [int(match[1]) for name in named if (match := SHARD_NAME.fullmatch(name))]
        # On S3, the last upload of a process that was thought dead may yet arrive.
        self.next_number = max(numbers, default=-1) + (2 if self.target.is_s3 and present else 1)
        return packed

    def compare(self, packed: Pack, images: Iterable[ListedImage]) -> int:
        """The number of images that are not packed yet.

        Raises:
            UsageError: others have changed or gone since they were packed.
        """
        self.progress.start("plan")
        new = changed = vanished = 0
        for done, (image, row) in enumerate(join(images, self.target, packed.shards), 1):
            if row is None:
                new += 1
            elif image is None:
                vanished += 1
            else:
                changed += has_changed(self.source, image, row)
            self.progress.update(done)
        self.progress.finish()
        if changed or vanished:
            raise UsageError(
                f"Of the images packed in {self.target}, {changed:,} have changed in "
                f"{self.source} and {vanished:,} have gone from it.",
                "Give another output folder, or start this one over with --fresh.",
            )
        return new

    def write(self, packed: Pack, images: Iterable[ListedImage]) -> Pack:
        """Write images to new shards, and name each in `pack.json` when it is whole."""
        packed = self._commit(packed, status="incomplete")
        self.progress.start("pack")
        cleaner = partial(clean, max_pixels=self.settings.max_pixels)
        with Guard(pickle.dumps(cleaner), self.settings.image_seconds) as guard:
            rows = self._rows(images, guard)
            while (row := next(rows, None)) is not None:
                packed = self._write_shard(packed, chain([row], rows))
        packed = self._commit(packed, status="complete")
        self.progress.finish()
        return packed

    def _rows(self, images: Iterable[ListedImage], guard: Guard) -> Iterator[Row]:
        rules = Rules(self.settings.max_pixels)
        loader = Loader(self.source, at_full_size, self.settings.max_bytes, rules)
        ahead = read_ahead(in_order(images), loader.read, self.threads)
        refused = failed = 0
        for done, (image, data) in enumerate(ahead, 1):
            failed = failed + 1 if type(data) is OSError else 0
            if failed == FAILED_READS and isinstance(data, OSError):
                raise SetupError(
                    f"{failed} files in a row could not be read, at last {image.path}: {data}.",
                    "When the store answers again, the same command goes on.",
                )
            row = _row(image, data, _clean(loader, guard, image, data))
            refused += row["reason"] is not None
            yield row
            self.progress.update(done, refused)

    def _write_shard(self, packed: Pack, rows: Iterator[Row]) -> Pack:
        """Write a shard of the next rows; returns what is packed then."""
        name = f"shard-{self.next_number:06}.parquet"
        self.next_number += 1
        refused = Counter(packed.refused)
        images = before = after = 0
        first = last = ""
        with written(self.target.child(name)) as write:
            for group in row_groups(rows, self.shard_bytes):
                write(group)
                first, last = first or group[0]["path"], group[-1]["path"]
                images += len(group)
                refused.update(row["reason"] for row in group if row["reason"])
                before += sum(row["source_size"] for row in group if not row["reason"])
                after += sum(row["size"] for row in group)
        shard = Shard(name=name, images=images, bytes=after, first=first, last=last)
        return self._commit(
            packed,
            images=packed.images + images,
            refused=dict(sorted(refused.items())),
            bytes_before=packed.bytes_before + before,
            bytes_after=packed.bytes_after + after,
            shards=(*packed.shards, shard),
        )

    def _commit(self, packed: Pack, **changes: Any) -> Pack:
        """Put `pack.json` in place with some changes, if the target is still held."""
        packed = packed.model_copy(update=changes)
        self.check_lock()
        packed.write(self.target)
        return packed


def _clean(
    loader: Loader, guard: Guard, image: ListedImage, data: bytes | OSError | Rejection
) -> bytes | Rejection:
    """An image without its metadata, or the reason why there is none."""
    if refused := loader.refuse(image, data):
        return refused
    data = cast("bytes", data)
    # A video is not sent to another process to learn that it is no image.
    known = sniff(data) is not None
    cleaned = guard(data) if known else decode(data[:HEAD_BYTES], at_full_size)
    return judged(image, cleaned)


def _row(image: ListedImage, data: bytes | OSError | Rejection, cleaned: bytes | Rejection) -> Row:
    # Of a file that was not read whole, only its size tells whether it has changed.
    tag = tag_of(data) if isinstance(data, bytes) and len(data) == image.size else None
    row: Row = {
        "path": image.path,
        "label": image.label,
        "size": 0,
        "source_size": image.size,
        "source_tag": image.etag or tag,
        "reason": None,
    }
    if isinstance(cleaned, Rejection):
        return row | {"reason": cleaned.reason.value, "detail": cleaned.detail}
    checksum = hashlib.sha256(cleaned).hexdigest()
    return row | {"size": len(cleaned), "bytes": cleaned, "sha256": checksum}


@contextmanager
def _explained(target: Location) -> Iterator[None]:
    """Say what a failure of the disk means."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        first, *_ = str(error).splitlines()
        raise SetupError(
            f"The disk of {target} is full." if full else f"The output {target} failed: {first}.",
            "When that is mended, the same command goes on from the last shard.",
        ) from error


def requests_saved(packed: Pack) -> int:
    """GET requests that a run on S3 saves when it reads shards instead of images."""
    return max(0, packed.images - len(packed.shards) * GETS_A_SHARD)
