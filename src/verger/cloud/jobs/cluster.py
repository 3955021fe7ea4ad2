"""A transient cluster of EMR: one step, and it ends with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from verger.cloud.account.cloudformation import TAGS
from verger.cloud.account.stack import ALIVE, LOGS, Stack
from verger.cloud.jobs import schedule
from verger.cloud.jobs.job import END_TAG, RELEASE, RUN_TAG, Cost, Job, State
from verger.cloud.jobs.sizes import spark_sizes
from verger.cloud.jobs.submit import submit_arguments
from verger.cloud.money import prices
from verger.cloud.money.plan import DISK_GB, HOURS_A_MONTH
from verger.errors import SetupError, VergerError
from verger.progress import Progress, utc_now
from verger.store import storage
from verger.store.errors import aws_errors
from verger.store.location import Location
from verger.store.objects import list_objects

NO_CAPACITY = "INSUFFICIENT_CAPACITY"
"""Our word for what EMR calls by several names: a zone has no such machine now."""

IDLE_SECONDS = 900
"""Without a Spark job for so long, a cluster ends; starting takes less."""

SPOT_MINUTES = 10
"""What is waited for spot machines before machines on demand take their place."""

LOG_POLICY = {
    "system-logs": "on-customer-s3only",
    "application-logs": "on-customer-s3only",
    "persistent-ui-logs": "disabled",
}
"""Logs go to the stack's bucket only; EMR would keep some of them in one of its own."""


def cluster_request(job: Job, stack: Stack) -> dict[str, Any]:
    """What EMR's RunJobFlow is asked.

    The driver runs on the core machine, which is on demand: losing a spot machine costs tasks.
    Without workers the primary machine is the cluster.
    """
    spots = max(job.workers - 1, 0) if job.spot else 0
    properties = {**job.properties, **spark_sizes(job.workers)}
    tags = {**dict(stack.cluster_tags), **job.tags}
    step = submit_arguments(properties, entry=job.entry, command=job.command)
    fleets = [_fleet("MASTER", job, on_demand=1)]
    if job.workers:
        fleets.append(_fleet("CORE", job, job.workers - spots))
    if spots:
        fleets.append(_fleet("TASK", job, spot=spots))
    python = {"PYSPARK_PYTHON": properties["spark.pyspark.python"]}
    export = {"Classification": "export", "Properties": python}
    configurations: list[dict[str, Any]] = [
        {"Classification": "spark-env", "Configurations": [export]}
    ]
    if job.workers:
        labels = {
            "yarn.node-labels.enabled": "true",
            "yarn.node-labels.am.default-node-label-expression": "CORE",
        }
        configurations.append({"Classification": "yarn-site", "Properties": labels})
    return {
        "Name": job.name,
        "ReleaseLabel": RELEASE,
        "LogUri": f"s3://{stack.bucket}/{stack.key(LOGS)}/",
        "MonitoringConfiguration": {"S3LoggingConfiguration": {"LogTypeUploadPolicy": LOG_POLICY}},
        "Applications": [{"Name": "Spark"}],
        "Configurations": configurations,
        "ServiceRole": stack.service_role,
        "JobFlowRole": stack.instance_profile,
        "SecurityConfiguration": stack.security_configuration,
        "VisibleToAllUsers": True,
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        "AutoTerminationPolicy": {"IdleTimeout": IDLE_SECONDS},
        "Instances": {
            "InstanceFleets": fleets,
            "Ec2SubnetIds": list(job.subnets),
            "KeepJobFlowAliveWhenNoSteps": False,
            "TerminationProtected": False,
        },
        "Steps": [
            {
                "Name": "verger",
                "ActionOnFailure": "TERMINATE_CLUSTER",
                "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["spark-submit", *step]},
            }
        ],
    }


