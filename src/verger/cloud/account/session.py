"""Sessions of AWS: in the European Union only, and what their errors mean."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from verger.cloud.account.regions import check_endpoint, check_region
from verger.errors import SetupError
from verger.store.client import DEFAULT_REGION
from verger.store.errors import credentials_problem, no_credentials

GUARDED = ("cloudformation", "ec2", "emr", "s3", "scheduler")
"""Services whose requests may not leave the European Union. IAM and Budgets, which see no image,
have one endpoint for the whole world."""


def make_session(region: str | None = None, profile: str | None = None) -> Any:
    """A session of boto3 that reaches AWS inside the European Union only.

    Args:
        region: where to work; by default AWS_REGION, or what the profile says.
        profile: of ~/.aws; by default AWS_PROFILE.

    Returns:
        A `boto3.Session`. Requests of its clients to a host elsewhere raise `RefusedError` before
        they are sent, whatever AWS_ENDPOINT_URL and the profile say.

    Raises:
        RefusedError: the region is not inside the European Union.
        SetupError: there are no credentials, or the AWS settings are damaged.
    """
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        session = boto3.Session(profile_name=profile)
        name = region or os.environ.get("AWS_REGION") or session.region_name or DEFAULT_REGION
        check_region(name)
        if name != session.region_name:
            session = boto3.Session(profile_name=profile, region_name=name)
        credentials = session.get_credentials()
    except (BotoCoreError, ValueError) as error:
        raise SetupError(
            f"The AWS settings cannot be used: {error}.",
            "Look at AWS_PROFILE, AWS_REGION and ~/.aws.",
        ) from error
    if credentials is None:
        raise no_credentials()

    def check(request: Any, event_name: str, **_: Any) -> None:
        # Asking where a bucket is may lead to where it is; nothing is sent there but its name.
        if not event_name.endswith(".HeadBucket"):
            check_endpoint(request.url, name)

    for service in GUARDED:
        session.events.register(f"before-send.{service}", check)
    return session


@contextmanager
def aws_errors(action: str) -> Iterator[None]:
    """Say what an error of AWS means.

    Args:
        action: what was being done, as it goes on after "AWS refused to".

    Raises:
        SetupError: there are no valid credentials, a right is missing, a quota is reached, or AWS
            does not answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError as error:
        raise no_credentials() from error
    except ClientError as error:
        raise credentials_problem(error) or _meaning(error, action) from error
    except BotoCoreError as error:
        raise SetupError(
            f"AWS does not answer: {error}",
            "Look at the network and at AWS_REGION; the same command goes on.",
        ) from error


def _meaning(error: Any, action: str) -> SetupError:
    details = error.response.get("Error", {})
    code, message = details.get("Code", ""), details.get("Message", "")
    if code in _DENIED:
        hint = f"Give them the right to {error.operation_name}."
        return SetupError(f"AWS refused to {action}: the credentials may not.", hint)
    if "LimitExceeded" in code or "Quota" in code:
        hint = "Ask AWS for a higher quota (console, Service Quotas), or take fewer workers."
        return SetupError(f"AWS refused to {action}: a quota is reached ({message}).", hint)
    return SetupError(f"AWS refused to {action}: {message or code} ({code}).", "Try again.")


_DENIED = {
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "UnauthorizedException",
}
