"""A job on AWS before it starts: what is asked for, what it would cost, what it needs."""

import secrets
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from verger.cloud.account import limits, places
from verger.cloud.account.stack import Stack
from verger.cloud.jobs import delivery
from verger.cloud.jobs.bundle import Architecture
from verger.cloud.jobs.job import RELEASE, Job
from verger.cloud.jobs.sizes import with_full_waves
from verger.cloud.jobs.submit import job_command, notebook_command, spark_properties
from verger.cloud.money import prices
from verger.cloud.money.plan import PROCESSORS, Plan, make_plan, time_caution
from verger.errors import RefusedError, SetupError
from verger.networks.registry import work_of
from verger.progress import TIME, Progress, Time
from verger.settings import RunSettings

MARGIN = timedelta(minutes=10)
"""Between the job's own deadline and its end from outside: to write, and for machines to end."""

LEAST = timedelta(minutes=15)
"""Less work than that is not worth the start of machines."""


@dataclass(frozen=True)
class Launch:
    """What is asked for.

    Attributes:
        run: what verger does there.
        workers: machines besides the primary one; None for as many as the plan says.
        arch: of the processors.
        spot: whether all workers but one may be spot machines.
        max_cost: in euros.
        download: where the results are copied to on this machine.
        time: by which it waits and ends.
        notebook: what is executed there instead of `verger run`; see `notebook.launch_notebook`.
        checked: whether `check.check_account` has just asked for rights and leftovers.
    """

    run: RunSettings
    workers: int | None = None
    arch: Architecture = "arm64"
    spot: bool = False
    max_cost: float = 10.0
    download: Path | None = None
    notebook: Path | None = None
    checked: bool = False
    time: Time = TIME

    @property
    def work(self) -> str:
        """See `Job.work`."""
        return "run" if self.notebook is None else f"notebook-{delivery.digest(self.notebook)}"


def make_job(
    place: places.Place, wanted: Launch, images: int, progress: Progress, *, upload: bool = True
) -> Job:
    """Plan a job of so many images, refuse it if the money does not suffice, and upload its files.

    Without `upload` it is only told whether one is missing.

    Raises:
        RefusedError: the money pays for too little time.
        VergerError: another of its children; nothing runs then.
    """
    stack = place.stack
    capacity = check_account(place, wanted)
    plan = make_plan(
        max(images, 1),
        stack.region,
        workers=wanted.workers,
        arch=wanted.arch,
        spot=wanted.spot,
        work=work_of(wanted.run.network, wanted.run.views),
        max_cost=wanted.max_cost,
        prices=prices.load(),
        offered=capacity.machines,
        most_machines=capacity.most_machines,
    )
    plan.check_ceiling()
    paid = timedelta(minutes=plan.deadline_minutes)
    if paid < LEAST + MARGIN:
        raise RefusedError(
            f"{wanted.max_cost:.2f} EUR pay for {plan.deadline_minutes:.0f} minutes, too few to "
            "start machines.",
            "Give a higher --max-cost, or fewer --workers.",
        )
    _say_plan(plan, capacity, progress)
    if caution := time_caution(wanted.run.network):
        progress.note(caution)
    run = with_full_waves(wanted.run, plan.workers)
    bundle = delivery.make_bundle(wanted.arch, progress, run.network)
    files = bundle if wanted.notebook is None else (*bundle, wanted.notebook)
    if upload:
        delivered = delivery.deliver(place.session, stack, files, progress)
    else:
        delivered = delivery.uris(stack, files)
        if delivery.missing(place.session, stack, delivered):
            progress.note(
                f"The bucket lacks what the job needs; first: verger cloud deliver --region "
                f"{stack.region} --arch {wanted.arch} --network {run.network}"
            )
    end = wanted.time.now() + paid
    run_id = f"{wanted.time.now():%Y%m%d-%H%M}-{secrets.token_hex(2)}"
    if wanted.notebook is None:
        command = job_command(run, end - MARGIN)
    else:
        command = notebook_command(run, delivered[wanted.notebook], run_id, end - MARGIN)
    return Job(
        run_id=run_id,
        output=wanted.run.output,
        properties=spark_properties(
            region=stack.region,
            environment=delivered[bundle.environment],
            code=delivered[bundle.code],
            backbone=delivered[bundle.backbone],
        ),
        entry=delivered[bundle.entry],
        command=command,
        arch=wanted.arch,
        machines=plan.machines,
        subnets=capacity.subnets,
        workers=plan.workers,
        spot=wanted.spot,
        ends_at=end,
        work=wanted.work,
    )


def check_account(place: places.Place, wanted: Launch) -> limits.Capacity:
    """See that the account can start machines, and which, before anything is uploaded.

    Raises:
        RefusedError: a quota does not allow one machine.
        SetupError: the clock is off, the disks' key is not the stack's, or no zone has machines.
    """
    session, stack = place.session, place.stack
    limits.check_clock(limits.who_asks(session))
    check_disk_key(stack, limits.default_disk_key(session))
    return limits.find_capacity(
        session,
        stack.subnets,
        prices.MACHINES[wanted.arch],
        release=RELEASE,
        processors=PROCESSORS,
        spot=wanted.spot,
    )


def check_disk_key(stack: Stack, key: str) -> None:
    """Refuse to start machines whose disks AWS would encrypt with a key that EMR may not use.

    Raises:
        SetupError: the account's default key is not the one that the stack knows.
    """
    if key and key != stack.disk_key:
        raise SetupError(
            f"AWS encrypts new disks in {stack.region} with {key}, which EMR's role may not use: "
            "machines would end as they start.",
            f"Give it the key: {stack.init_command()}. "
            "The key's own policy must allow the account's roles to use it.",
        )


def _say_plan(plan: Plan, capacity: limits.Capacity, progress: Progress) -> None:
    hourly, dearest = plan.eur_per_hour, plan.most_usd_per_hour * plan.prices.eur_per_usd
    others = f", {dearest:.2f} at most" if dearest > hourly else ""
    low, high = plan.minutes
    rate, rate_date = plan.prices.eur_per_usd, plan.prices.eur_dated
    cluster = f"{plan.workers} + 1 machines" if plan.workers else "one machine, primary and worker,"
    progress.note(
        f"{plan.images:,} images in {plan.region}: {cluster} {plan.machine}, "
        f"{hourly:.2f} EUR an hour{others}; "
        f"expected {low:.0f} to {high:.0f} minutes, at most {plan.max_cost:.2f} EUR without tax "
        f"({rate} EUR a USD of {rate_date}; prices of {plan.prices.dated_in(plan.region)})."
    )
    if caution := plan.prices.caution(plan.region):
        progress.note(caution)
    if plan.workers + 1 >= capacity.most_machines:
        quota = capacity.quotas[limits.ON_DEMAND_QUOTA]
        progress.note(
            f"It is as large as the account's quota allows ({quota.free} processors). "
            + limits.what_to_ask_for(quota, 8 * PROCESSORS, plan.region)
        )
