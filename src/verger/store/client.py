"""Clients of S3 that all threads of a process share, and the credentials for those of others."""

import threading
from functools import cache, lru_cache
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs

from verger.store.errors import bucket_errors, credentials_problem
from verger.store.location import bucket_and_key
from verger.store.session import make_session, settings_errors

CONNECTIONS = 32
"""To S3 at once, of all threads."""

SOON_SECONDS = 5.0
"""What a store has to answer whether it is there; it is asked twice."""


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

    options: dict[str, Any] = {
        "retries": {"mode": "standard", "total_max_attempts": 9 if patient else 2},
        "max_pool_connections": CONNECTIONS,
    }
    if not patient:
        options |= {"connect_timeout": SOON_SECONDS, "read_timeout": SOON_SECONDS}
    with settings_errors():
        made = _session().client("s3", config=Config(**options))
        if _is_aws(made.meta.endpoint_url):
            return made
        # Other stores have no host name for each bucket.
        options["s3"] = {"addressing_style": "path"}
        return _session().client("s3", config=Config(**options))


@cache
def _session() -> Any:
    """One for all, which keeps the credentials of a role that it assumed."""
    return make_session(inside_eu=False)


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
            region = s3_client().head_bucket(Bucket=bucket).get("BucketRegion")
        except ClientError:
            # An answer to HEAD has no body, and so no word on what is wrong with the credentials.
            s3_client().list_objects_v2(Bucket=bucket, MaxKeys=1)
            raise
    return str(region or s3_client().meta.region_name)


def _keys(bucket: str) -> tuple[str, str, str | None]:
    """Access key, secret key and token as they are now: botocore renews those that expire."""
    with bucket_errors(bucket):
        frozen = _session().get_credentials().get_frozen_credentials()
    return frozen.access_key, frozen.secret_key, frozen.token


def arrow_file_system(bucket: str) -> fs.S3FileSystem:
    """Arrow's access to a bucket, which reads without Python's lock.

    It has the credentials of the AWS chain as they are now.
    """
    return _arrow_file_system(bucket_region(bucket), s3_endpoint(), *_keys(bucket))


def delta_options(bucket: str) -> dict[str, str]:
    """How a Delta table is reached in a bucket, with the credentials as they are now."""
    options = {"AWS_REGION": bucket_region(bucket), "AWS_CONDITIONAL_PUT": "etag"}
    if url := s3_endpoint():
        options |= {
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": str(url.startswith("http:")).lower(),
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
        }
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    return options | {name: key for name, key in zip(names, _keys(bucket), strict=True) if key}


@lru_cache(maxsize=4)
def _arrow_file_system(
    region: str, endpoint: str | None, access_key: str, secret_key: str, token: str | None
) -> fs.S3FileSystem:
    url = urlsplit(endpoint or "")
    return fs.S3FileSystem(
        access_key=access_key,
        secret_key=secret_key,
        session_token=token,
        region=region,
        endpoint_override=url.netloc or None,
        scheme=url.scheme or None,
    )


def check_answers(path: str) -> None:
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


def _is_aws(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu"))