def _fleet(role: str, job: Job, on_demand: int = 0, spot: int = 0) -> dict[str, Any]:
    fleet: dict[str, Any] = {
        "Name": role.lower(),
        "InstanceFleetType": role,
        "TargetOnDemandCapacity": on_demand,
        "TargetSpotCapacity": spot,
        "InstanceTypeConfigs": [
            {"InstanceType": machine, "WeightedCapacity": 1, "Priority": float(place)}
            for place, machine in enumerate(job.machines)
        ],
        "LaunchSpecifications": {"OnDemandSpecification": {"AllocationStrategy": "prioritized"}},
    }
    if spot:
        fleet["LaunchSpecifications"]["SpotSpecification"] = {
            "AllocationStrategy": "price-capacity-optimized",
            "TimeoutDurationMinutes": SPOT_MINUTES,
            "TimeoutAction": "SWITCH_TO_ON_DEMAND",
        }
    return fleet


@dataclass(frozen=True)
class Cluster:
    """A cluster of ours: a job that was started.

    Attributes:
        session: of boto3.
        region: where it is.
        id: EMR's.
        tags: see `Job.tags`.
    """

    session: Any
    region: str
    id: str
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What it is, in words."""
        return f"cluster {self.id} in {self.region}"

    @property
    def asked_at(self) -> datetime:
        """When it was asked for, to the minute; machines come later."""
        return datetime.strptime(f"{self.tags[RUN_TAG][:13]}+0000", "%Y%m%d-%H%M%z")

    @property
    def ends_at(self) -> datetime | None:
        """When it is ended at the latest."""
        text = self.tags.get(END_TAG)
        return datetime.fromisoformat(text) if text else None

    @cached_property
    def _client(self) -> Any:
        return self.session.client("emr", region_name=self.region)

    def state(self) -> State:
        """How cluster and step stand.

        Raises:
            SetupError: AWS does not say.
        """
        with aws_errors(f"describe the {self.title}"):
            status = self._client.describe_cluster(ClusterId=self.id)["Cluster"]["Status"]
            steps = self._client.list_steps(ClusterId=self.id)["Steps"]
        step: dict[str, Any] = steps[0]["Status"] if steps else {"State": "PENDING"}
        done = step["State"]
        change = status.get("StateChangeReason", {})
        details = step.get("FailureDetails", {})
        code = change.get("Code", "")
        # EMR's own word is broad; that of EC2 says which machines there were not.
        errors = [one.get("ErrorCode", "") for one in status.get("ErrorDetails", ())]
        reason = change.get("Message") or details.get("Message") or details.get("Reason") or ""
        if any("CAPACITY" in error for error in errors) or "capacity" in reason.lower():
            code = NO_CAPACITY
        match status["State"]:
            case "TERMINATED" | "TERMINATED_WITH_ERRORS":
                return State("ended", done == "COMPLETED", code, reason)
            case "STARTING" | "BOOTSTRAPPING":
                return State("starting")
            case "RUNNING" | "WAITING" if done == "PENDING":
                return State("starting")
            case "RUNNING" | "WAITING" if done == "RUNNING":
                return State("running")
        return State("ending", done == "COMPLETED", code, reason)

    def stop(self) -> None:
        """Ask EMR to terminate it; returns at once."""
        with aws_errors(f"terminate the {self.title}"):
            self._client.terminate_job_flows(JobFlowIds=[self.id])

    def not_ended(self, state: State) -> SetupError:
        """What to say where it was told to end long ago, and has not."""
        return SetupError(
            f"The {self.title} was told to end and is still {state.phase}.",
            "Look at it in AWS' console, under EMR; it costs money until it has ended.",
        )

    def clean_up(self) -> None:
        """Delete its schedule, once it has ended."""
        schedule.delete_schedule(self.session, self.region, self.id)

    def logs(self, stack: Stack) -> list[Location]:
        """The driver's words, then those of spark-submit."""
        folder = Location(f"s3://{stack.bucket}/{stack.key(LOGS, self.id)}")
        keys = [listed.key for listed in list_objects(folder.child("containers").path)]
        containers = [
            key
            for key in sorted(keys, reverse=True)
            # The first container of an application is the driver's.
            if key.endswith(("_000001/stderr.gz", "_000001/stdout.gz"))
        ]
        step = folder.child("steps")
        steps = [step.child(name, "stderr.gz") for name in storage.names(step)]
        return [*(Location(f"s3://{stack.bucket}/{key}") for key in containers), *steps]

    def cost(self) -> Cost:
        """From the hours of each machine; started hours count by the second.

        Raises:
            SetupError: AWS does not say, or a price is not known.
        """
        known = prices.load()
        here = known.region(self.region)
        hours = usd = 0.0
        with aws_errors(f"list the machines of the {self.title}"):
            pages = self._client.get_paginator("list_instances").paginate(ClusterId=self.id)
            instances = list(pages.search("Instances[]"))
        for instance in instances:
            timeline = instance["Status"]["Timeline"]
            begun = timeline.get("CreationDateTime")
            if begun is None or "Ec2InstanceId" not in instance:
                continue
            ended = timeline.get("EndDateTime") or utc_now()
            lasted = max((ended - begun).total_seconds(), 60) / 3600
            machine = instance["InstanceType"]
            if machine not in here.machine_hour or machine not in here.emr_hour:
                raise SetupError(
                    f"The price of {machine} in {self.region} is not known.",
                    "AWS' own Cost Explorer has what it cost, a day later.",
                )
            share = known.spot_share if instance.get("Market") == "SPOT" else 1.0
            rate = here.machine_hour[machine] * share + here.emr_hour[machine]
            usd += lasted * (rate + here.ebs_gb_month * DISK_GB / HOURS_A_MONTH)
            hours += lasted
        return Cost(f"{hours:.2f} machine-hours", usd * known.eur_per_usd)


