"""Objects on S3: clients that all threads share, keys listed in order and in parallel, and leases.

Credentials come from the AWS chain alone (environment, profile, role), and endpoint and region
from its standard settings; none of them is an option of verger, and none is ever shown.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache, lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs

from verger.errors import InputError, SetupError, VergerError

DEFAULT_REGION = "eu-west-1"
"""Where neither the settings nor the bucket say."""

CONNECTIONS = 32
"""To S3 at once, of all threads."""

LISTING_THREADS = 16
"""Prefixes that are listed at once; each request gives up to a thousand keys."""

SPLIT_DEPTH = 2
"""Levels of prefixes that are listed one by one, in parallel; below, keys are listed flat."""

PAGE_SIZE = 1000
"""The most keys that a request of S3 lists or deletes."""

LEASE_SECONDS = 120.0
"""A lease that was not renewed for so long has lost its owner."""

SOON_SECONDS = 5.0
"""What a store has to answer whether it is there; it is asked twice."""

RELEASE_SECONDS = 5.0
"""What giving a lease back may wait for a renewal that is under way."""


@dataclass(frozen=True)
class Listed:
    """A key, its size in bytes and its ETag without quotes."""

    key: str
    size: int
    etag: str


def bucket_and_key(path: str) -> tuple[str, str]:
    """Bucket and key of `bucket/key`."""
    bucket, _, key = path.partition("/")
    return bucket, key


def s3_client(*, patient: bool = True) -> Any:
    """A client that all threads of this process share.

    Args:
        patient: whether it tries for minutes, as work does that would be lost otherwise; or only
            for seconds, to see whether the store answers.

    Raises:
        SetupError: the AWS settings name a profile that does not exist, or are damaged.
    """
    with _making:  # no session may make two at once
        return _make_client(patient)


_making = threading.Lock()


@cache
def _make_client(patient: bool) -> Any:
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    options: dict[str, Any] = {
        "retries": {"mode": "standard", "total_max_attempts": 9 if patient else 2},
        "max_pool_connections": CONNECTIONS,
    }
    if not patient:
        options |= {"connect_timeout": SOON_SECONDS, "read_timeout": SOON_SECONDS}
    try:
        session = _session()
        # boto3 itself knows AWS_DEFAULT_REGION and the profile only.
        region = os.environ.get("AWS_REGION") or session.region_name or DEFAULT_REGION
        made = session.client("s3", region_name=region, config=Config(**options))
        if _is_aws(made.meta.endpoint_url):
            return made
        # Other stores have no host name for each bucket.
        options["s3"] = {"addressing_style": "path"}
        return session.client("s3", region_name=region, config=Config(**options))
    except (BotoCoreError, ValueError) as error:
        raise SetupError(
            f"The AWS settings cannot be used: {error}.",
            "Look at AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL and ~/.aws.",
        ) from error


@cache
def _session() -> Any:
    """One for all, which keeps the credentials of a role that it assumed."""
    import boto3

    return boto3.Session()


def s3_endpoint() -> str | None:
    """The URL of a store that is not AWS' own, from AWS_ENDPOINT_URL or the profile."""
    url: str = s3_client().meta.endpoint_url
    return None if _is_aws(url) else url


@cache
def bucket_region(bucket: str) -> str:
    """The region of a bucket."""
    from botocore.exceptions import ClientError

    with bucket_errors(bucket):
        try:
            found = s3_client().head_bucket(Bucket=bucket).get("BucketRegion")
        except ClientError:
            # An answer to HEAD has no body, and so no word on what is wrong with the credentials.
            s3_client().list_objects_v2(Bucket=bucket, MaxKeys=1)
            raise
    return str(found or s3_client().meta.region_name)


def _keys(bucket: str) -> tuple[str | None, ...]:
    """Access key, secret key and token as they are now: botocore renews those that expire."""
    with bucket_errors(bucket):
        credentials = s3_client()._request_signer._credentials
        frozen = credentials and credentials.get_frozen_credentials()
    return (frozen.access_key, frozen.secret_key, frozen.token) if frozen else ()


def arrow_file_system(bucket: str) -> fs.S3FileSystem:
    """Arrow's access to a bucket, which reads without Python's lock.

    It has the credentials of the AWS chain as they are now.
    """
    return _arrow_file_system(bucket_region(bucket), s3_endpoint(), _keys(bucket))


def delta_options(bucket: str) -> dict[str, str]:
    """How a Delta table is reached in a bucket, with the credentials as they are now."""
    options = {"AWS_REGION": bucket_region(bucket), "AWS_CONDITIONAL_PUT": "etag"}
    if url := s3_endpoint():
        options |= {
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": str(url.startswith("http:")).lower(),
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
        }
    keys = _keys(bucket)
    if not keys:
        return options | {"AWS_SKIP_SIGNATURE": "true"}
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    return options | {name: key for name, key in zip(names, keys, strict=True) if key}


