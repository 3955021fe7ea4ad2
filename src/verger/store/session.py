"""The one door to AWS: sessions of boto3, which reach the European Union only where that is asked.

Credentials come from the AWS chain alone (environment, profile, role), and endpoint and region
from its standard settings; none of them is an option of verger, and none is ever shown.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from verger.errors import SetupError
from verger.store.errors import no_credentials
from verger.store.regions import check_endpoint, check_region

GUARDED = ("cloudformation", "ec2", "emr", "s3", "scheduler", "service-quotas")
"""Services whose requests may not leave the European Union. IAM and Budgets, which see no image,
have one endpoint for the whole world; so may STS, which says who asks."""


def make_session(region: str | None = None, *, inside_eu: bool = True) -> Any:
    """A session of boto3.

    Args:
        region: where to work; by default AWS_REGION, or what the profile says.
        inside_eu: requests of its clients to a host outside the European Union raise
            `RefusedError` before they are sent, whatever AWS_ENDPOINT_URL and the profile say; and
            there must be credentials.

    Raises:
        RefusedError: the region is not inside the European Union.
        SetupError: no region is set, there are no credentials, or the AWS settings are damaged.
    """
    import boto3

    with settings_errors():
        # boto3 itself knows AWS_DEFAULT_REGION and the profile only.
        session = boto3.Session(region_name=region or os.environ.get("AWS_REGION") or None)
        name = session.region_name
        if not name:
            # A guess would look elsewhere.
            raise SetupError(
                "No AWS region is set.",
                "Set AWS_REGION to the region of the bucket, such as eu-west-3, or give --region.",
            )
        if inside_eu:
            check_region(name)
        has_credentials = session.get_credentials() is not None
    if inside_eu and not has_credentials:
        raise no_credentials()
    for service in GUARDED if inside_eu else ():
        session.events.register(f"before-send.{service}", _guard(name))
    return session


@contextmanager
def settings_errors() -> Iterator[None]:
    """Say that the AWS settings cannot be used, where that is what boto3 says.

    Raises:
        SetupError: a profile does not exist, or the settings are damaged.
    """
    from botocore.exceptions import BotoCoreError

    try:
        yield
    except (BotoCoreError, ValueError) as error:
        raise SetupError(
            f"The AWS settings cannot be used: {error}.",
            "Look at AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL and ~/.aws.",
        ) from error


def _guard(region: str) -> Any:
    def check(request: Any, event_name: str, **_: Any) -> None:
        # Asking where a bucket is may lead to where it is; nothing is sent there but its name.
        if not event_name.endswith(".HeadBucket"):
            check_endpoint(request.url, region)

    return check
