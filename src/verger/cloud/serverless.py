"""The same job on EMR Serverless: an application for it alone, capped, and gone afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from time import sleep
from typing import Any

from verger.cloud import prices
from verger.cloud.job import (
    ARCH_TAG,
    MEMORY_GB,
    PROCESSORS,
    RELEASE,
    Cost,
    Job,
    State,
    undone_on_failure,
)
from verger.cloud.session import explained
from verger.cloud.stack import LOGS, TAGS, Stack
from verger.cloud.submit import entry_arguments
from verger.errors import SetupError
from verger.progress import Progress
from verger.storage import Location

IDLE_MINUTES = 1
"""Without a job for so long, an application stops; that is the shortest that there is."""

STOP_SECONDS, POLL_SECONDS = 300.0, 5.0
"""What is waited for an application to stop, and between two looks."""

ALIVE = ("CREATING", "CREATED", "STARTING", "STARTED", "STOPPING", "STOPPED")

STATES: Mapping[str, State] = {
    "QUEUED": State("starting"),
    "SUBMITTED": State("starting"),
    "PENDING": State("starting"),
    "SCHEDULED": State("starting"),
    "RUNNING": State("running"),
    "CANCELLING": State("ending"),
    "SUCCESS": State("ended", succeeded=True),
}
"""By AWS' words; all others have ended without success."""

WORKER = {
    "spark.executor.cores": str(PROCESSORS),
    "spark.executor.memory": "6g",
    "spark.executor.memoryOverhead": "8g",
    "spark.driver.cores": str(PROCESSORS),
    "spark.driver.memory": "4g",
    "spark.driver.memoryOverhead": "4g",
    "spark.dynamicAllocation.enabled": "false",
}
"""Sizes that EMR Serverless has: with 4 processors, 8 to 30 GB."""


def application_request(job: Job) -> dict[str, Any]:
    """What CreateApplication is asked: it can never grow beyond the job's workers and driver."""
    machines = job.workers + 1
    return {
        "name": job.name,
        "clientToken": job.run_id,
        "releaseLabel": RELEASE,
        "type": "SPARK",
        "architecture": {"arm64": "ARM64", "x86_64": "X86_64"}[job.arch],
        "maximumCapacity": {
            "cpu": f"{machines * PROCESSORS} vCPU",
            "memory": f"{machines * MEMORY_GB} GB",
        },
        "autoStartConfiguration": {"enabled": True},
        "autoStopConfiguration": {"enabled": True, "idleTimeoutMinutes": IDLE_MINUTES},
        "tags": job.tags,
    }


