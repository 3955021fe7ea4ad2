"""Where data may be: regions of AWS inside the European Union, looked up and not believed."""

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from verger.errors import InputError, RefusedError
from verger.store.client import s3_client
from verger.store.errors import bucket_errors

EU_REGIONS = {
    "eu-west-1": "Ireland",
    "eu-west-3": "Paris",
    "eu-central-1": "Frankfurt",
    "eu-north-1": "Stockholm",
    "eu-south-1": "Milan",
    "eu-south-2": "Spain",
    "eusc-de-east-1": "European Sovereign Cloud, Brandenburg",
}
"""London (eu-west-2) and Zurich (eu-central-2) are in Europe and not in the Union."""

OPT_IN = {"eu-south-1", "eu-south-2"}
"""Off in an account until somebody turns them on; AWS refuses all credentials there."""

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_AWS_HOST = re.compile(
    r"(?:.+\.)?(?P<region>(?!vpce\.)[a-z0-9-]+)\.(?:vpce\.)?(?:amazonaws\.com|amazonaws\.eu|api\.aws)"
)
"""Region and domain at the end: before them, a bucket may have any name, even that of a region."""


def check_region(region: str) -> None:
    """Refuse a region outside the European Union.

    Raises:
        RefusedError: it is none of `EU_REGIONS`.
    """
    if region not in EU_REGIONS:
        raise RefusedError(
            f"The region {region or '(none)'} is not inside the European Union.",
            f"Give one of {', '.join(EU_REGIONS)}.",
        )


def check_endpoint(url: str | None, region: str) -> None:
    """Refuse an endpoint that is neither AWS in the European Union nor this machine (for tests).

    Args:
        url: where requests go; None for AWS' own endpoint in the region.
        region: the region in use.

    Raises:
        RefusedError: requests would leave the European Union, or go unencrypted.
    """
    check_region(region)
    if url is None:
        return
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in _LOOPBACK:
        return
    match = _AWS_HOST.fullmatch(host)
    if match is None or match["region"] not in EU_REGIONS:
        raise RefusedError(
            f"The endpoint {host or url} is not AWS inside the European Union.",
            "Unset AWS_ENDPOINT_URL and endpoint_url in ~/.aws/config.",
        )
    if parts.scheme != "https":
        raise RefusedError(f"The endpoint {host} is not encrypted.", "Write https://.")


def check_store() -> None:
    """Refuse to list, read or send images elsewhere: they go through a client of their own.

    Raises:
        RefusedError: its region or its endpoint is not inside the European Union.
    """
    found = s3_client().meta
    check_region(found.region_name)
    check_endpoint(found.endpoint_url, found.region_name)


def check_buckets(session: Any, buckets: Iterable[str]) -> dict[str, str]:
    """Ask S3 where buckets are, and refuse those outside the European Union.

    Args:
        session: a session of boto3.
        buckets: their names.

    Returns:
        The region of each bucket.

    Raises:
        RefusedError: one is outside, or S3 does not say where it is.
        InputError: one is missing or forbidden.
        SetupError: there are no valid credentials, or S3 does not answer.
    """
    client = session.client("s3")
    found: dict[str, str] = {}
    for bucket in dict.fromkeys(buckets):
        region, problem = _look_up(client, bucket)
        if region is not None and region not in EU_REGIONS:
            raise RefusedError(
                f"The bucket {bucket} is in {region}, which is not inside the European Union.",
                f"Copy its images to a bucket in one of {', '.join(EU_REGIONS)}.",
            )
        if problem is not None:
            raise problem
        if region is None:
            raise RefusedError(
                f"S3 does not say in which region the bucket {bucket} is.",
                "Give a bucket of AWS, inside the European Union.",
            )
        found[bucket] = region
    return found


def _look_up(client: Any, bucket: str) -> tuple[str | None, InputError | None]:
    """The region of a bucket where S3 gives it, and why the bucket cannot be used.

    S3 names the region even of a bucket that it does not let us in.
    """
    from botocore.exceptions import ClientError, ParamValidationError

    region = None
    try:
        with bucket_errors(bucket):
            try:
                region = _region_of(client.head_bucket(Bucket=bucket))
            except ClientError as error:
                region = _region_of(error.response)
                if region in EU_REGIONS:
                    # An answer to HEAD has no body, and so no word on what is wrong.
                    client.list_objects_v2(Bucket=bucket, MaxKeys=1)
                raise
            except ParamValidationError as error:
                raise InputError(
                    f"{bucket!r} cannot be the name of a bucket.", "Write s3://bucket/prefix."
                ) from error
    except InputError as error:
        return region, error
    return region, None


def _region_of(answer: dict[str, Any]) -> str | None:
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = answer.get("BucketRegion") or headers.get("x-amz-bucket-region")
    return str(region) if region else None
