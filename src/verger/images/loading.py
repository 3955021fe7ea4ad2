"""From a listed image to its pixels: read with patience, then decoded, or refused with a reason."""

import time
from dataclasses import dataclass
from typing import TypeVar, cast

from verger.images.decoding import Picture, Resize, Rules, decode
from verger.images.opening import claims_image
from verger.output.layout import ListedImage, Reason, Rejection
from verger.packs.reading import read_packed
from verger.store import storage
from verger.store.location import Location

HEAD_BYTES = 64
"""What is read of a file that is too large, to tell an image from anything else."""

RETRY_SECONDS = (0.1, 0.4, 1.6)
"""Pauses before reading again what could not be read."""


@dataclass(frozen=True)
class Loader:
    """Reads and decodes the images of a folder.

    Attributes:
        folder: the input.
        resize: gives a picture the size that is wanted.
        max_bytes: the largest file that is read whole.
        rules: how files become pixels.
    """

    folder: Location
    resize: Resize
    max_bytes: int
    rules: Rules

    def __call__(self, image: ListedImage) -> Picture | Rejection:
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

    def decode(self, image: ListedImage, data: bytes | OSError | Rejection) -> Picture | Rejection:
        """The picture in what `read` returned or raised."""
        refused = self.refuse(image, data)
        if refused:
            return refused
        return judged(image, decode(cast("bytes", data), self.resize, self.rules))

    def refuse(self, image: ListedImage, data: bytes | OSError | Rejection) -> Rejection | None:
        """Why what `read` returned or raised is not to be decoded, or None when it is."""
        if isinstance(data, Rejection):
            return judged(image, data)
        if isinstance(data, OSError):
            return Rejection(Reason.UNREADABLE, f"{type(data).__name__}: {data.strerror or data}")
        if image.size <= self.max_bytes:
            return None
        head = judged(image, decode(data, self.resize, self.rules))
        if isinstance(head, Rejection) and head.reason is Reason.NOT_AN_IMAGE:
            return head
        return Rejection(Reason.TOO_LARGE, f"{image.size:,} bytes, more than {self.max_bytes:,}")


T = TypeVar("T")


def judged(image: ListedImage, outcome: T | Rejection) -> T | Rejection:
    """The same, but that a file's name tells a lost photograph from what never was one.

    What holds no image is damaged if it is called .jpg, and if not, no image is missing.
    """
    if not isinstance(outcome, Rejection):
        return outcome
    claims = claims_image(image.path)
    if outcome.reason is Reason.NOT_AN_IMAGE and claims:
        extension = image.path.rpartition(".")[2]
        return Rejection(Reason.CORRUPT, f"called .{extension}, but no image: {outcome.detail}")
    if outcome.reason is Reason.EMPTY and not claims:
        return Rejection(Reason.NOT_AN_IMAGE, outcome.detail)
    return outcome
