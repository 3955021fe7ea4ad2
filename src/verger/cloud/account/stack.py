"""What has to be in the account before a cluster can run: a stack of CloudFormation."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from verger.cloud.account.buckets import check_buckets
from verger.cloud.account.machines import free_network
from verger.errors import InputError, SetupError
from verger.store.errors import aws_errors
from verger.store.regions import check_region

STACK_NAME = "verger"

TAGS = {
    "application": "verger",
    # AWS' own policy for EMR's service role lets it touch only what has this tag.
    "for-use-with-amazon-emr-managed-policies": "true",
}
"""On all that the stack makes. A cluster needs both tags, or its roles may not touch it."""

LOGS, CODE, TEMPORARY = "_verger/logs", "_verger/code", "_verger/tmp"
"""Prefixes in the stack's bucket: the rules of the bucket delete what is in them after 30, 30 and
7 days."""


ALIVE = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING", "TERMINATING"]
"""States of a cluster that has machines, or will have."""


@dataclass(frozen=True)
class Stack:
    """What `verger cloud init` made.

    Attributes:
        name: of the stack.
        region: where all of it is.
        account: its number.
        bucket: the stack's own.
        buckets: all that the roles may read and write, the stack's own first.
        service_role: name of EMR's own role.
        instance_profile: name of the profile of a cluster's machines.
        scheduler_role: ARN of the role that may terminate our clusters.
        subnet: id of the private subnet.
        security_configuration: name of EMR's security configuration.
        schedule_group: name of EventBridge Scheduler's group.
    """

    name: str
    region: str
    account: str
    bucket: str
    buckets: tuple[str, ...]
    service_role: str
    instance_profile: str
    scheduler_role: str
    subnet: str
    security_configuration: str
    schedule_group: str


def template() -> str:
    """The template of the stack."""
    return files("verger.cloud.account").joinpath("stack.yaml").read_text()


def find_stack(session: Any, region: str) -> Stack:
    """What `verger cloud init` made in a region.

    Raises:
        SetupError: nothing, or not all of it yet.
        RefusedError: the region is not inside the European Union.
    """
    check_region(region)
    described = _describe(_client(session, region))
    if described is None or "OutputKey" not in str(described.get("Outputs")):
        raise SetupError(
            f"There is nothing of verger in {region} yet.",
            f"Make it: verger cloud init --bucket NAME --region {region}",
        )
    return _stack_of(described, region)


def create_stack(
    session: Any,
    region: str,
    bucket: str,
    *,
    others: Iterable[str] = (),
) -> Stack:
    """Make the stack, or bring it up to date; the same call again changes nothing.

    Args:
        session: a session of boto3.
        region: where to make it, inside the European Union.
        bucket: the bucket that is made, a name that nobody else has.
        others: buckets of this account that jobs may use too, in the same region.

    Raises:
        RefusedError: the region or a bucket is not inside the European Union.
        InputError: the bucket's name is taken, or another one is missing, forbidden or elsewhere.
        SetupError: AWS refuses, or the stack cannot be made; a failed one is taken away again.
    """
    check_region(region)
    others = list(dict.fromkeys(others))
    for other, where in check_buckets(session, others).items():
        if where != region:
            raise InputError(
                f"The bucket {other} is in {where}, the stack in {region}.",
                f"Machines read in their own region only: verger cloud init --region {where}",
            )
    client = _client(session, region)
    described = _describe(client)
    if described is not None and described["StackStatus"] in _FAILED:
        delete_stack(session, region)
        described = None
    if described is None:
        _check_is_free(session, bucket)
    elif (made := _outputs(described).get("Bucket")) != bucket:
        raise InputError(
            f"verger's bucket in {region} is {made}, not {bucket}.",
            f"Give --bucket {made}, or first: verger cloud destroy --region {region}",
        )
    names = [bucket, *(other for other in others if other != bucket)]
    _apply(
        client,
        described,
        {
            "Bucket": bucket,
            "Buckets": ",".join(names),
            "BucketArns": ",".join(_arn(region, name) for name in names),
            "ObjectArns": ",".join(f"{_arn(region, name)}/*" for name in names),
        },
    )
    return find_stack(session, region)


def running_clusters(session: Any, stack: Stack) -> list[str]:
    """The ids of clusters that are not over and have machines in the stack's network.

    Raises:
        SetupError: AWS refuses.
    """
    client = session.client("emr", region_name=stack.region)
    with aws_errors("list the clusters"):
        pages = client.get_paginator("list_clusters").paginate(ClusterStates=ALIVE)
        ids = [running["Id"] for page in pages for running in page["Clusters"]]
        described = [client.describe_cluster(ClusterId=running)["Cluster"] for running in ids]
    return [
        running["Id"]
        for running in described
        if running.get("Ec2InstanceAttributes", {}).get("Ec2SubnetId") == stack.subnet
    ]


def delete_stack(session: Any, region: str) -> None:
    """Take the stack away; its bucket stays, with what is in it.

    Raises:
        SetupError: AWS refuses, or a cluster still uses the stack.
    """
    client = _client(session, region)
    described = _describe(client)
    if described is None:
        return
    if network := _outputs(described).get("Network"):
        free_network(session, region, network)
    with aws_errors("delete the stack"):
        client.delete_stack(StackName=described["StackId"])
        _wait(client, described["StackId"], "stack_delete_complete")


_FAILED = {"CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED"}
"""States from which a stack can only be deleted."""

_POLL_SECONDS = 5


def _client(session: Any, region: str) -> Any:
    return session.client("cloudformation", region_name=region)


def _describe(client: Any) -> dict[str, Any] | None:
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


def _outputs(described: dict[str, Any]) -> dict[str, str]:
    return {
        outputs["OutputKey"]: outputs["OutputValue"] for outputs in described.get("Outputs", ())
    }


def _stack_of(described: dict[str, Any], region: str) -> Stack:
    outputs = _outputs(described)
    values: dict[str, Any] = {
        field.name: outputs.get(field.name.title().replace("_", "")) for field in fields(Stack)
    }
    values |= {"name": described["StackName"], "region": region}
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise SetupError(
            f"The stack {described['StackName']} in {region} is {described['StackStatus']} and "
            f"has no {missing[0]}.",
            "Give the command of `verger cloud init` again.",
        )
    return Stack(**{**values, "buckets": tuple(values["buckets"].split(","))})


def _arn(region: str, bucket: str) -> str:
    from botocore.session import Session

    return f"arn:{Session().get_partition_for_region(region)}:s3:::{bucket}"


def _check_is_free(session: Any, bucket: str) -> None:
    """See that a bucket can be made under this name."""
    from botocore.exceptions import ClientError, ParamValidationError

    try:
        session.client("s3").head_bucket(Bucket=bucket)
    except ParamValidationError as error:
        raise InputError(
            f"{bucket!r} cannot be the name of a bucket.",
            "3 to 63 small letters, digits and hyphens, and a letter or digit at both ends.",
        ) from error
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status == HTTPStatus.NOT_FOUND:
            return
        with aws_errors("look for the bucket"):
            session.client("sts").get_caller_identity()  # it is not the credentials
        raise InputError(
            f"The name {bucket} is taken by someone else's bucket.",
            "The names of buckets are unique in the world: give another one.",
        ) from error
    raise InputError(
        f"The bucket {bucket} is there already, and verger has not made it.",
        f"Give a new name to --bucket, and have jobs use this one too: --also {bucket}",
    )


def _apply(client: Any, described: dict[str, Any] | None, parameters: dict[str, str]) -> None:
    from botocore.exceptions import ClientError

    request: dict[str, Any] = {
        "StackName": STACK_NAME,
        "TemplateBody": template(),
        "Parameters": [
            {"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()
        ],
        "Capabilities": ["CAPABILITY_IAM"],
        "Tags": [{"Key": name, "Value": value} for name, value in TAGS.items()],
    }
    with aws_errors("make the stack"):
        if described is None:
            made = client.create_stack(**request, OnFailure="DELETE")
            _wait(client, made["StackId"], "stack_create_complete")
            return
        try:
            client.update_stack(**request)
        except ClientError as error:
            if "No updates are to be performed" in str(error):
                return
            raise
        _wait(client, described["StackId"], "stack_update_complete")


def _wait(client: Any, stack_id: str, state: str) -> None:
    """Wait for a state; some minutes.

    Raises:
        SetupError: it is not reached; names the first resource that failed, and why.
    """
    from botocore.exceptions import WaiterError

    try:
        client.get_waiter(state).wait(
            StackName=stack_id, WaiterConfig={"Delay": _POLL_SECONDS, "MaxAttempts": 240}
        )
    except WaiterError as error:
        events = client.describe_stack_events(StackName=stack_id)["StackEvents"]
        failed = [event for event in events if event["ResourceStatus"].endswith("_FAILED")]
        # Latest first; all that fails after the first is only a consequence.
        cause = failed[-1] if failed else {}
        what = cause.get("LogicalResourceId", "the stack")
        why = cause.get("ResourceStatusReason", str(error))
        raise SetupError(
            f"{what} failed: {why}",
            "If a cluster uses it: verger cloud stop. Then give the same command again.",
        ) from error