@lru_cache(maxsize=4)
def _arrow_file_system(
    region: str, endpoint: str | None, keys: tuple[str | None, ...]
) -> fs.S3FileSystem:
    options: dict[str, Any] = {"region": region}
    if endpoint:
        url = urlsplit(endpoint)
        options |= {"endpoint_override": url.netloc, "scheme": url.scheme}
    if keys:
        options |= dict(zip(("access_key", "secret_key", "session_token"), keys, strict=True))
    else:
        options["anonymous"] = True
    return fs.S3FileSystem(**options)


def check_reachable(path: str) -> None:
    """Ask the store for the first byte of an object; any answer will do.

    Raises:
        SetupError: there is none, or the credentials have expired or are refused.
    """
    from botocore.exceptions import ClientError

    bucket, key = bucket_and_key(path)
    with bucket_errors(bucket):
        try:
            s3_client(patient=False).get_object(Bucket=bucket, Key=key, Range="bytes=0-0")
        except ClientError as error:
            if problem := credentials_problem(error):
                raise problem from error


@contextmanager
def bucket_errors(place: str) -> Iterator[None]:
    """Say what an error of the store means.

    Raises:
        InputError: the bucket is missing, forbidden or elsewhere.
        SetupError: there are no valid credentials, or the store does not answer.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    bucket = bucket_and_key(place)[0]
    try:
        yield
    except NoCredentialsError as error:
        raise no_credentials() from error
    except ClientError as error:
        raise _meaning(error, bucket) from error
    except (BotoCoreError, Boto3Error) as error:
        # Transfers of files wrap what S3 said.
        if isinstance(error.__context__, ClientError):
            raise _meaning(error.__context__, bucket) from error
        raise SetupError(
            f"The store of {bucket} does not answer: {error}",
            "Look at the network, AWS_ENDPOINT_URL and AWS_REGION; the same command goes on.",
        ) from error


def no_credentials() -> SetupError:
    """What to say where the AWS chain finds none."""
    return SetupError(
        "There are no AWS credentials.",
        "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a role.",
    )


def credentials_problem(error: Any) -> SetupError | None:
    """What is wrong with the credentials, if that is what an error of any AWS service says."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code in _EXPIRED:
        return SetupError(
            "The AWS credentials have expired.", "Renew them; the same command goes on."
        )
    if code in _REFUSED:
        return SetupError(
            f"The service refuses the AWS credentials ({code}).",
            "Look at AWS_PROFILE and at the keys that it names.",
        )
    return None


_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_REFUSED = {
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSignatureException", "InvalidToken",
    "InvalidClientTokenId", "UnrecognizedClientException", "AuthFailure",
}  # fmt: skip


def _meaning(error: Any, bucket: str) -> VergerError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if problem := credentials_problem(error):
        return problem
    if code in {"NoSuchBucket", "404"} or status == HTTPStatus.NOT_FOUND:
        return InputError(f"The bucket {bucket} does not exist.", "Look at its name.")
    if code in {"PermanentRedirect", "301"} or status == HTTPStatus.MOVED_PERMANENTLY:
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        where = headers.get("x-amz-bucket-region", "another region")
        return InputError(f"The bucket {bucket} is in {where}.", f"Set AWS_REGION={where}.")
    if code in {"AccessDenied", "403"} or status == HTTPStatus.FORBIDDEN:
        return InputError(
            f"The bucket {bucket} is forbidden to these AWS credentials.",
            "Give them s3:ListBucket, s3:GetObject and, for an output, s3:PutObject and "
            "s3:DeleteObject.",
        )
    return SetupError(f"The store of {bucket} failed: {code or status}.", "Try again.")


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
    for found in page.get("Contents", ()):
        if not found["Key"].endswith("/"):
            yield Listed(found["Key"], found["Size"], found["ETag"].strip('"'))


def exists(path: str) -> bool:
    """Whether there is an object, or any below it as below a folder."""
    bucket, key = bucket_and_key(path)
    with bucket_errors(bucket):
        found = s3_client().list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
        keys = [entry["Key"] for entry in found.get("Contents", ())]
        return bool(keys) and (keys[0] == key or is_folder(path))


def is_folder(path: str) -> bool:
    """Whether there is an object below it."""
    bucket, key = bucket_and_key(path)
    with bucket_errors(bucket):
        found = s3_client().list_objects_v2(Bucket=bucket, Prefix=f"{key}/", MaxKeys=1)
    return bool(found.get("Contents"))


