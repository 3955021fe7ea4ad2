"""What a run would take and cost, before a euro is spent."""

import math
from collections.abc import Collection
from dataclasses import dataclass

from verger.cloud.money.prices import MACHINES, Prices, load
from verger.errors import RefusedError, UsageError
from verger.networks.registry import NETWORKS

Range = tuple[float, float]
"""The least and the most that is expected."""

CORE_RATES: dict[str, Range] = {"x86_64": (132.0, 191.3), "arm64": (66.0, 132.0)}
"""Images a second of one physical core, extraction only.

x86_64: of the whole chain, measured on two cores with AVX-512 (presentation/data/workers.json): the
least by two workers at once, the most by one. Machines without AVX-512 (m6a) are slower, which was
not measured. arm64: not measured; taken for half of the least of these to all of it. A cluster
counts as the sum of its cores, each with as many workers as it has processors.
"""

CORES = {"m7a.xlarge": 4} | {
    machine: 4 if arch == "arm64" else 2
    for arch, machines in MACHINES.items()
    for machine in machines
    if machine != "m7a.xlarge"
}
"""Physical cores: a processor of Graviton or m7a is a core, one of the others half of one."""

START_MINUTES: Range = (6.0, 12.0)
"""From the request to the start of the step, while all machines are paid: an assumption."""

FIXED_MINUTES: Range = (2.0, 5.0)
"""Start of Spark, listing, PCA, writing, and the end of the machines: an assumption."""

TARGET_MINUTES = 15
"""Workers are added until extraction takes no longer, at the lower rate."""

WORKERS = (2, 7)
"""The fewest, unless the quota says otherwise, and as many as one of 32 processors allows."""

PROCESSORS = 4
"""Of each machine in `prices.MACHINES`."""

ALONE_CORES = 0.5
"""Of the cores of a machine that is primary and worker: what EMR's own services may leave it."""

ENDING_MINUTES = 5
"""Between the order to end and the end of all machines, which are paid until then: an assumption.
"""

DISK_GB = 79
"""What EMR gives a machine of this size: 64 GB and 15 GB for the system."""

STORED_BYTES = 16_384
"""Of an image: itself (a small one), its features (5 kB), its row twice."""

PUTS = 2_000
"""Requests that write, of a run."""

HOURS_A_MONTH = 730

PUBLISHED = "67,692 images, 3 x m5.2xlarge: 83 min, 1.60 EUR"
"""The published reference run; its costs came mostly from idle clusters and retries."""


@dataclass(frozen=True)
class Plan:
    """A run on a cluster of one primary machine and some workers.

    Attributes:
        images: how many.
        region: where.
        arch: arm64 or x86_64.
        spot: whether all workers but one are spot machines; the primary one never is.
        machines: types to choose from, the preferred one first.
        workers: how many, besides the primary machine; with 0 that one works itself.
        images_per_second: of all workers.
        minutes: from the request to the end.
        usd_per_hour: of the whole cluster, of preferred machines: machines, EMR, disks.
        dear_usd_per_hour: the same of the dearest type.
        most_usd_per_hour: the same if spot machines cost as much as others, which is their limit.
        usd_fixed: requests of S3, and storage for a month.
        max_cost: the ceiling in euros.
        prices: with which it was made, and the rate of euros.
    """

    images: int
    region: str
    arch: str
    spot: bool
    machines: tuple[str, ...]
    workers: int
    images_per_second: Range
    minutes: Range
    usd_per_hour: float
    dear_usd_per_hour: float
    most_usd_per_hour: float
    usd_fixed: float
    max_cost: float
    prices: Prices

    @property
    def machine(self) -> str:
        """The type that is preferred."""
        return self.machines[0]

    @property
    def eur_per_hour(self) -> float:
        """Of the whole cluster."""
        return self.usd_per_hour * self.prices.eur_per_usd

    @property
    def eur(self) -> Range:
        """What the run is expected to cost."""
        hourly = self.usd_per_hour, self.dear_usd_per_hour
        low, high = (
            (usd * minutes / 60 + self.usd_fixed) * self.prices.eur_per_usd
            for usd, minutes in zip(hourly, self.minutes, strict=True)
        )
        return low, high

    @property
    def deadline_minutes(self) -> float:
        """When machines are told to end, so that they have ended before the ceiling is reached.

        Whatever type of machine it is, and whatever spot machines cost.
        """
        left = self.max_cost / self.prices.eur_per_usd - self.usd_fixed
        return max(0.0, left / self.most_usd_per_hour * 60 - ENDING_MINUTES)

    def check_ceiling(self) -> None:
        """Refuse what cannot be done for the money.

        Raises:
            RefusedError: even the least that is expected costs more than the ceiling.
        """
        if self.eur[0] > self.max_cost:
            raise RefusedError(
                f"{self.images:,} images cost {self.eur[0]:.2f} EUR at least; the ceiling is "
                f"{self.max_cost:.2f} EUR.",
                "Give a higher --max-cost, or fewer images.",
            )


