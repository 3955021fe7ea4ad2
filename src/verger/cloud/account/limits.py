"""What an account may start in a region, and what the region has: asked before anything starts."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from verger.errors import RefusedError, SetupError
from verger.progress import utc_now
from verger.store.errors import aws_errors

ON_DEMAND_QUOTA, SPOT_QUOTA = "L-1216C47A", "L-34B43A08"
"""Of processors in machines of the usual families (A, C, D, H, I, M, R, T, Z), by AWS' codes."""

QUOTA_NAMES = {
    ON_DEMAND_QUOTA: "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
    SPOT_QUOTA: "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
}

STANDARD = re.compile(r"([acdhimrtz]|im|is)\d")
"""How the types begin that these quotas count: inf1, trn1, hpc6a and others have their own."""

CLOCK_SECONDS = 60
"""What the clock here may be off: the end of a cluster is a time of day."""


@dataclass(frozen=True)
class Quota:
    """How many processors may run at once.

    Attributes:
        code: AWS' code of the quota.
        processors: the quota.
        used: by machines of the account that run or start now.
    """

    code: str
    processors: int
    used: int = 0

    @property
    def free(self) -> int:
        """What is left of it."""
        return max(self.processors - self.used, 0)


@dataclass(frozen=True)
class Zone:
    """A subnet, its availability zone, and the machines that the zone has."""

    subnet: str
    name: str
    machines: frozenset[str]


@dataclass(frozen=True)
class Capacity:
    """What a cluster may be made of.

    Attributes:
        machines: types that a zone has and EMR takes.
        subnets: ids of those in whose zone there is one of them.
        most_machines: how many at once, by the quotas.
        quotas: by their codes.
    """

    machines: frozenset[str]
    subnets: tuple[str, ...]
    most_machines: int
    quotas: dict[str, Quota]


def find_capacity(
    session: Any,
    subnets: Sequence[str],
    machines: Sequence[str],
    *,
    release: str,
    processors: int,
    spot: bool,
) -> Capacity:
    """What the account may start now.

    Args:
        session: a session of boto3, for the region where it would start.
        subnets: ids, of which EMR takes one.
        machines: types to choose from.
        release: of EMR.
        processors: of each of these machines.
        spot: whether workers may be spot machines.

    Raises:
        SetupError: AWS refuses to say, or no zone has one of the machines.
        RefusedError: the quota does not allow one machine.
    """
    takes = supported_machines(session, release)
    zones = find_zones(session, subnets, machines)
    found = frozenset[str]().union(*(zone.machines for zone in zones)) & takes
    if not found:
        raise SetupError(
            f"None of {', '.join(sorted({zone.name for zone in zones}))} has a machine that verger "
            f"takes ({', '.join(machines)}).",
            "Take another --arch, or a bucket in another region.",
        )
    quotas = read_quotas(session)
    most = largest_cluster(quotas, processors, spot=spot)
    if most < 1:
        raise too_small(quotas[ON_DEMAND_QUOTA], processors, session.region_name)
    usable = tuple(zone.subnet for zone in zones if zone.machines & takes)
    return Capacity(found, usable, most, quotas)


def too_small(quota: Quota, processors: int, region: str) -> RefusedError:
    """What to say where a quota does not allow one machine."""
    return RefusedError(
        f"The account may run {quota.processors} processors at once in {region}, "
        f"{quota.used} of which are in use; one machine has {processors}.",
        what_to_ask_for(quota, 2 * processors + quota.used, region),
    )


def who_asks(session: Any) -> dict[str, Any]:
    """What STS says of the credentials: their ARN and account, and the time of its answer.

    Raises:
        SetupError: AWS refuses.
    """
    with aws_errors("say who asks"):
        caller: dict[str, Any] = session.client("sts").get_caller_identity()
    return caller


def check_clock(caller: dict[str, Any]) -> None:
    """Refuse a clock by which machines would be ended too late or too early.

    Args:
        caller: what `who_asks` has just given.

    Raises:
        SetupError: it is off by more than `CLOCK_SECONDS`.
    """
    there = parsedate_to_datetime(caller["ResponseMetadata"]["HTTPHeaders"]["date"])
    off = (utc_now() - there).total_seconds()
    if abs(off) > CLOCK_SECONDS:
        raise SetupError(
            f"The clock of this machine is {abs(off) / 60:.0f} minutes "
            f"{'ahead of' if off > 0 else 'behind'} AWS'.",
            "Set it: machines are ended at a time of day.",
        )


