"""CloudFormation: one stack is described, made, changed and waited for."""

from importlib.resources import files
from typing import Any

from verger.errors import SetupError
from verger.store.errors import aws_errors

STACK_NAME = "verger"

TAGS = {
    "application": "verger",
    # AWS' own policy for EMR's service role lets it touch only what has this tag.
    "for-use-with-amazon-emr-managed-policies": "true",
}
"""On all that the stack makes. A cluster needs both tags, or its roles may not touch it."""

FAILED = {"CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED"}
"""States from which a stack can only be deleted."""

POLL_SECONDS = 5
"""Between two looks at a stack that is made or removed."""


def template() -> str:
    """The template of the stack."""
    return files("verger.cloud.account").joinpath("stack.yaml").read_text()


def describe(client: Any) -> dict[str, Any] | None:
    """What CloudFormation says of the stack; None where there is none.

    Raises:
        SetupError: AWS refuses.
    """
    from botocore.exceptions import ClientError

    with aws_errors("describe the stack"):
        try:
            described: dict[str, Any] = client.describe_stacks(StackName=STACK_NAME)["Stacks"][0]
        except ClientError as error:
            # The code that a missing stack shares with wrong parameters; moto says "not found".
            if "does not exist" in str(error):
                return None
            raise
    return described


def outputs_of(described: dict[str, Any]) -> dict[str, str]:
    """The outputs of a stack by their names, of what `describe` gives."""
    return {one["OutputKey"]: one["OutputValue"] for one in described.get("Outputs", ())}


def parameters_of(described: dict[str, Any]) -> dict[str, str]:
    """The same of its parameters."""
    return {one["ParameterKey"]: one["ParameterValue"] for one in described.get("Parameters", ())}


def apply(
    client: Any,
    described: dict[str, Any] | None,
    parameters: dict[str, str | None],
    tags: dict[str, str],
) -> None:
    """Make the stack, or change the one that `describe` gave, and wait; some minutes.

    Args:
        client: of boto3.
        described: the stack that there is; None for none.
        parameters: their values; None for the one that the stack has.
        tags: of all that it makes.

    Raises:
        SetupError: AWS refuses, or a resource fails; it is named.
    """
    from botocore.exceptions import ClientError

    request: dict[str, Any] = {
        "StackName": STACK_NAME,
        "TemplateBody": template(),
        "Parameters": [
            {"ParameterKey": name}
            | ({"UsePreviousValue": True} if value is None else {"ParameterValue": value})
            for name, value in parameters.items()
        ],
        "Capabilities": ["CAPABILITY_IAM"],
        "Tags": [{"Key": name, "Value": value} for name, value in tags.items()],
    }
    with aws_errors("make the stack"):
        if described is None:
            made = client.create_stack(**request, OnFailure="DELETE")
            wait(client, made["StackId"], "stack_create_complete")
            return
        try:
            client.update_stack(**request)
        except ClientError as error:
            if "No updates are to be performed" in str(error):
                return
            raise
        wait(client, described["StackId"], "stack_update_complete")


def wait(client: Any, stack_id: str, state: str) -> None:
    """Wait for a state; some minutes.

    Raises:
        SetupError: it is not reached; names the first resource that failed, and why.
    """
    from botocore.exceptions import WaiterError

    try:
        client.get_waiter(state).wait(
            StackName=stack_id, WaiterConfig={"Delay": POLL_SECONDS, "MaxAttempts": 240}
        )
    except WaiterError as error:
        events = client.describe_stack_events(StackName=stack_id)["StackEvents"]
        begun = f"{state.split('_')[1].upper()}_IN_PROGRESS"
        cause: dict[str, Any] = {}
        # Latest first; all that fails after the first is only a consequence.
        for event in events:
            if event["ResourceStatus"].endswith("_FAILED"):
                cause = event
            if (event.get("PhysicalResourceId"), event["ResourceStatus"]) == (stack_id, begun):
                break  # what is older failed another time
        what = cause.get("LogicalResourceId", "the stack")
        why = cause.get("ResourceStatusReason", str(error))
        raise SetupError(
            f"{what} failed: {why}",
            "If a cluster uses it: verger cloud stop. Then give the same command again.",
        ) from error
