"""Keys of S3, listed in order and in parallel."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

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
