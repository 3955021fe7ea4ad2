"""Images to a bucket: packed, or as they are; either way without their metadata."""

import hashlib
from typing import Any

from pydantic import BaseModel

from verger.cloud.account.buckets import check_buckets, check_store
from verger.datasets import packing
from verger.datasets.cleaning import clean
from verger.errors import UsageError
from verger.images.ahead import read_ahead
from verger.images.listing import list_images
from verger.output.layout import ListedImage, Rejection
from verger.packs.format import Pack
from verger.progress import Progress
from verger.settings import RunSettings
from verger.store import objects, storage
from verger.store.location import Location, bucket_and_key
from verger.store.objects import list_objects

THREADS = 16
"""Images that are on their way at once."""

MAX_BYTES: int = RunSettings.model_fields["max_bytes"].default
"""Larger files stay here: a run would reject them."""


class Uploaded(BaseModel):
    """What became of the images of a folder.

    Attributes:
        sent: uploaded now.
        present: found in the bucket, uploaded before.
        refused: left out since their metadata cannot be removed: path and reason.
        bytes_sent: of the images uploaded now, without metadata.
    """

    sent: int = 0
    present: int = 0
    refused: dict[str, str] = {}
    bytes_sent: int = 0


def check_place(session: Any, place: Location) -> str:
    """See that a place is on S3 and inside the European Union.

    Returns:
        The region of its bucket.

    Raises:
        UsageError: it is not on S3.
        RefusedError: it is outside, or requests would go elsewhere.
        InputError: its bucket is missing or forbidden.
    """
    if not place.is_s3:
        raise UsageError(f"{place} is not on S3.", "Write s3://bucket/prefix.")
    bucket, _ = bucket_and_key(place.path)
    check_store()
    return check_buckets(session, [bucket])[bucket]


def upload_packed(
    session: Any, source: Location, target: Location, progress: Progress, **options: Any
) -> Pack:
    """Pack a folder of images, which may be on S3, into shards there; the same call again goes on.

    The options are those of `verger.datasets.packing.pack`.

    Raises:
        RefusedError: a place is outside the European Union; nothing was sent then.
        UsageError, InputError, SetupError: as `check_place` and `pack` raise them.
    """
    check_place(session, target)
    if source.is_s3:
        check_place(session, source)
    return packing.pack(source, target, progress=progress, **options)


def upload_images(session: Any, source: Location, target: Location, progress: Progress) -> Uploaded:
    """Upload the images of a folder one by one; the same call again sends what is missing.

    A file is sent again when its object has other bytes. Files that are no images stay here.

    Raises:
        RefusedError: the target is outside the European Union; nothing was sent then.
        UsageError: the target is not on S3, or the source is.
        InputError: the folder or the bucket is missing or forbidden, or the folder holds no file.
        SetupError: there are no valid credentials, or S3 does not answer.
    """
    if source.is_s3:
        raise UsageError(f"{source} is on S3 already.", "Give a folder on this machine.")
    check_place(session, target)
    _, prefix = bucket_and_key(target.path)
    progress.start("plan")
    skip = len(prefix) + 1 if prefix else 0
    present = {listed.key[skip:]: listed.etag for listed in list_objects(target.path)}
    total = sum(1 for _ in list_images(source))
    progress.finish()

    def send(image: ListedImage) -> int:
        """Upload an image that is not there yet; returns its bytes, or 0 if it was there."""
        data = _stripped(source, image)
        # The ETag of an object that was put at once, with S3's own encryption.
        if present.get(image.path) == hashlib.md5(data, usedforsecurity=False).hexdigest():
            return 0
        objects.put(target.child(image.path).path, data)
        return len(data)

    done = Uploaded()
    progress.start("upload", total)
    for number, (image, outcome) in enumerate(read_ahead(list_images(source), send, THREADS), 1):
        if isinstance(outcome, OSError):
            done.refused[image.path] = str(outcome)
        elif outcome:
            done.sent += 1
            done.bytes_sent += outcome
        else:
            done.present += 1
        progress.update(number, len(done.refused))
    progress.finish()
    return done


def _stripped(source: Location, image: ListedImage) -> bytes:
    """The bytes of an image without its metadata.

    Raises:
        OSError: it cannot be read, or is no image.
    """
    if image.size > MAX_BYTES:
        raise OSError(f"{image.size:,} bytes are more than the {MAX_BYTES:,} that a run reads")
    data = storage.read_bytes(source.child(image.path))
    cleaned = clean(data)
    if isinstance(cleaned, Rejection):
        raise OSError(f"{cleaned.reason}: {cleaned.detail}")
    return cleaned