def read_quotas(session: Any) -> dict[str, Quota]:
    """The quotas of processors on demand and spot, by their codes.

    Raises:
        SetupError: AWS refuses.
    """
    client = session.client("service-quotas")
    used = _used(session)
    found = {}
    for code in QUOTA_NAMES:
        with aws_errors("read the quotas of EC2"):
            try:
                answer = client.get_service_quota(ServiceCode="ec2", QuotaCode=code)
            except client.exceptions.NoSuchResourceException:
                # Nobody has ever changed it: the account has AWS' default.
                answer = client.get_aws_default_service_quota(ServiceCode="ec2", QuotaCode=code)
        found[code] = Quota(code, int(answer["Quota"]["Value"]), used[code])
    return found


def _used(session: Any) -> dict[str, int]:
    """Processors of machines that run or start, by the quota that counts them."""
    used = dict.fromkeys(QUOTA_NAMES, 0)
    pages = session.client("ec2").get_paginator("describe_instances")
    active = {"Name": "instance-state-name", "Values": ["pending", "running"]}
    with aws_errors("list the machines that run"):
        for one in pages.paginate(Filters=[active]).search("Reservations[].Instances[]"):
            if STANDARD.match(one["InstanceType"]):
                spot = one.get("InstanceLifecycle") == "spot"
                count = one["CpuOptions"]["CoreCount"] * one["CpuOptions"]["ThreadsPerCore"]
                used[SPOT_QUOTA if spot else ON_DEMAND_QUOTA] += count
    return used


def supported_machines(session: Any, release: str) -> frozenset[str]:
    """The types of machine that a release of EMR takes in the session's region.

    Raises:
        SetupError: AWS refuses.
    """
    client = session.client("emr")
    found: set[str] = set()
    asked: dict[str, str] = {"ReleaseLabel": release}
    with aws_errors("list the machines that EMR takes"):
        while True:
            page = client.list_supported_instance_types(**asked)
            found |= {one["Type"] for one in page.get("SupportedInstanceTypes", ())}
            if not page.get("Marker"):
                return frozenset(found)
            asked["Marker"] = page["Marker"]


def offered_machines(session: Any, machines: Iterable[str]) -> dict[str, frozenset[str]]:
    """Which of some types of machine each zone of the session's region has.

    Raises:
        SetupError: AWS refuses.
    """
    client = session.client("ec2")
    offered: dict[str, set[str]] = {}
    with aws_errors("list the machines that the zones have"):
        pages = client.get_paginator("describe_instance_type_offerings").paginate(
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": list(machines)}],
        )
        for offer in pages.search("InstanceTypeOfferings[]"):
            offered.setdefault(offer["Location"], set()).add(offer["InstanceType"])
    return {zone: frozenset(types) for zone, types in offered.items()}


def find_zones(session: Any, subnets: Sequence[str], machines: Iterable[str]) -> tuple[Zone, ...]:
    """The zone of each subnet, and which of some types of machine it has.

    Raises:
        SetupError: AWS refuses, or a subnet is gone.
    """
    client = session.client("ec2")
    with aws_errors("look up the subnets"):
        described = client.describe_subnets(SubnetIds=list(subnets))["Subnets"]
    names = {one["SubnetId"]: one["AvailabilityZone"] for one in described}
    offered = offered_machines(session, machines)
    return tuple(
        Zone(subnet, names[subnet], offered.get(names[subnet], frozenset())) for subnet in subnets
    )


def default_disk_key(session: Any) -> str:
    """The customer's own key with which AWS encrypts new disks; empty where there is none.

    Raises:
        SetupError: AWS refuses.
    """
    client = session.client("ec2")
    with aws_errors("look up the encryption of new disks"):
        if not client.get_ebs_encryption_by_default()["EbsEncryptionByDefault"]:
            return ""
        key = str(client.get_ebs_default_kms_key_id()["KmsKeyId"])
    return "" if "alias/aws/" in key else key


def what_to_ask_for(quota: Quota, processors: int, region: str) -> str:
    """How a quota is raised, in words."""
    return (
        f"Ask AWS for {processors} processors: console, Service Quotas, Amazon EC2, "
        f"{QUOTA_NAMES[quota.code]!r} ({quota.code}) in {region}. It takes minutes to days."
    )


def largest_cluster(quotas: dict[str, Quota], processors: int, *, spot: bool) -> int:
    """How many machines of so many processors the quotas allow at once.

    Spot machines that are not to be had are replaced by others on demand, so that those count too.
    """
    machines = quotas[ON_DEMAND_QUOTA].free // processors
    # One worker and the primary machine are never spot machines.
    return min(machines, quotas[SPOT_QUOTA].free // processors + 2) if spot else machines
