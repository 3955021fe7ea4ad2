"""Objects of S3: whether they are there, read, written, deleted."""

from collections.abc import Callable, Sequence
from typing import Any

from verger.errors import SetupError, VergerError
from verger.store.client import s3_client
from verger.store.errors import bucket_errors
from verger.store.listing import PAGE_SIZE
from verger.store.location import bucket_and_key


def exists(path: str) -> bool:
    """Whether there is an object, or any below it as below a folder."""
    bucket, key = bucket_and_key(path)
    with bucket_errors(bucket):
        answer = s3_client().list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
        keys = [entry["Key"] for entry in answer.get("Contents", ())]
        return bool(keys) and (keys[0] == key or is_folder(path))


def is_folder(path: str) -> bool:
    """Whether there is an object below it."""
    bucket, key = bucket_and_key(path)
    with bucket_errors(bucket):
        answer = s3_client().list_objects_v2(Bucket=bucket, Prefix=f"{key}/", MaxKeys=1)
    return bool(answer.get("Contents"))


def names(path: str) -> list[str]:
    """The names directly below a prefix, sorted."""
    bucket, key = bucket_and_key(path)
    prefix = f"{key}/" if key else ""
    pages = s3_client().get_paginator("list_objects_v2")
    with bucket_errors(bucket):
        found = pages.paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
        keys = found.search("[Contents[].Key, CommonPrefixes[].Prefix][]")
        below = {key.removeprefix(prefix).rstrip("/") for key in keys}
    return sorted(below - {""})


def get(path: str, limit: int | None = None) -> bytes:
    """The whole object, or its first `limit` bytes; slower than Arrow, which refuses some keys.

    Raises:
        OSError: it is missing or cannot be read.
    """
    bucket, key = bucket_and_key(path)
    some = {"Range": f"bytes=0-{limit - 1}"} if limit else {}
    try:
        with bucket_errors(bucket):
            return bytes(s3_client().get_object(Bucket=bucket, Key=key, **some)["Body"].read())
    except VergerError as error:
        raise OSError(f"s3://{path}: {error.message}") from error


def put(path: str, data: bytes) -> None:
    """Write an object, which appears whole."""
    bucket, key = bucket_and_key(path)
    with bucket_errors(bucket):
        s3_client().put_object(Bucket=bucket, Key=key, Body=data)


def delete(path: str) -> None:
    """Delete an object, and all below it."""
    bucket, key = bucket_and_key(path)
    pages = s3_client().get_paginator("list_objects_v2")
    with bucket_errors(bucket):
        for page in pages.paginate(
            Bucket=bucket, Prefix=key, PaginationConfig={"PageSize": PAGE_SIZE}
        ):
            keys = [
                {"Key": entry["Key"]}
                for entry in page.get("Contents", ())
                if entry["Key"] == key or entry["Key"].startswith(f"{key}/")
            ]
            if keys:
                delete_keys(s3_client(), bucket, keys)
        _delete_empty_folders(bucket, f"{key}/")


def delete_many(paths: Sequence[str], check: Callable[[], None]) -> None:
    """Delete objects of one bucket; `check` is called before each request."""
    bucket = bucket_and_key(paths[0])[0] if paths else ""
    for start in range(0, len(paths), PAGE_SIZE):
        keys = [{"Key": bucket_and_key(path)[1]} for path in paths[start : start + PAGE_SIZE]]
        check()
        with bucket_errors(bucket):
            delete_keys(s3_client(), bucket, keys)


def delete_keys(
    client: Any, bucket: str, keys: list[dict[str, str]], *, versions: bool = False
) -> None:
    """Delete up to a thousand keys, or versions of them, in one request.

    Raises:
        SetupError: one of them cannot be deleted.
    """
    answer = client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
    done, right = ("erased", "DeleteObjectVersion") if versions else ("deleted", "DeleteObject")
    # Each object has an answer of its own, under a status of 200 for all.
    for failed in answer.get("Errors", ()):
        raise SetupError(
            f"s3://{bucket}/{failed['Key']} cannot be {done} ({failed['Code']}).",
            f"Give the credentials s3:{right}; the same command goes on.",
        )


def _delete_empty_folders(bucket: str, prefix: str) -> None:
    """Delete empty folders, which some stores keep: Spark would take one for a table."""
    answer = s3_client().list_objects_v2(Bucket=bucket, Prefix=prefix, Delimiter="/")
    for folder in answer.get("CommonPrefixes", ()):
        _delete_empty_folders(bucket, folder["Prefix"])
    if answer["KeyCount"]:
        s3_client().delete_object(Bucket=bucket, Key=prefix)
