"""What has to be in the account before a cluster can run: a stack of CloudFormation."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from verger.cloud.account import cloudformation
from verger.cloud.account.buckets import check_buckets, check_is_free
from verger.cloud.account.cloudformation import TAGS, outputs_of, parameters_of
from verger.cloud.account.limits import default_disk_key
from verger.cloud.account.network import find_networks, find_subnets, free_network
from verger.cloud.account.owned import NOTHING_OWNED, Owned
from verger.errors import InputError, SetupError
from verger.progress import TIME, Time
from verger.store.errors import aws_errors
from verger.store.regions import check_cloud_region

OWN = "_verger"
LOGS, CODE, TEMPORARY = "_verger/logs", "_verger/code", "_verger/tmp"
"""Prefixes in the stack's bucket: the rules of the bucket delete what is in them after 30, 30 and
7 days."""

ALIVE = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING", "TERMINATING"]
"""States of a cluster that has machines, or will have."""


@dataclass(frozen=True)
class Stack:
    """What `verger cloud init` made.

    Attributes:
        region: where all of it is.
        account: its number.
        bucket: the stack's own.
        buckets: all that the roles may read and write, the stack's own first.
        service_role: name of EMR's own role.
        instance_profile: name of the profile of a cluster's machines.
        scheduler_role: ARN of the role that may terminate our clusters.
        subnets: ids of the private subnets, in two or three zones.
        security_configuration: name of EMR's security configuration.
        disk_key: the key of the customer's that EMR's role may use for disks; empty without one.
        prefix: before the keys of code and logs.
        cluster_tags: of the customer's, for clusters.
    """

    region: str
    account: str
    bucket: str
    buckets: tuple[str, ...]
    service_role: str
    instance_profile: str
    scheduler_role: str
    subnets: tuple[str, ...]
    security_configuration: str
    disk_key: str = ""
    prefix: str = ""
    cluster_tags: tuple[tuple[str, str], ...] = ()

    def key(self, *parts: str) -> str:
        """The key of what verger keeps in the bucket for itself."""
        return self.prefix + "/".join(parts)

    def init_command(self, *more: str) -> str:
        """What brings it up to date, and lets jobs use more buckets."""
        also = "".join(f" --also {name}" for name in (*self.buckets[1:], *more))
        return f"verger cloud init --bucket {self.bucket} --region {self.region}{also}"


def find_stack(session: Any) -> Stack:
    """What `verger cloud init` made in the region of a session.

    Raises:
        SetupError: nothing, or not all of it yet.
        RefusedError: the region is not inside the European Union.
    """
    region: str = session.region_name
    check_cloud_region(region)
    described = cloudformation.describe(session.client("cloudformation")) or {}
    outputs = outputs_of(described)
    if not outputs:
        raise SetupError(
            f"There is nothing of verger in {region} yet.",
            f"Make it: verger cloud init --bucket NAME --region {region}",
        )

    def output(name: str) -> str:
        if name not in outputs:
            raise SetupError(
                f"The stack in {region} is {described['StackStatus']} and has no {name}.",
                "Give the command of `verger cloud init` again.",
            )
        return outputs[name]

    # CloudFormation has no empty outputs.
    tags = [tag.partition("=") for tag in output("ClusterTags").split(",") if tag]
    return Stack(
        region=region,
        account=output("Account"),
        bucket=output("Bucket"),
        buckets=tuple(output("Buckets").split(",")),
        service_role=output("ServiceRole"),
        instance_profile=output("InstanceProfile"),
        scheduler_role=output("SchedulerRole"),
        subnets=tuple(output("Subnets").split(",")),
        security_configuration=output("SecurityConfiguration"),
        disk_key=outputs.get("DiskKey", ""),
        prefix=output("Prefix").removeprefix("/"),
        cluster_tags=tuple((key, value) for key, _, value in tags),
    )


def create_stack(
    session: Any,
    bucket: str,
    *,
    others: Iterable[str] = (),
    owned: Owned = NOTHING_OWNED,
) -> Stack:
    """Make the stack, or bring it up to date; the same call again changes nothing.

    Args:
        session: a session of boto3, for the region where it is made, inside the European Union.
        bucket: the bucket that is made, a name that nobody else has.
        others: buckets of this account that jobs may use too, in the same region.
        owned: what is there already and is not made.

    Raises:
        RefusedError: the region or a bucket is not inside the European Union.
        InputError: the bucket's name is taken, or another one is missing, forbidden or elsewhere.
        SetupError: AWS refuses, or the stack cannot be made; a failed one is taken away again.
    """
    region: str = session.region_name
    check_cloud_region(region)
    others = list(dict.fromkeys(others))
    theirs = [bucket] if owned.bucket else []
    for other, where in check_buckets(session, [*theirs, *others]).items():
        if where != region:
            raise InputError(
                f"The bucket {other} is in {where}, the stack in {region}.",
                f"Machines read in their own region only: verger cloud init --region {where}",
            )
    client = session.client("cloudformation")
    described = cloudformation.describe(client)
    if described is not None and described["StackStatus"] in cloudformation.FAILED:
        delete_stack(session)
        described = None
    before = parameters_of(described or {})
    if described is None:
        if not owned.bucket:
            check_is_free(session, bucket)
    elif (made := before.get("Bucket")) != bucket:
        raise InputError(
            f"verger's bucket in {region} is {made}, not {bucket}.",
            f"Give --bucket {made}, or first: verger cloud destroy --region {region}",
        )
    names = [bucket, *(other for other in others if other != bucket)]
    partition = session.get_partition_for_region(region)
    arns = [f"arn:{partition}:s3:::{name}" for name in names]
    # What it knew of those things it keeps where nothing else is said.
    kept = before if owned == NOTHING_OWNED else {}
    cloudformation.apply(
        client,
        described,
        {
            "Bucket": bucket,
            "Buckets": ",".join(names),
            "BucketArns": ",".join(arns),
            "ObjectArns": ",".join(f"{arn}/*" for arn in arns),
            # A subnet cannot move: where the region has got another zone, they stay as they are.
            "Zones": None if "Zones" in before else ",".join(_three_zones(session)),
            "DiskKey": owned.kms_key or default_disk_key(session),
            **{name: kept.get(name, value) for name, value in owned.parameters.items()},
        },
        {**owned.tags, **TAGS},
    )
    return find_stack(session)


def encrypt_disks(session: Any) -> None:
    """Have AWS encrypt all new disks of the account there, those of clusters among them.

    EMR's own encryption of disks needs a key service that a network without internet reaches only
    through an endpoint that is paid by the hour.

    Raises:
        SetupError: AWS refuses.
    """
    with aws_errors("encrypt new disks"):
        session.client("ec2").enable_ebs_encryption_by_default()


def running_clusters(session: Any) -> list[str]:
    """The ids of clusters that are not over and are verger's, or have machines in its network.

    Raises:
        SetupError: AWS refuses.
    """
    subnets = find_subnets(session)
    client = session.client("emr")
    with aws_errors("list the clusters"):
        pages = client.get_paginator("list_clusters").paginate(ClusterStates=ALIVE)
        described = [
            client.describe_cluster(ClusterId=running)["Cluster"]
            for running in pages.search("Clusters[].Id")
        ]
    return [
        running["Id"]
        for running in described
        if running.get("Ec2InstanceAttributes", {}).get("Ec2SubnetId") in subnets
        or {"Key": "application", "Value": TAGS["application"]} in running.get("Tags", ())
    ]


@dataclass(frozen=True)
class Kept:
    """The bucket of a stack.

    Attributes:
        bucket: its name.
        is_ours: whether the stack made it; what was there before is never deleted.
        own: prefix of what verger keeps there for itself.
    """

    bucket: str
    is_ours: bool
    own: str


def kept_bucket(session: Any) -> Kept | None:
    """The bucket of a stack in whatever state it is; None where nothing is left of it.

    Raises:
        SetupError: AWS refuses.
    """
    client = session.client("cloudformation")
    given = parameters_of(cloudformation.describe(client) or {})
    if "Bucket" not in given:
        return None
    return Kept(given["Bucket"], given.get("OwnBucket") != "yes", f"{given.get('Prefix', '')}{OWN}")


def delete_stack(session: Any, time: Time = TIME) -> None:
    """Take the stack away, and what EMR left in its network; its bucket stays, with what is in it.

    Where a part of the stack is gone already, what is left is taken away.

    Raises:
        SetupError: AWS refuses, or a cluster still uses the stack.
    """
    client = session.client("cloudformation")
    for network in find_networks(session):
        free_network(session, network, time)
    described = cloudformation.describe(client)
    if described is None:
        return
    with aws_errors("delete the stack"):
        client.delete_stack(StackName=described["StackId"])
        cloudformation.wait(client, described["StackId"], "stack_delete_complete")


def _three_zones(session: Any) -> list[str]:
    """Availability zones for three subnets; some twice where the region has fewer."""
    client = session.client("ec2")
    with aws_errors("list the zones"):
        found = client.describe_availability_zones(
            Filters=[
                {"Name": "zone-type", "Values": ["availability-zone"]},
                {"Name": "state", "Values": ["available"]},
            ]
        )["AvailabilityZones"]
    names = sorted(zone["ZoneName"] for zone in found)
    return [names[number % len(names)] for number in range(3)]
