"""The clock in the account: it ends a cluster though the laptop is shut and the driver hangs."""

import json
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from verger.cloud.account.cloudformation import STACK_NAME
from verger.cloud.account.stack import Stack
from verger.store.errors import aws_errors

RETRIES = 10
"""Of EventBridge Scheduler, within an hour, should EMR not answer."""


def schedule_request(stack: Stack, cluster: str, at: datetime) -> dict[str, Any]:
    """What EventBridge Scheduler is asked: TerminateJobFlows, once, and the schedule is gone."""
    from botocore.session import Session

    partition = Session().get_partition_for_region(stack.region)
    return {
        "Name": cluster,
        "GroupName": STACK_NAME,
        "Description": "Ends a cluster of verger whose money is spent.",
        "ScheduleExpression": f"at({at.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%S})",
        "ScheduleExpressionTimezone": "UTC",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ActionAfterCompletion": "DELETE",
        "Target": {
            "Arn": f"arn:{partition}:scheduler:::aws-sdk:emr:terminateJobFlows",
            "RoleArn": stack.scheduler_role,
            "Input": json.dumps({"JobFlowIds": [cluster]}),
            "RetryPolicy": {"MaximumEventAgeInSeconds": 3600, "MaximumRetryAttempts": RETRIES},
        },
    }


def create_schedule(session: Any, stack: Stack, cluster: str, at: datetime) -> None:
    """Have a cluster terminated at a time.

    Raises:
        SetupError: AWS refuses.
    """
    client = session.client("scheduler", region_name=stack.region)
    with aws_errors("make the schedule that ends the cluster"):
        client.create_schedule(**schedule_request(stack, cluster, at))


def delete_schedule(session: Any, region: str, cluster: str) -> None:
    """Take the schedule of a cluster away, if it is still there.

    Raises:
        SetupError: AWS refuses.
    """
    client = session.client("scheduler", region_name=region)
    with aws_errors("delete the schedule"), suppress(client.exceptions.ResourceNotFoundException):
        client.delete_schedule(Name=cluster, GroupName=STACK_NAME)