def start_cluster(session: Any, stack: Stack, job: Job, progress: Progress) -> Cluster:
    """Start a cluster, and the clock that ends it.

    On any failure and on Ctrl-C nothing is left running.

    Raises:
        SetupError: AWS refuses, or does not say whether something runs.
    """
    client = session.client("emr", region_name=stack.region)
    try:
        with aws_errors("start a cluster"):
            made = client.run_job_flow(**cluster_request(job, stack))
        cluster = Cluster(session, stack.region, made["JobFlowId"], job.tags)
        schedule.create_schedule(session, stack, cluster.id, job.ends_at)
    except BaseException:
        _stop_started(session, stack.region, job, progress)
        raise
    return cluster


def _stop_started(session: Any, region: str, job: Job, progress: Progress) -> None:
    """End what a start left: its request may have arrived though the answer did not."""
    try:
        for cluster in list_clusters(session, region):
            if cluster.tags.get(RUN_TAG) == job.run_id:
                cluster.stop()
                progress.note(f"The {cluster.title} was told to end before it began.")
                cluster.clean_up()
    except VergerError as error:
        raise SetupError(
            f"AWS does not say whether {job.name} was started: {error.message}",
            "It may run, and cost money. Look, and stop it: verger cloud status, verger cloud stop",
        ) from error


def list_clusters(session: Any, region: str, since: datetime | None = None) -> list[Cluster]:
    """Our clusters in a region: those that run, or all that were made since a time.

    Raises:
        SetupError: AWS does not say.
    """
    client = session.client("emr", region_name=region)
    which: dict[str, Any] = {"CreatedAfter": since} if since else {"ClusterStates": ALIVE}
    clusters = []
    with aws_errors(f"list the clusters in {region}"):
        pages = client.get_paginator("list_clusters").paginate(**which)
        for cluster in pages.search("Clusters[].Id"):
            described = client.describe_cluster(ClusterId=cluster)["Cluster"]
            tags = {tag["Key"]: tag["Value"] for tag in described.get("Tags", ())}
            if tags.get("application") == TAGS["application"]:
                clusters.append(Cluster(session, region, cluster, tags))
    return clusters
