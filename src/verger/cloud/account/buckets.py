"""Where buckets are: looked up and not believed."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from verger.errors import InputError, RefusedError
from verger.store.client import s3_client
from verger.store.errors import aws_errors, bucket_errors
from verger.store.regions import EU_REGIONS, check_endpoint, check_region


def check_store() -> None:
    """Refuse to list, read or send images elsewhere: they go through a client of their own.

    Raises:
        RefusedError: its region or its endpoint is not inside the European Union.
    """
    meta = s3_client().meta
    check_region(meta.region_name)
    check_endpoint(meta.endpoint_url, meta.region_name)


def check_buckets(session: Any, buckets: Iterable[str]) -> dict[str, str]:
    """Ask S3 for the region of each bucket, and refuse those outside the European Union.

    Raises:
        RefusedError: one is outside, or S3 does not say where it is.
        InputError: one is missing or forbidden.
        SetupError: there are no valid credentials, or S3 does not answer.
    """
    client = session.client("s3")
    regions: dict[str, str] = {}
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
        regions[bucket] = region
    return regions


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


def check_is_free(session: Any, bucket: str) -> None:
    """See that a bucket can be made under this name.

    Raises:
        InputError: it is no name, or taken.
        SetupError: there are no valid credentials, or S3 does not answer.
    """
    from botocore.exceptions import ClientError, ParamValidationError

    with aws_errors("look for the bucket"):
        try:
            session.client("s3").head_bucket(Bucket=bucket)
        except ParamValidationError as error:
            raise InputError(
                f"{bucket!r} cannot be the name of a bucket.",
                "3 to 63 small letters, digits and hyphens, and a letter or digit at both ends.",
            ) from error
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.NOT_FOUND:
                return
            session.client("sts").get_caller_identity()  # it is not the credentials
            raise InputError(
                f"The name {bucket} is taken by someone else's bucket.",
                "The names of buckets are unique in the world: give another one.",
            ) from error
    raise InputError(
        f"The bucket {bucket} is there already, and no stack of verger has it.",
        f"Give a new name to --bucket, and have jobs use this one too: --also {bucket}",
    )