def names(path: str) -> list[str]:
    """The names directly below a prefix, sorted."""
    bucket, key = bucket_and_key(path)
    prefix = f"{key}/" if key else ""
    pages = s3_client().get_paginator("list_objects_v2")
    found: set[str] = set()
    with bucket_errors(bucket):
        for page in pages.paginate(Bucket=bucket, Prefix=prefix, Delimiter="/"):
            keys = [entry["Key"] for entry in page.get("Contents", ())]
            keys += [entry["Prefix"] for entry in page.get("CommonPrefixes", ())]
            found.update(key.removeprefix(prefix).rstrip("/") for key in keys)
    return sorted(found - {""})


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
                answer = s3_client().delete_objects(
                    Bucket=bucket, Delete={"Objects": keys, "Quiet": True}
                )
                # Each object has an answer of its own, under a status of 200 for all.
                for failed in answer.get("Errors", ()):
                    raise SetupError(
                        f"s3://{bucket}/{failed['Key']} cannot be deleted ({failed['Code']}).",
                        "Give the credentials s3:DeleteObject; the same command goes on.",
                    )
        _delete_empty_folders(bucket, f"{key}/")


def _delete_empty_folders(bucket: str, prefix: str) -> None:
    """Delete empty folders, which some stores keep: Spark would take one for a table."""
    answer = s3_client().list_objects_v2(Bucket=bucket, Prefix=prefix, Delimiter="/")
    for folder in answer.get("CommonPrefixes", ()):
        _delete_empty_folders(bucket, folder["Prefix"])
    if answer["KeyCount"]:
        s3_client().delete_object(Bucket=bucket, Key=prefix)


class Lease:
    """The right to write to an output, held by an object that its owner keeps renewing.

    It is taken by a conditional put, so that one of two wins; whoever finds that it was not renewed
    for `LEASE_SECONDS`, by the store's own clock, may take it over.
    """

    def __init__(self, path: str, seconds: float = LEASE_SECONDS) -> None:
        self.path = path
        self.seconds = seconds
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "id": uuid.uuid4().hex}
        self._body = json.dumps(owner).encode()
        self._etag = ""
        self._renewed = 0.0
        self._lost = False
        self._renewing = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def acquire(self) -> bool:
        """Take it; False when another owner has it."""
        if not self._put(IfNoneMatch="*"):
            etag = self._abandoned()
            if etag is None or not self._put(IfMatch=etag):
                return False
        self._thread.start()
        return True

    def is_held(self) -> bool:
        """Whether it is still ours; asks the store when it was not renewed for a while."""
        # The clock of the wall: a laptop that slept has lost its lease meanwhile.
        if time.time() - self._renewed > self.seconds / 2:
            self._renew()
        return not self._lost and time.time() - self._renewed < self.seconds

    def release(self) -> None:
        """Give it back, if it is still ours; a store that does not answer lets it expire."""
        self._stopped.set()
        self._thread.join(RELEASE_SECONDS)
        bucket, key = bucket_and_key(self.path)
        with suppress(VergerError), bucket_errors(bucket):
            # Whoever pressed Ctrl-C does not wait for minutes.
            quick = s3_client(patient=False)
            if not self._lost and self._read(quick) == self._body:
                quick.delete_object(Bucket=bucket, Key=key)

    def _keep(self) -> None:
        while not self._stopped.wait(self.seconds / 4) and not self._lost:
            with suppress(VergerError):  # the store may answer again before the lease ends
                self._renew()

    def _renew(self) -> None:
        with self._renewing:
            self._lost = self._lost or not self._put(IfMatch=self._etag)

    def _put(self, **condition: str) -> bool:
        """Write it on a condition; whether it is ours now."""
        from botocore.exceptions import ClientError

        bucket, key = bucket_and_key(self.path)
        at = time.time()
        with bucket_errors(bucket):
            try:
                answer = s3_client().put_object(
                    Bucket=bucket, Key=key, Body=self._body, **condition
                )
                self._etag = answer["ETag"]
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code")
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                if status not in {404, 409, 412} or code == "NoSuchBucket":
                    raise
                # A put whose answer was lost is repeated, and then meets its own work.
                if self._read(s3_client()) != self._body:
                    return False
                self._etag = s3_client().head_object(Bucket=bucket, Key=key)["ETag"]
        self._renewed = at
        return True

    def _read(self, asked: Any) -> bytes | None:
        bucket, key = bucket_and_key(self.path)
        try:
            return bytes(asked.get_object(Bucket=bucket, Key=key)["Body"].read())
        except asked.exceptions.NoSuchKey:
            return None

    def _abandoned(self) -> str | None:
        """The ETag of a lease that its owner no longer renews."""
        bucket, key = bucket_and_key(self.path)
        with bucket_errors(bucket):
            try:
                found = s3_client().get_object(Bucket=bucket, Key=key)
            except s3_client().exceptions.NoSuchKey:
                return None  # given back just now
        date = parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
        age = (date - found["LastModified"]).total_seconds()
        return str(found["ETag"]) if age > self.seconds else None


def _is_aws(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
