"""Erasure for good: every object below a place, in all its versions."""

from collections.abc import Iterator
from http import HTTPStatus
from itertools import islice
from typing import Any, NamedTuple

from verger.errors import SetupError
from verger.progress import TIME, Progress, Time
from verger.store.errors import bucket_errors
from verger.store.location import Location, bucket_and_key
from verger.store.objects import PAGE_SIZE, delete_keys

LATE_TRIES = 5
"""How often a bucket is emptied again: EMR's logs may come some minutes after the machines went."""


class Version(NamedTuple):
    """A version of an object, or the mark of its deletion.

    Attributes:
        key: of the object.
        id: of the version, `null` in a bucket without versions.
        size: in bytes; 0 of a mark.
    """

    key: str
    id: str
    size: int


def list_versions(session: Any, place: Location) -> Iterator[Version]:
    """All versions of all objects at or below a place, in the order of their keys.

    Raises:
        InputError: the bucket is missing or forbidden.
        SetupError: there are no valid credentials, or S3 does not answer.
    """
    bucket, key = bucket_and_key(place.path)
    pages = session.client("s3").get_paginator("list_object_versions")
    with bucket_errors(bucket):
        found = pages.paginate(Bucket=bucket, Prefix=key).search("[Versions, DeleteMarkers][]")
        for entry in found:
            if _is_below(entry["Key"], key):
                yield Version(entry["Key"], entry["VersionId"], entry.get("Size", 0))


def erase(session: Any, place: Location, progress: Progress) -> list[Version]:
    """Erase all objects at or below a place, with all versions and what uploads left unfinished.

    Raises:
        InputError: the bucket is missing or forbidden.
        SetupError: something could not be erased; the same call goes on.
    """
    bucket, key = bucket_and_key(place.path)
    client = session.client("s3")
    erased: list[Version] = []
    versions = list_versions(session, place)
    progress.start("erase")
    while batch := list(islice(versions, PAGE_SIZE)):
        keys = [{"Key": version.key, "VersionId": version.id} for version in batch]
        with bucket_errors(bucket):
            delete_keys(client, bucket, keys, versions=True)
        erased += batch
        progress.update(len(erased))
    with bucket_errors(bucket):
        pages = client.get_paginator("list_multipart_uploads")
        for upload in pages.paginate(Bucket=bucket, Prefix=key).search("[Uploads][]"):
            if _is_below(upload["Key"], key):
                client.abort_multipart_upload(
                    Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                )
    progress.finish()
    return erased


def delete_bucket(session: Any, bucket: str, progress: Progress, time: Time = TIME) -> None:
    """Delete a bucket, if it is there; what has come meanwhile, as logs do, is erased before.

    Raises:
        InputError: it is forbidden.
        SetupError: something comes again and again.
    """
    from botocore.exceptions import ClientError

    client = session.client("s3")
    for _ in range(LATE_TRIES):
        with bucket_errors(bucket):
            try:
                client.delete_bucket(Bucket=bucket)
            except client.exceptions.NoSuchBucket:
                return
            except ClientError as error:
                if error.response["Error"]["Code"] != "BucketNotEmpty":
                    raise
            else:
                return
        time.sleep(time.poll_seconds)
        erase(session, Location(f"s3://{bucket}"), progress)
    raise SetupError(
        f"The bucket {bucket} is filled again while it is emptied.",
        "Something still writes to it. Give the same command again in some minutes.",
    )


def is_gone(session: Any, bucket: str) -> bool:
    """Whether there is no such bucket.

    Raises:
        InputError: it is forbidden.
        SetupError: there are no valid credentials, or S3 does not answer.
    """
    from botocore.exceptions import ClientError

    with bucket_errors(bucket):
        try:
            session.client("s3").head_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.NOT_FOUND:
                return True
            raise
    return False


def by_folder(erased: list[Version]) -> dict[str, tuple[int, int]]:
    """Versions and bytes below each first part of the keys."""
    folders: dict[str, tuple[int, int]] = {}
    for version in erased:
        first, slash, _ = version.key.partition("/")
        count, size = folders.get(first + slash, (0, 0))
        folders[first + slash] = (count + 1, size + version.size)
    return folders


def _is_below(key: str, place: str) -> bool:
    """Whether a key is at or below a place, or anywhere if that is a whole bucket."""
    return not place or key == place or key.startswith(f"{place}/")
