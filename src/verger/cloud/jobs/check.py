"""What would stop a run, found before the first euro: one line for each thing, with its remedy."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from verger.cloud.account import limits, network, permissions
from verger.cloud.account.buckets import check_buckets
from verger.cloud.account.stack import Stack, find_stack
from verger.cloud.jobs.cluster import list_clusters
from verger.cloud.jobs.job import RELEASE
from verger.cloud.jobs.prepare import check_disk_key
from verger.cloud.money import prices
from verger.cloud.money.plan import PROCESSORS
from verger.errors import InputError, RefusedError, SetupError, VergerError
from verger.progress import Progress
from verger.store.regions import check_cloud_region

Level = Literal["ok", "note", "fails", "refused"]


@dataclass(frozen=True)
class Finding:
    """What was found of one thing.

    Attributes:
        what: the thing.
        level: whether a run can start in spite of it; `refused` is about places and money.
        found: how it is.
        remedy: what to do about it.
    """

    what: str
    level: Level
    found: str
    remedy: str = ""

    @property
    def stops(self) -> bool:
        """Whether no run can start."""
        return self.level in {"fails", "refused"}


def check_account(session: Any, arch: str = "arm64", *, bucket: str = "") -> Iterator[Finding]:
    """Look at an account, one thing after the other; nothing is made or changed.

    Where there is no stack yet, `bucket` is the one that will be made.

    Yields:
        One finding for each thing; the last one is a place or credentials that are refused.
    """
    region: str = session.region_name
    where = _found("Region", lambda: _region(region))
    yield where
    if where.stops:
        return
    try:
        caller = limits.who_asks(session)
    except SetupError as error:
        yield Finding("Credentials", "fails", error.message, error.hint)
        return
    yield _identity(caller)
    yield _found("Clock", lambda: _clock(caller))
    stack: Stack | None = None
    try:
        stack = find_stack(session)
        yield Finding("Set-up", "ok", f"bucket {stack.bucket}, {len(stack.subnets)} subnets")
    except SetupError as error:
        yield Finding("Set-up", "note", error.message, error.hint)
    yield _found("Rights", lambda: _rights(session, caller, stack, bucket))
    yield _found("Quotas", lambda: _quotas(session))
    yield _found("Machines", lambda: _machines(session, stack, arch))
    yield _found("Key of disks", lambda: _disk_key(session, stack))
    if (known := stack) is not None:
        yield _found("Buckets", lambda: _buckets(session, known))
    yield _found("Left behind", lambda: _left_behind(session))
    yield _found("Prices", lambda: _prices(region))


def check_before_run(session: Any, stack: Stack, progress: Progress) -> None:
    """Look, before anything is uploaded, at what else could stop a run or cost beside it.

    What does not stop it is only told.

    Raises:
        RefusedError, SetupError: a right is missing, or something was left that costs.
    """
    findings = [
        _found("Rights", lambda: _rights(session, limits.who_asks(session), stack)),
        _found("Left behind", lambda: _left_behind(session)),
    ]
    raise_first(findings)
    for one in findings:
        if one.level == "note":
            progress.note(f"{one.what}: {one.found}. {one.remedy}")


def raise_first(findings: list[Finding]) -> None:
    """Raise the first finding that stops a run, a refusal before all else.

    Raises:
        RefusedError, SetupError: there is one.
    """
    stopping = sorted(
        (one for one in findings if one.stops), key=lambda one: one.level != "refused"
    )
    if stopping:
        kind = RefusedError if stopping[0].level == "refused" else SetupError
        others = f" ({len(stopping)} things in all)" if stopping[1:] else ""
        raise kind(f"{stopping[0].what}: {stopping[0].found}{others}", stopping[0].remedy)


def _found(what: str, look: Callable[[], tuple[Level, str, str]]) -> Finding:
    try:
        return Finding(what, *look())
    except RefusedError as error:
        return Finding(what, "refused", error.message, error.hint)
    except VergerError as error:
        return Finding(what, "fails", error.message, error.hint)


def _identity(caller: dict[str, Any]) -> Finding:
    name = caller["Arn"].rpartition(":")[2]
    if name == "root":
        remedy = "Make a user or a role with verger's policies: verger cloud policy run"
        found = f"the root of account {caller['Account']}, which may do all"
        return Finding("Credentials", "note", found, remedy)
    return Finding("Credentials", "ok", f"{name} of account {caller['Account']}")


def _clock(caller: dict[str, Any]) -> tuple[Level, str, str]:
    limits.check_clock(caller)
    return "ok", f"within {limits.CLOCK_SECONDS} seconds of AWS'", ""


def _region(region: str) -> tuple[Level, str, str]:
    check_cloud_region(region)
    return "ok", region, ""


def _rights(
    session: Any, caller: dict[str, Any], stack: Stack | None, bucket: str = ""
) -> tuple[Level, str, str]:
    buckets = stack.buckets if stack else (bucket,) if bucket else ()
    wanted = permissions.policy("run", buckets, caller["Account"])
    if not buckets:
        permissions.without_buckets(wanted)
    if stack is not None:
        permissions.name_roles(wanted, stack)
    try:
        missing = permissions.missing_rights(session, caller["Arn"], wanted)
    except SetupError as error:
        return "note", f"not known: {error.message}", "What is needed: verger cloud policy run"
    if missing:
        return "fails", f"missing: {', '.join(missing)}", "Give them: verger cloud policy run"
    rest = "" if buckets else ", but those to its bucket"
    return "ok", f"all that a run needs{rest}, as AWS simulates it", ""


def _quotas(session: Any) -> tuple[Level, str, str]:
    quotas = limits.read_quotas(session)
    full, spot = quotas[limits.ON_DEMAND_QUOTA], quotas[limits.SPOT_QUOTA]
    if full.free < PROCESSORS:
        raise limits.too_small(full, PROCESSORS, session.region_name)
    said = f"{full.processors} processors on demand ({full.used} in use), {spot.processors} spot"
    machines = limits.largest_cluster(quotas, PROCESSORS, spot=False)
    size = f"{machines - 1} workers at most" if machines > 1 else "one machine, primary and worker"
    if machines <= FEW_MACHINES:
        remedy = limits.what_to_ask_for(full, 8 * PROCESSORS, session.region_name)
        return "note", f"{said}: {size}", remedy
    return "ok", f"{said}: {size}", ""


FEW_MACHINES = 4
"""With so many a large run takes long, and whoever wants more has to ask days before."""


def _machines(session: Any, stack: Stack | None, arch: str) -> tuple[Level, str, str]:
    takes = limits.supported_machines(session, RELEASE)
    wanted = prices.MACHINES[arch]
    if stack is None:
        zones = limits.offered_machines(session, wanted)
    else:
        found = limits.find_zones(session, stack.subnets, wanted)
        zones = {zone.name: zone.machines for zone in found}
    having = {name: machines & takes for name, machines in zones.items()}
    prices.load().machines(session.region_name, arch, frozenset[str]().union(*having.values()))
    said = "; ".join(
        f"{name}: {', '.join(one for one in wanted if one in machines) or 'none'}"
        for name, machines in sorted(having.items())
    )
    if sum(map(bool, having.values())) == 1:
        return "note", said, "One zone only has them: when it is full, nothing starts."
    return "ok", said, ""


def _disk_key(session: Any, stack: Stack | None) -> tuple[Level, str, str]:
    key = limits.default_disk_key(session)
    if stack is not None:
        check_disk_key(stack, key)
    if key:
        return "note", f"{key}, of yours", "Its own policy must allow EMR's role to use it."
    return "ok", "AWS' own, or none", ""


def _buckets(session: Any, stack: Stack) -> tuple[Level, str, str]:
    for bucket, where in check_buckets(session, stack.buckets).items():
        if where != stack.region:
            raise InputError(
                f"{bucket} is in {where}, not in {stack.region}.",
                "Machines read and write in their own region only: copy it.",
            )
    return "ok", f"{', '.join(stack.buckets)} in {stack.region}", ""


def _left_behind(session: Any) -> tuple[Level, str, str]:
    running = [one.title for one in list_clusters(session, session.region_name)]
    endpoints = [
        endpoint
        for where in network.find_networks(session)
        for endpoint in network.find_endpoints(session, where)
    ]
    if endpoints:
        remedy = (
            "They cost by the hour. Delete them in the console, or, keeping the data: "
            f"verger cloud destroy --region {session.region_name}, then init"
        )
        return "fails", "; ".join([f"endpoints {', '.join(endpoints)}", *running]), remedy
    if running:
        return "note", f"{', '.join(running)}, which costs money", "verger cloud stop"
    return "ok", "nothing that costs", ""


def _prices(region: str) -> tuple[Level, str, str]:
    known = prices.load()
    if caution := known.caution(region):
        return "note", caution, "verger cloud prices --refresh"
    return "ok", f"of {known.dated_in(region)}, from AWS' list", ""