def time_caution(network: str) -> str:
    """What to say of a network whose time was not measured; empty where it was."""
    if network in NETWORKS:
        return ""
    return f"The time that {network} takes is not known: that of MobileNetV2 is taken."


def make_plan(
    images: int,
    region: str,
    *,
    workers: int | None = None,
    arch: str = "arm64",
    spot: bool = False,
    work: float = 1.0,
    max_cost: float = 10.0,
    prices: Prices | None = None,
    spot_usd: dict[str, float] | None = None,
    offered: Collection[str] | None = None,
    most_machines: int | None = None,
) -> Plan:
    """Plan a run.

    Args:
        images: how many.
        region: where, inside the European Union.
        workers: how many machines besides the primary one; by default as many as extract all
            images in `TARGET_MINUTES` at the lower rate, within `WORKERS` and `most_machines`.
        arch: arm64 or x86_64.
        spot: whether all workers but one are spot machines.
        work: of an image, as `verger.networks.registry.work_of` has it.
        max_cost: the ceiling in euros.
        prices: by default those of `verger.cloud.money.prices.load`.
        spot_usd: spot prices of now by type of machine; by default a typical share.
        offered: types of machine that there are; None where AWS was not asked.
        most_machines: what the account's quotas allow, the primary machine included; one machine
            is primary and worker. None where AWS was not asked.

    Raises:
        UsageError: a number or the architecture makes no sense.
        RefusedError: the region is not inside the European Union, or a quota does not suffice.
        SetupError: its prices are not known.
    """
    if arch not in CORE_RATES:
        raise UsageError(f"--arch: {arch!r} is none of {', '.join(CORE_RATES)}.")
    for option, number in (("--images", images), ("--max-cost", max_cost), ("--workers", workers)):
        if number is not None and not 0 < number < math.inf:
            raise UsageError(f"{option}: {number} is not a number above 0.")
    prices = prices or load()
    here = prices.region(region)
    machines = prices.machines(region, arch, offered)
    lowest, highest = CORE_RATES[arch]
    rates = lowest / work, highest / work
    cores = [CORES[machine] for machine in machines]
    if workers is None:
        wanted = math.ceil(images / (min(cores) * rates[0]) / 60 / TARGET_MINUTES)
        workers = min(max(wanted, WORKERS[0]), WORKERS[1])
        if most_machines is not None:
            workers = min(workers, most_machines - 1)
    if most_machines is not None and workers + 1 > most_machines:
        raise RefusedError(
            f"{workers} workers and a primary machine have {(workers + 1) * PROCESSORS} "
            f"processors; the account's quota has {most_machines * PROCESSORS} left.",
            "Give fewer --workers, or have the quota raised: verger cloud check",
        )
    machine_count = workers + 1
    working = workers or ALONE_CORES
    slow, fast = working * min(cores) * rates[0], working * cores[0] * rates[1]

    # One worker is never a spot machine: it holds the driver.
    spots = max(workers - 1, 0) if spot else 0

    def hourly(machine: str, spots: int) -> float:
        """Of the cluster, of whose machines so many cost what spot machines do."""
        full = here.machine_hour[machine]
        cheap = (spot_usd or {}).get(machine, full * prices.spot_share)
        others = here.emr_hour[machine] + here.ebs_gb_month * DISK_GB / HOURS_A_MONTH
        return (machine_count - spots) * full + spots * cheap + machine_count * others

    requests = (images * here.s3_get_thousand + PUTS * here.s3_put_thousand) / 1000
    stored = images * STORED_BYTES / 1e9 * here.s3_gb_month
    return Plan(
        images=images,
        region=region,
        arch=arch,
        spot=spot,
        machines=machines,
        workers=workers,
        images_per_second=(slow, fast),
        minutes=(
            START_MINUTES[0] + FIXED_MINUTES[0] + images / fast / 60,
            START_MINUTES[1] + FIXED_MINUTES[1] + images / slow / 60,
        ),
        usd_per_hour=hourly(machines[0], spots),
        dear_usd_per_hour=max(hourly(machine, spots) for machine in machines),
        most_usd_per_hour=max(hourly(machine, 0) for machine in machines),
        usd_fixed=requests + stored,
        max_cost=max_cost,
        prices=prices,
    )
