"""Small pictures of images, as the page shows them: WebP in data URIs."""

import base64
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from math import inf
from time import monotonic

import pyarrow.compute as pc
from PIL import Image

from verger.errors import VergerError
from verger.images.ahead import read_ahead
from verger.images.decoding import Rules
from verger.images.loading import Loader
from verger.images.shrinking import shrink, to_webp
from verger.output.files import open_files
from verger.output.layout import LISTING_SCHEMA, THUMBNAIL, ListedImage, Outcome, Output, Rejection
from verger.progress import Progress
from verger.store import storage
from verger.store.location import Location

THREADS, THREADS_OF_S3 = 4, 16
"""That read and decode at once: more hinder one another, but while they wait for a store."""
TOGETHER = 16
"""Images of a disk that a thread makes small one after the other."""
MAX_BYTES = 64 * 2**20
"""Larger files are left without a picture."""


def find_images(
    output: Output, paths: set[str], *, thumbnails: bool = False
) -> tuple[dict[str, ListedImage], dict[str, bytes]]:
    """Where images are, packed ones among them, and the thumbnails that are kept, of large ones.

    Both by path, as the table of files says, of which all paths are read, and all thumbnails if
    they are wanted: ask for many at once.
    """
    listed = {path: ListedImage(path, "", 0) for path in paths}
    kept: dict[str, bytes] = {}
    # Else they are looked for under their paths.
    with suppress(OSError, ValueError, VergerError):
        rows = open_files(output).dataset(Outcome.FEATURIZED)
        wanted = pc.field("path").isin(sorted(paths))
        columns = [*LISTING_SCHEMA.names, *([THUMBNAIL.name] if thumbnails else [])]
        for row in rows.to_table(columns=columns, filter=wanted).to_pylist():
            thumbnail = row.pop(THUMBNAIL.name, None)
            listed[row["path"]] = ListedImage(**row)
            if thumbnail:
                kept[row["path"]] = thumbnail
    return listed, kept


def make_thumbnails(
    folder: Location,
    images: Iterable[ListedImage],
    side: int,
    progress: Progress | None = None,
    *,
    kept: Mapping[str, bytes],
    seconds: float | None = None,
) -> Iterator[tuple[str, bytes | None]]:
    """Read images and make them small, in their order, on several threads.

    Args:
        folder: the input that they are in.
        images: which.
        side: pixels of the longer side.
        progress: is told how many are done.
        kept: those that need not be made, by path.
        seconds: after which the rest are left without a picture.

    Yields:
        Each path with WebP, or with None where the image is gone or cannot be read.
    """
    try:
        storage.file_system(folder)  # once, and not in vain for each of thousands of images
        loader = thumbnail_loader(folder, side)
    except (VergerError, OSError):
        yield from ((image.path, kept.get(image.path)) for image in images)
        return
    end = None if seconds is None else monotonic() + seconds

    def make(image: ListedImage) -> bytes | None:
        if known := kept.get(image.path):
            return known
        late = end is not None and monotonic() > end
        return None if late else thumbnail(loader, image)

    threads, together = (THREADS_OF_S3, 1) if folder.is_s3 else (THREADS, TOGETHER)
    for done, (image, made) in enumerate(read_ahead(images, make, threads, together, inf), 1):
        yield image.path, made if isinstance(made, bytes) else None
        if progress:
            progress.update(done)


def thumbnail_loader(folder: Location, side: int) -> Loader:
    """What gives images of a folder at most `side` pixels a side."""
    rules = Rules(least=2 * side, accept_truncated=True)
    return Loader(folder, partial(shrink, side=side), MAX_BYTES, rules)


def thumbnail(loader: Loader, image: ListedImage) -> bytes | None:
    """WebP of an image in the size that the loader gives it, or None where there is no image."""
    try:
        picture = loader.decode(image, loader.read_once(image))
    except (OSError, ValueError, KeyError, VergerError):
        return None
    if isinstance(picture, Rejection):
        return None
    return to_webp(Image.fromarray(picture.pixels))


def data_uri(webp: bytes) -> str:
    """What an <img> takes as its source without asking any host."""
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"
