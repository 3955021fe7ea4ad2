"""What tells that a local file has changed since it was packed, without a word of when it was."""

import hashlib
from pathlib import Path

from verger.output.layout import ListedImage
from verger.packs.format import Packed
from verger.store.location import Location

END_BYTES = 2**16
"""A tag is a checksum of so many bytes at each end: cameras and editors write at the beginning."""


def has_changed(folder: Location, image: ListedImage, packed: Packed) -> bool:
    """Whether an image of a folder is another than when it was packed."""
    if image.size != packed.size or packed.tag is None:
        return image.size != packed.size
    try:
        file = Path(folder.child(image.path).path)
        return (image.etag or read_tag(file, image.size)) != packed.tag
    except OSError:  # it was read when it was packed
        return True


def tag_of(data: bytes) -> str:
    """The tag of a file that is in memory."""
    ends = data if len(data) <= 2 * END_BYTES else data[:END_BYTES] + data[-END_BYTES:]
    return hashlib.sha256(ends).hexdigest()[:32]


def read_tag(file: Path, size: int) -> str:
    """The tag of a file of `size` bytes.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        if size <= 2 * END_BYTES:
            return tag_of(stream.read())
        first = stream.read(END_BYTES)
        stream.seek(size - END_BYTES)
        return tag_of(first + stream.read(END_BYTES))