def job_request(job: Job, stack: Stack, application: str, now: datetime) -> dict[str, Any]:
    """What StartJobRun is asked: EMR ends it itself when the money would be spent."""
    properties = {**job.properties, **WORKER, "spark.executor.instances": str(job.workers)}
    return {
        "applicationId": application,
        "clientToken": job.run_id,
        "name": job.name,
        "executionRoleArn": stack.serverless_role,
        "executionTimeoutMinutes": max(5, int((job.ends_at - now).total_seconds() // 60)),
        "tags": job.tags,
        "jobDriver": {
            "sparkSubmit": {
                "entryPoint": job.entry,
                "entryPointArguments": entry_arguments(properties, job.command),
            }
        },
        "configurationOverrides": {
            # Not as words of spark-submit, which is one string there.
            "applicationConfiguration": [
                {"classification": "spark-defaults", "properties": properties}
            ],
            "monitoringConfiguration": {
                "s3MonitoringConfiguration": {"logUri": f"s3://{stack.bucket}/{LOGS}/"},
                # AWS would keep the logs itself for 30 days besides.
                "managedPersistenceMonitoringConfiguration": {"enabled": False},
            },
        },
    }


@dataclass(frozen=True)
class ServerlessJob:
    """A job of ours on an application of its own; `id` is empty where none was started."""

    session: Any
    region: str
    application: str
    id: str
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What it is, in words."""
        return f"job {self.id or '(none)'} of application {self.application} in {self.region}"

    @cached_property
    def _client(self) -> Any:
        return self.session.client("emr-serverless", region_name=self.region)

    def _describe(self) -> dict[str, Any]:
        with explained(f"describe the {self.title}"):
            found: dict[str, Any] = self._client.get_job_run(
                applicationId=self.application, jobRunId=self.id
            )["jobRun"]
        return found

    def state(self) -> State:
        """How it stands.

        Raises:
            SetupError: AWS does not say.
        """
        if not self.id:
            return State("ended")
        found = self._describe()
        ended = State("ended", False, found["state"], found.get("stateDetails") or "")
        return STATES.get(found["state"], ended)

    def stop(self) -> None:
        """Ask EMR Serverless to cancel it."""
        if self.id and self.state().phase in {"starting", "running"}:
            with explained(f"cancel the {self.title}"):
                self._client.cancel_job_run(applicationId=self.application, jobRunId=self.id)

    def clean_up(self) -> None:
        """Stop its application, wait for that, and delete it.

        Raises:
            SetupError: AWS refuses, or it does not stop.
        """
        client, application = self._client, {"applicationId": self.application}
        with explained(f"stop the application {self.application}"):
            for _ in range(int(STOP_SECONDS / POLL_SECONDS)):
                state = client.get_application(**application)["application"]["state"]
                if state in {"CREATED", "STOPPED"}:
                    client.delete_application(**application)
                    return
                if state == "TERMINATED":
                    return
                # AWS does not stop it while a job is being cancelled.
                if state == "STARTED" and self.state().phase == "ended":
                    client.stop_application(**application)
                sleep(POLL_SECONDS)
        raise SetupError(
            f"The application {self.application} in {self.region} is still {state}.",
            "It stops by itself once it is idle; or: verger cloud stop",
        )

    def logs(self, stack: Stack) -> list[Location]:
        """The driver's words."""
        folder = Location(f"s3://{stack.bucket}/{LOGS}").child(
            "applications", self.application, "jobs", self.id, "SPARK_DRIVER"
        )
        return [folder.child("stderr.gz"), folder.child("stdout.gz")]

    def cost(self) -> Cost:
        """From what AWS bills: processors and memory by the hour; the first 20 GB of disk are free.

        Raises:
            SetupError: AWS does not say, or a price is not known.
        """
        if not self.id:
            return Cost("nothing", 0.0)
        here = prices.load().region(self.region)
        billed = self._describe().get("billedResourceUtilization") or {}
        processors, memory = billed.get("vCPUHour", 0.0), billed.get("memoryGBHour", 0.0)
        arch = self.tags[ARCH_TAG]
        usd = processors * here.serverless_vcpu_hour[arch] + memory * here.serverless_gb_hour[arch]
        return Cost(f"{processors:.2f} vCPU-hours, {memory:.2f} GB-hours", usd)


def usd_per_hour(here: prices.RegionPrices, arch: str, workers: int) -> float:
    """What all workers and the driver cost at most."""
    worker = (
        PROCESSORS * here.serverless_vcpu_hour[arch] + MEMORY_GB * here.serverless_gb_hour[arch]
    )
    return (workers + 1) * worker


def start_serverless(session: Any, stack: Stack, job: Job, progress: Progress) -> ServerlessJob:
    """Make an application and start the job on it.

    On any failure and on Ctrl-C nothing is left running.

    Raises:
        SetupError: AWS refuses.
    """
    client = session.client("emr-serverless", region_name=stack.region)
    with undone_on_failure(job, lambda: list_serverless(session, stack.region), progress):
        with explained("make an application of EMR Serverless"):
            made = client.create_application(**application_request(job))["applicationId"]
            _wait_until_made(client, made)
        with explained("start a job on EMR Serverless"):
            request = job_request(job, stack, made, datetime.now(timezone.utc))
            started = client.start_job_run(**request)["jobRunId"]
    return ServerlessJob(session, stack.region, made, started, job.tags)


def _wait_until_made(client: Any, application: str) -> None:
    for _ in range(int(STOP_SECONDS / POLL_SECONDS)):
        if client.get_application(applicationId=application)["application"]["state"] != "CREATING":
            return
        sleep(POLL_SECONDS)
    raise SetupError(f"The application {application} is not made in time.", "Try again.")


def list_serverless(
    session: Any, region: str, since: datetime | None = None
) -> list[ServerlessJob]:
    """Our jobs in a region, with their applications; one without a job where none was started.

    Those whose application is there, or, with `since`, all whose application was made after it.

    Raises:
        SetupError: AWS does not say.
    """
    client = session.client("emr-serverless", region_name=region)
    found = []
    with explained(f"list the applications of EMR Serverless in {region}"):
        states = [*ALIVE, "TERMINATED"] if since else [*ALIVE]
        for page in client.get_paginator("list_applications").paginate(states=states):
            for entry in page["applications"]:
                if since and entry["createdAt"] < since:
                    continue
                application = entry["id"]
                described = client.get_application(applicationId=application)["application"]
                tags = described.get("tags") or {}
                if tags.get("application") != TAGS["application"]:
                    continue
                runs = client.list_job_runs(applicationId=application)["jobRuns"]
                ids = [run["id"] for run in runs] or [""]
                found += [ServerlessJob(session, region, application, id_, tags) for id_ in ids]
    return found
