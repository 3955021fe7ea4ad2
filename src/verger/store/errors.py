"""What the errors of AWS mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from verger.errors import InputError, SetupError, VergerError
from verger.store.location import bucket_and_key


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
    code = error.response["Error"]["Code"]
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
    code, about = error.response["Error"]["Code"], error.response["ResponseMetadata"]
    status = about["HTTPStatusCode"]
    if problem := credentials_problem(error):
        return problem
    if code == "NoSuchKey" or (code == "404" and error.operation_name == "HeadObject"):
        return InputError(
            f"An object is missing in the bucket {bucket}.",
            "Look at its name, and whether it was deleted meanwhile.",
        )
    if status == HTTPStatus.NOT_FOUND:
        return InputError(f"The bucket {bucket} does not exist.", "Look at its name.")
    if status == HTTPStatus.MOVED_PERMANENTLY:
        where = about["HTTPHeaders"].get("x-amz-bucket-region", "another region")
        return InputError(f"The bucket {bucket} is in {where}.", f"Set AWS_REGION={where}.")
    if status == HTTPStatus.FORBIDDEN:
        return InputError(
            f"The bucket {bucket} is forbidden to these AWS credentials.",
            "Give them s3:ListBucket, s3:GetObject and, for an output, s3:PutObject and "
            "s3:DeleteObject.",
        )
    return SetupError(f"The store of {bucket} failed: {code}.", "Try again.")


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
        raise credentials_problem(error) or _meaning_of_aws(error, action) from error
    except BotoCoreError as error:
        raise SetupError(
            f"AWS does not answer: {error}",
            "Look at the network and at AWS_REGION; the same command goes on.",
        ) from error


def _meaning_of_aws(error: Any, action: str) -> SetupError:
    code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
    if code in _DENIED:
        hint = f"Give them the right to {error.operation_name}."
        return SetupError(f"AWS refused to {action}: the credentials may not.", hint)
    if "LimitExceeded" in code or "Quota" in code:
        hint = "Ask AWS for a higher quota (console, Service Quotas), or take fewer workers."
        return SetupError(f"AWS refused to {action}: a quota is reached ({message}).", hint)
    return SetupError(f"AWS refused to {action}: {message or code} ({code}).", "Try again.")


_DENIED = {
    "AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "UnauthorizedException",
}  # fmt: skip
