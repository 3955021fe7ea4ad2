"""Objects of S3: listed in order and in parallel, read, written, deleted."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from verger.errors import SetupError, VergerError
from verger.store.client import s3_client
from verger.store.errors import bucket_errors
from verger.store.location import bucket_and_key

LISTING_THREADS = 16
"""Prefixes that are listed at once; each request gives up to a thousand keys."""

SPLIT_DEPTH = 2
"""Levels of prefixes that are listed one by one, in parallel; below, keys are listed flat."""

PAGE_SIZE = 1000
"""The most keys that a request of S3 lists or deletes."""


@dataclass(frozen=True)
class Listed:
    """A key, its size in bytes and its ETag without quotes."""

    key: str
    size: int
    etag: str


def list_objects(path: str) -> Iterator[Listed]:
    """All objects below `bucket/prefix`, in the order of their keys, without markers of folders.

    The first levels of prefixes are listed in parallel, a few pages ahead of whoever reads.
    """
    bucket, key = bucket_and_key(path)
    prefix = f"{key.rstrip('/')}/" if key else ""
    with ThreadPoolExecutor(LISTING_THREADS) as pool, bucket_errors(bucket):
        first = _page(bucket, prefix, "/", None)
        yield from _list_from(pool, bucket, prefix, SPLIT_DEPTH, first)


def _list_from(
    pool: ThreadPoolExecutor, bucket: str, prefix: str, depth: int, page: dict[str, Any]
) -> Iterator[Listed]:
    """List a prefix of which the first page is there already."""
    if depth and page["IsTruncated"]:
        # Too many prefixes to go through one by one.
        depth, page = 0, _page(bucket, prefix, "", None)
    if not depth:
        while True:
            token = page.get("NextContinuationToken")
            ahead = pool.submit(_page, bucket, prefix, "", token) if page["IsTruncated"] else None
            yield from _objects(page)
            if ahead is None:
                return
            page = ahead.result()
    below = sorted(
        [*_objects(page), *(common["Prefix"] for common in page.get("CommonPrefixes", ()))],
        key=lambda entry: entry if isinstance(entry, str) else entry.key,
    )
    prefixes = deque(entry for entry in below if isinstance(entry, str))
    waiting: deque[Future[dict[str, Any]]] = deque()
    delimiter = "/" if depth > 1 else ""
    for entry in below:
        if isinstance(entry, Listed):
            yield entry
            continue
        while prefixes and len(waiting) < LISTING_THREADS:
            waiting.append(pool.submit(_page, bucket, prefixes.popleft(), delimiter, None))
        yield from _list_from(pool, bucket, entry, depth - 1, waiting.popleft().result())


def _page(bucket: str, prefix: str, delimiter: str, token: str | None) -> dict[str, Any]:
    more = {"ContinuationToken": token} if token else {}
    page: dict[str, Any] = s3_client().list_objects_v2(
        Bucket=bucket, Prefix=prefix, Delimiter=delimiter, MaxKeys=PAGE_SIZE, **more
    )
    return page


def _objects(page: dict[str, Any]) -> Iterator[Listed]:
    for entry in page.get("Contents", ()):
        if not entry["Key"].endswith("/"):
            yield Listed(entry["Key"], entry["Size"], entry["ETag"].strip('"'))


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
    try:
        # A range would be an error of an empty object.
        with (
            bucket_errors(bucket),
            closing(s3_client().get_object(Bucket=bucket, Key=key)["Body"]) as body,
        ):
            return bytes(body.read(limit))
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
        for page in pages.paginate(Bucket=bucket, Prefix=key):
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
