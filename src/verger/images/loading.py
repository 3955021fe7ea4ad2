"""From a listed image to its pixels: read with patience, then decoded, or refused with a reason."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from verger.images.decoding import Resize, decode
from verger.output.layout import ListedImage, Reason, Rejection
from verger.packs.reading import read_packed
from verger.store import storage
from verger.store.location import Location

HEAD_BYTES = 64
"""What is read of a file that is too large, to tell an image from anything else."""

RETRY_SECONDS = (0.1, 0.4, 1.6)
"""Pauses before reading again what could not be read."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Loader:
    """Reads and decodes the images of a folder.

    Attributes:
        folder: the input.
        resize: gives a picture the size that is wanted.
        max_pixels: the largest image that is decoded, width x height.
        max_bytes: the largest file that is read whole.
        least: as for `decode`.
        decoder: as `decode`.
    """

    folder: Location
    resize: Resize
    max_pixels: int
    max_bytes: int
    least: int | None = None
    decoder: Callable[[bytes, Resize, int, int | None], Pixels | Rejection] = decode

    def __call__(self, image: ListedImage) -> Pixels | Rejection:
        """Read and decode."""
        try:
            data: bytes | OSError | Rejection = self.read(image)
        except OSError as error:
            data = error
        return self.decode(image, data)

    def read(self, image: ListedImage) -> bytes | Rejection:
        """The bytes of an image, or the first of a file that is too large; tried four times.

        A packed image may have none, and gives the reason that packing found.

        Raises:
            OSError: it cannot be read.
            SetupError: nothing can: the store does not answer, or its credentials have expired.
        """
        for seconds in RETRY_SECONDS:
            try:
                return self.read_once(image)
            except OSError:
                time.sleep(seconds)
        try:
            return self.read_once(image)
        except OSError:
            self.check_reachable(image)
            raise

    def check_reachable(self, image: ListedImage) -> None:
        """Tell whether the store of an image answers; see `storage.check_reachable`."""
        storage.check_reachable(self.folder.child(image.shard or image.path))

    def read_once(self, image: ListedImage) -> bytes | Rejection:
        """As `read`, but a failure is not tried again."""
        if image.shard is not None:
            return read_packed(self.folder, image)
        limit = HEAD_BYTES if image.size > self.max_bytes else None
        return storage.read_bytes(self.folder.child(image.path), limit)

    def decode(self, image: ListedImage, data: bytes | OSError | Rejection) -> Pixels | Rejection:
        """The pixels in what `read` returned or raised."""
        refused = self.refuse(image, data)
        return refused or self.decoder(
            cast("bytes", data), self.resize, self.max_pixels, self.least
        )

    def refuse(self, image: ListedImage, data: bytes | OSError | Rejection) -> Rejection | None:
        """Why what `read` returned or raised is not to be decoded, or None when it is."""
        if isinstance(data, Rejection):
            return data
        if isinstance(data, OSError):
            return Rejection(Reason.UNREADABLE, f"{type(data).__name__}: {data.strerror or data}")
        if image.size <= self.max_bytes:
            return None
        head = self.decoder(data, self.resize, self.max_pixels, None)
        if isinstance(head, Rejection) and head.reason is Reason.NOT_AN_IMAGE:
            return head
        return Rejection(Reason.TOO_LARGE, f"{image.size:,} bytes, more than {self.max_bytes:,}")
