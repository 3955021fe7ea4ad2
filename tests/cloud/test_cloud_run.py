"""A run on AWS from beginning to end: S3 and schedules on moto, EMR by a script."""

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType

import boto3
import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.loaders import create_loader
from botocore.validate import validate_parameters
from typer.testing import CliRunner

from fake_aws import AwsError, FakeAws, machine
from stores import FAKE_KEYS, aws_settings, make_bucket, make_client, moto_server
from verger.cli import cloud_jobs
from verger.cli.main import app
from verger.cloud.account import places
from verger.cloud.account.permissions import policy
from verger.cloud.account.stack import Stack
from verger.cloud.jobs import delivery, download, launch
from verger.cloud.jobs.notebook import launch_notebook
from verger.cloud.jobs.prepare import MARGIN, Launch
from verger.cloud.money import prices
from verger.cloud.money.plan import ENDING_MINUTES
from verger.errors import (
    DeadlineReached,
    InputError,
    RefusedError,
    SetupError,
    TooManyRejectedError,
    UsageError,
    VergerError,
)
from verger.output.files import open_files
from verger.output.layout import DataFile, Output
from verger.output.manifest import BackboneRecord, Counts, EngineRecord, Manifest, SparkRecord
from verger.progress import Progress, Time
from verger.settings import RunSettings
from verger.store.location import Location
from verger.store.session import make_session

REGION = "eu-west-3"
STACK = Stack(
    region=REGION,
    account="123456789012",
    bucket="orchard",
    buckets=("orchard", "photos"),
    service_role="verger-service",
    instance_profile="verger-machines",
    scheduler_role="arn:aws:iam::123456789012:role/verger-scheduler",
    subnets=("subnet-1", "subnet-2", "subnet-3"),
    security_configuration="verger-security",
)
SOURCE, OUTPUT = "s3://photos/in", "s3://orchard/out"


class Heard(Progress):
    """What a reader was told."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []
        self.done: list[tuple[int, int]] = []

    def start(self, stage: str, total: int | None = None) -> None:
        self.stages.append(stage)

    def update(self, done: int, rejected: int = 0) -> None:
        if self.stages[-1] == "extract":
            self.done.append((done, rejected))

    def note(self, text: str) -> None:
        self.notes.append(text)

    @property
    def said(self) -> str:
        return "\n".join(self.notes)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.time = datetime.now(timezone.utc)

    def now(self) -> datetime:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


CLOCK = Clock()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with moto_server() as port:
        make_bucket(port, "photos")
        for number in range(3):
            make_client(port).put_object(
                Bucket="photos", Key=f"in/plum/{number}.jpg", Body=b"a photograph"
            )
        for name, region in (("ohio", "us-east-2"), ("erin", "eu-west-1")):
            place = f"http://127.0.0.1:{port}"
            client = boto3.client("s3", endpoint_url=place, region_name=region, **FAKE_KEYS)
            client.create_bucket(
                Bucket=name, CreateBucketConfiguration={"LocationConstraint": region}
            )
        yield port


@pytest.fixture(scope="module", autouse=True)
def _one_loader() -> Iterator[None]:
    """Have botocore read its descriptions of AWS once for all sessions."""
    with pytest.MonkeyPatch.context() as patch:
        loader = create_loader()
        patch.setattr("botocore.session.create_loader", lambda *_: loader)
        yield


@pytest.fixture
def clock(monkeypatch) -> Clock:
    monkeypatch.setattr(cloud_jobs, "TIME", Time(CLOCK.now, CLOCK.sleep))
    return CLOCK


@pytest.fixture
def aws(port: int, monkeypatch, tmp_path: Path, clock: Clock) -> Iterator[FakeAws]:
    """A region with a stack, and EMR by a script."""
    fake = FakeAws()
    fake.instances = [machine(0.5)] * 3
    files = tmp_path / "environment.tar.gz", tmp_path / "verger.zip", tmp_path / "backbone.zip"
    for file in files:
        file.write_bytes(file.name.encode())
    bundle = delivery.Bundle(*files)
    monkeypatch.setattr(delivery, "make_bundle", lambda *_: bundle)
    monkeypatch.setattr(places, "find_stack", lambda *_: STACK)
    monkeypatch.setattr(places, "make_session", lambda *a: fake.install(make_session(*a)))
    with aws_settings(port, monkeypatch):
        make_bucket(port, "orchard")
        scheduler = make_session().client("scheduler")
        scheduler.create_schedule_group(Name="verger")
        yield fake
        client = make_client(port)
        for found in client.list_objects_v2(Bucket="orchard").get("Contents", ()):
            client.delete_object(Bucket="orchard", Key=found["Key"])
        client.delete_bucket(Bucket="orchard")
        scheduler.delete_schedule_group(Name="verger")


@pytest.fixture
def heard() -> Heard:
    return Heard()


def asked(*, poll_seconds: float = 15.0, **options: object) -> Launch:
    run = RunSettings(input=SOURCE, output=OUTPUT, components="2")
    time = Time(CLOCK.now, CLOCK.sleep, poll_seconds)
    return Launch(run=run, workers=2, time=time, **options)


LONG_AGO = "2026-01-31T12:01:00+00:00"


def write_manifest(status: str = "complete", started_at: str = "", output: str = OUTPUT) -> None:
    """What the job leaves."""
    Manifest(
        status=status,
        verger_version="1",
        started_at=started_at or CLOCK.now().isoformat(timespec="seconds"),
        input=SOURCE,
        output=output,
        settings={},
        counts=Counts(listed=3, featurized=3),
        backbone=BackboneRecord(
            name="mobilenet_v2", weights="bundled", sha256="0", source="", licence=""
        ),
        engine=EngineRecord(name="openvino", version="1", precision="f32"),
        spark=SparkRecord(version="3.5", master="yarn"),
    ).write(Output(Location(output)))


def write_table() -> None:
    table = open_files(Output(Location(OUTPUT)))
    table.create({"input": SOURCE})
    outcomes = ("featurized", "rejected")
    table.commit([DataFile(f"outcome={part}/1.parquet", 1, 1, part) for part in outcomes], [])


def schedules(aws: FakeAws) -> list[dict]:
    return make_session().client("scheduler").list_schedules(GroupName="verger")["Schedules"]


def at_step(aws: FakeAws, count: int, action) -> None:
    """Have the job do something when it is looked at for the nth time."""
    seen = []

    def arrive() -> None:
        seen.append(1)
        if len(seen) == count:
            action()

    aws.at["DescribeCluster"] = arrive


def interrupt() -> None:
    raise KeyboardInterrupt


def lose_network() -> None:
    raise EndpointConnectionError(endpoint_url="https://elasticmapreduce.eu-west-3.amazonaws.com")


def lack_a_right(aws: FakeAws) -> None:
    aws.granted = policy("run", STACK.buckets, STACK.account)
    for statement in aws.granted["Statement"]:
        statement["Action"] = [one for one in statement["Action"] if "RunJobFlow" not in one]


def leave_an_endpoint(aws: FakeAws) -> None:
    aws.networks, aws.endpoints = ["vpc-1"], ["vpce-1"]


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lack_a_right, "Rights: missing: elasticmapreduce:RunJobFlow"),
        (leave_an_endpoint, "Left behind: endpoints vpce-1"),
    ],
)
@pytest.mark.parametrize("do", [launch.launch, launch.start, launch.request])
def test_what_would_stop_a_run_or_cost_beside_it_is_said_before_anything_is_uploaded(
    aws, heard: Heard, do, prepare, words: str
) -> None:
    prepare(aws)
    with pytest.raises(SetupError, match=words):
        do(asked(), heard)
    assert "deliver" not in heard.stages
    assert "RunJobFlow" not in aws.names


def test_a_run_is_started_followed_by_its_waves_and_gone(aws, heard: Heard, tmp_path: Path) -> None:
    at_step(aws, 2, write_table)
    aws.after["ListSteps"] = lambda: None if aws.timeline else write_manifest()
    manifest, _ = launch.launch(asked(download=tmp_path / "out"), heard)
    assert manifest.status == "complete"
    assert (2, 1) in heard.done
    assert [stage for stage in heard.stages if stage != "deliver"] == [
        "list",
        "machines",
        "extract",
        "download",
    ]
    assert json.loads((tmp_path / "out/manifest.json").read_text())["status"] == "complete"
    assert (tmp_path / "out/files/_delta_log").is_dir()
    assert not aws.runs
    assert schedules(aws) == []
    assert "no machine runs" in heard.said


def test_the_cost_is_shown_from_machine_hours(aws, heard: Heard) -> None:
    aws.instances = [machine(1.0), machine(0.5, market="SPOT")]
    write_manifest(started_at=LONG_AGO)
    aws.after["ListSteps"] = lambda: None if aws.timeline else write_manifest()
    _, cost = launch.launch(asked(), heard)
    known = prices.load()
    here = known.region(REGION)
    other = here.emr_hour["m7g.xlarge"] + here.ebs_gb_month * 79 / 730
    full = here.machine_hour["m7g.xlarge"]
    usd = full + other + (full * known.spot_share + other) / 2
    assert cost is not None
    assert cost.eur == pytest.approx(usd * known.eur_per_usd)
    assert "1.50 machine-hours" in heard.said
    assert str(known.eur_dated) in heard.said, "the date of the rate is shown"
    assert "as remembered on" in heard.said, "the date of the prices is"
    assert "without tax" in heard.said


def test_while_it_runs_a_clock_in_the_account_would_end_it(aws, heard: Heard, clock) -> None:
    found = []

    def look() -> None:
        client = make_session().client("scheduler")
        found.append(client.get_schedule(Name="j-1", GroupName="verger"))
        write_manifest()

    at_step(aws, 2, look)
    begun = clock.now()
    launch.launch(asked(max_cost=2.0), heard)
    (schedule,) = found
    assert schedule["Target"]["Arn"] == "arn:aws:scheduler:::aws-sdk:emr:terminateJobFlows"
    assert json.loads(schedule["Target"]["Input"]) == {"JobFlowIds": ["j-1"]}
    assert schedule["Target"]["RoleArn"] == STACK.scheduler_role
    assert schedule["ActionAfterCompletion"] == "DELETE"
    end = datetime.fromisoformat(schedule["ScheduleExpression"][3:-1]).replace(tzinfo=timezone.utc)
    rate = prices.load()
    here = rate.region(REGION)
    one = here.machine_hour["m7g.xlarge"] + here.emr_hour["m7g.xlarge"]
    one += here.ebs_gb_month * 79 / 730
    hours = (end - begun).total_seconds() / 3600 + ENDING_MINUTES / 60
    assert hours * 3 * one * rate.eur_per_usd == pytest.approx(2.0, abs=0.01), "the ceiling"
    words = aws.request("RunJobFlow")["Steps"][0]["HadoopJarStep"]["Args"]
    told = words[words.index("--deadline") + 1]
    deadline = datetime.strptime(told, "%Y-%m-%dT%H:%M:%S%z")
    assert timedelta(0) < end - deadline <= MARGIN + timedelta(seconds=1)


def test_what_is_uploaded_once_is_not_uploaded_again(aws, heard: Heard) -> None:
    at_step(aws, 2, write_manifest)
    launch.launch(asked(), heard)
    assert "deliver" in heard.stages
    again, aws.timeline, aws._tags = Heard(), [("RUNNING", "RUNNING")], None
    at_step(aws, 2, write_manifest)
    launch.launch(asked(), again)
    assert "deliver" not in again.stages


def test_the_same_command_follows_what_runs_already(aws, heard: Heard) -> None:
    at_step(aws, 2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        launch.launch(asked(), heard)
    at_step(aws, 3, write_manifest)
    again = Heard()
    assert launch.launch(asked(), again)[0].status == "complete"
    assert aws.names.count("RunJobFlow") == 1
    assert "following it" in again.said
    assert schedules(aws) == []


def test_the_manifest_of_an_earlier_run_says_nothing_of_one_that_is_followed(
    aws, heard: Heard
) -> None:
    write_manifest("deadline", started_at=LONG_AGO)
    launch.start(asked(), heard)
    aws.end = ("TERMINATED_WITH_ERRORS", "CANCELLED", "INSTANCE_FAILURE", "On the master instance")
    with pytest.raises(SetupError, match="On the master instance"):
        launch.launch(asked(), heard)


@pytest.mark.parametrize(
    ("source", "output", "kind", "words"),
    [
        ("s3://ohio/in", OUTPUT, RefusedError, "us-east-2"),
        (SOURCE, "s3://ohio/out", RefusedError, "us-east-2"),
        (SOURCE, "s3://erin/out", InputError, "eu-west-1"),
        (SOURCE, "s3://photos/in/out", UsageError, "inside the input"),
        ("s3://nowhere-at-all/in", OUTPUT, InputError, "does not exist"),
        ("s3://photos/empty", OUTPUT, InputError, "holds no file"),
        ("/photos", OUTPUT, UsageError, "not on S3"),
    ],
)
def test_a_wrong_place_is_refused_before_anything_is_created(
    aws, heard: Heard, source: str, output: str, kind: type[VergerError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        launch.launch(Launch(RunSettings(input=source, output=output)), heard)
    assert "RunJobFlow" not in aws.names
    assert make_session().client("s3").list_objects_v2(Bucket="orchard")["KeyCount"] == 0


def test_a_bucket_that_the_roles_do_not_have_is_refused(aws, port: int, heard: Heard) -> None:
    make_bucket(port, "strange")
    with pytest.raises(InputError, match="may not use the bucket strange") as caught:
        launch.launch(Launch(RunSettings(input=SOURCE, output="s3://strange/out")), heard)
    assert "--also photos --also strange" in caught.value.hint
    assert aws.calls == []


def test_too_little_money_is_refused_before_anything_is_created(aws, heard: Heard) -> None:
    with pytest.raises(RefusedError, match=r"0\.10 EUR"):
        launch.launch(asked(max_cost=0.1), heard)
    assert "RunJobFlow" not in aws.names


def test_without_credentials_nothing_starts(aws, monkeypatch, heard: Heard, tmp_path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(SetupError, match="no AWS credentials"):
        launch.launch(asked(), heard)
    assert aws.calls == []


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (AwsError("LimitExceededException", "32 processors"), "quota.*32 processors"),
        (AwsError("AccessDeniedException"), "may not"),
        (AwsError("ValidationException", "no such release"), "no such release"),
    ],
)
def test_a_refusal_to_start_is_a_clear_line(aws, heard: Heard, refusal, words: str) -> None:
    def refuse() -> None:
        raise refusal

    aws.at["RunJobFlow"] = refuse
    with pytest.raises(SetupError, match=words):
        launch.launch(asked(), heard)
    assert schedules(aws) == []


def test_without_its_clock_a_cluster_does_not_stay(aws, heard: Heard) -> None:
    make_session().client("scheduler").delete_schedule_group(Name="verger")
    with pytest.raises(SetupError):
        launch.launch(asked(), heard)
    assert "TerminateJobFlows" in aws.names
    assert "was told to end" in heard.said
    make_session().client("scheduler").create_schedule_group(Name="verger")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("VALIDATION_ERROR", "quota"),
        ("BOOTSTRAP_FAILURE", "set up"),
        ("INSTANCE_FAILURE", "spot"),
        ("INSTANCE_FLEET_TIMEOUT", "not enough such machines"),
        ("INTERNAL_ERROR", "AWS failed"),
    ],
)
def test_a_cluster_that_fails_by_itself_is_explained(aws, heard, code: str, words: str) -> None:
    aws.timeline = [("STARTING", "PENDING"), ("BOOTSTRAPPING", "PENDING")]
    aws.end = ("TERMINATED_WITH_ERRORS", "CANCELLED", code, "On the master instance")
    with pytest.raises(SetupError, match="On the master instance") as caught:
        launch.launch(asked(), heard)
    assert words in caught.value.hint
    assert schedules(aws) == []
    assert not aws.runs


@pytest.mark.parametrize(("exit_code", "kind"), [(4, TooManyRejectedError), (3, InputError)])
def test_a_step_that_fails_says_why_in_its_own_words(
    aws, heard: Heard, exit_code: int, kind: type[VergerError]
) -> None:
    log = (
        "26/01/31 12:00:00 INFO ApplicationMaster: Started\n"
        "Error: 9 of 10 images were rejected.\nSee rejected/.\n"
        f"26/01/31 12:00:01 ERROR ApplicationMaster: User application exited with {exit_code}\n"
    )
    aws.end = ("TERMINATED_WITH_ERRORS", "FAILED", "STEP_FAILURE", "Shut down as step failed")
    key = "_verger/logs/j-1/containers/application_1/container_1_0001_01_000001/stderr.gz"

    def write() -> None:
        client = make_session().client("s3")
        client.put_object(Bucket="orchard", Key=key, Body=gzip.compress(log.encode()))

    at_step(aws, 3, write)
    with pytest.raises(kind, match="The job failed: 9 of 10 images were rejected") as caught:
        launch.launch(asked(), heard)
    assert caught.value.hint == "See rejected/."
    assert not aws.runs


def test_a_step_without_a_log_says_where_it_will_be(aws, heard: Heard) -> None:
    aws.end = ("TERMINATED_WITH_ERRORS", "FAILED", "STEP_FAILURE", "Shut down as step failed")
    with pytest.raises(SetupError, match="Shut down as step failed") as caught:
        launch.launch(asked(), heard)
    assert "verger cloud logs" in caught.value.hint


def test_a_deadline_inside_the_job_can_be_resumed(aws, heard: Heard) -> None:
    aws.end = ("TERMINATED_WITH_ERRORS", "FAILED", "STEP_FAILURE", "Shut down as step failed")
    at_step(aws, 3, lambda: write_manifest("deadline"))
    with pytest.raises(DeadlineReached, match="What is done is kept"):
        launch.launch(asked(), heard)
    assert not aws.runs


def test_a_job_that_hangs_is_ended_when_its_time_is_over(aws, heard: Heard, clock) -> None:
    aws.hangs = True
    begun = clock.now()
    with pytest.raises(DeadlineReached, match="hung"):
        launch.launch(asked(max_cost=1.0, poll_seconds=120), heard)
    assert "TerminateJobFlows" in aws.names
    assert clock.now() > begun + timedelta(hours=1)
    assert not aws.runs
    assert schedules(aws) == []


def test_a_cluster_that_does_not_end_is_told_of(aws, heard: Heard) -> None:
    aws.hangs, aws.obeys = True, False
    with pytest.raises(SetupError, match="told to end and is still running"):
        launch.launch(asked(max_cost=1.0, poll_seconds=120), heard)
    assert "still runs and costs money" in heard.said
    assert "verger cloud stop" in heard.said
    assert len(schedules(aws)) == 1, "the clock in the account goes on"


def test_a_stop_by_someone_else_is_told(aws, heard: Heard) -> None:
    aws.end = ("TERMINATED", "CANCELLED", "USER_REQUEST", "Terminated by user request")
    with pytest.raises(SetupError, match="stopped by someone"):
        launch.launch(asked(), heard)
    assert not aws.runs


def test_ctrl_c_before_the_start_leaves_nothing(aws, monkeypatch, heard: Heard) -> None:
    monkeypatch.setattr(delivery, "deliver", lambda *_: interrupt())
    with pytest.raises(KeyboardInterrupt):
        launch.launch(asked(), heard)
    assert "Nothing runs on AWS yet" in heard.said
    assert "RunJobFlow" not in aws.names


@pytest.mark.parametrize("moment", ["at", "after"])
def test_ctrl_c_in_the_middle_of_the_start_leaves_nothing(aws, heard: Heard, moment: str) -> None:
    getattr(aws, moment)["RunJobFlow"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        launch.launch(asked(), heard)
    assert ("TerminateJobFlows" in aws.names) == (moment == "after")
    assert schedules(aws) == []


@pytest.mark.parametrize("count", [1, 2, 3])
def test_ctrl_c_while_following_says_what_runs_and_how_to_stop_it(
    aws, heard: Heard, count: int
) -> None:
    at_step(aws, count + 1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        launch.launch(asked(), heard)
    last = heard.notes[-1]
    assert "cluster j-1" in last
    assert "still runs and costs money" in last
    assert "UTC" in last
    assert "verger cloud stop" in last
    assert len(schedules(aws)) == 1


def test_ctrl_c_while_its_cost_is_asked_leaves_no_schedule(aws, heard: Heard) -> None:
    aws.at["ListInstances"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        launch.launch(asked(), heard)
    assert not aws.runs
    assert schedules(aws) == []


def test_a_network_that_comes_back_is_waited_for(aws, heard: Heard) -> None:
    at_step(aws, 2, lose_network)
    aws.after["ListSteps"] = lambda: None if aws.timeline else write_manifest()
    assert launch.launch(asked(), heard)[0].status == "complete"
    assert "AWS does not answer" in heard.said


def test_a_network_that_stays_away_is_told_with_what_still_runs(aws, heard: Heard) -> None:
    aws.at["ListSteps"] = lose_network
    with pytest.raises(SetupError, match="does not answer"):
        launch.launch(asked(), heard)
    assert "still runs and costs money" in heard.notes[-1]
    assert "verger cloud stop" in heard.notes[-1]


def test_a_network_lost_at_the_start_does_not_hide_what_may_run(aws, heard: Heard) -> None:
    aws.after["RunJobFlow"] = lambda: aws.at.update(ListClusters=lose_network) or lose_network()
    with pytest.raises(SetupError, match="does not say whether verger-") as caught:
        launch.launch(asked(), heard)
    assert "verger cloud stop" in caught.value.hint


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        ([{"ErrorCode": "INTERNAL_ERROR_EC2_INSUFFICIENT_CAPACITY_AZ"}], "On the core fleet"),
        ([], "We currently do not have sufficient m7g.xlarge capacity in eu-west-3a"),
    ],
)
def test_a_zone_without_machines_is_not_called_a_quota(
    aws, heard: Heard, errors: list[dict], message: str
) -> None:
    aws.timeline, aws.errors = [("STARTING", "PENDING")], errors
    aws.end = ("TERMINATED_WITH_ERRORS", "CANCELLED", "VALIDATION_ERROR", message)
    with pytest.raises(SetupError, match="INSUFFICIENT_CAPACITY") as caught:
        launch.launch(asked(), heard)
    assert "No zone has such machines free now" in caught.value.hint
    assert not aws.runs


def test_capacity_gone_in_one_zone_leaves_the_others(aws, heard: Heard) -> None:
    aws.zones["subnet-1"] = ("eu-west-3a", set())
    at_step(aws, 2, write_manifest)
    launch.launch(asked(), heard)
    instances = aws.request("RunJobFlow")["Instances"]
    assert instances["Ec2SubnetIds"] == ["subnet-2", "subnet-3"]
    kinds = instances["InstanceFleets"][0]["InstanceTypeConfigs"]
    assert [kind["InstanceType"] for kind in kinds] == ["m7g.xlarge", "m6g.xlarge"]


def test_a_quota_of_five_gets_one_machine_that_is_primary_and_worker(aws, heard: Heard) -> None:
    aws.quotas = {"L-1216C47A": 5.0, "L-34B43A08": 5.0}
    at_step(aws, 2, write_manifest)
    run = RunSettings(input=SOURCE, output=OUTPUT)
    launch.launch(Launch(run, time=Time(CLOCK.now, CLOCK.sleep)), heard)
    request = aws.request("RunJobFlow")
    (fleet,) = request["Instances"]["InstanceFleets"]
    assert (fleet["InstanceFleetType"], fleet["TargetOnDemandCapacity"]) == ("MASTER", 1)
    assert "yarn-site" not in str(request["Configurations"]), "nothing has the label CORE"
    assert "spark.executor.instances=1" in request["Steps"][0]["HadoopJarStep"]["Args"]
    assert "one machine, primary and worker" in heard.said
    assert "Ask AWS for 32 processors" in heard.said


WORDS = ["cloud", "run", "--input", SOURCE, "--output", OUTPUT, "--workers", "2"]


def test_the_command_shows_the_matrix_and_the_manifest(aws) -> None:
    aws.after["ListSteps"] = lambda: None if aws.timeline else write_manifest()
    done = CliRunner().invoke(app, [*WORDS, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["status"] == "complete"
    assert "no machine runs" in done.stderr


@pytest.mark.parametrize(
    ("action", "code", "words"),
    [
        (lambda: write_manifest("deadline"), 7, "What is done is kept"),
        (interrupt, 130, "still runs and costs money"),
    ],
)
def test_the_command_ends_with_an_exit_code(aws, action, code: int, words: str) -> None:
    aws.end = ("TERMINATED_WITH_ERRORS", "FAILED", "STEP_FAILURE", "Shut down as step failed")
    at_step(aws, 3, action)
    done = CliRunner().invoke(app, WORDS)
    assert done.exit_code == code, done.output
    assert words in done.stderr


def test_a_request_is_printed_and_nothing_is_made(aws) -> None:
    done = CliRunner().invoke(app, [*WORDS, "--print-request"])
    assert done.exit_code == 0, done.output
    request = json.loads(done.stdout)
    model = make_session().client("emr").meta.service_model.operation_model("RunJobFlow")
    validate_parameters(request, model.input_shape)
    assert request["Instances"]["Ec2SubnetIds"] == list(STACK.subnets)
    assert "verger cloud deliver --region eu-west-3" in done.stderr.replace("\n", " ")
    assert "RunJobFlow" not in aws.names
    assert schedules(aws) == []
    assert make_session().client("s3").list_objects_v2(Bucket="orchard")["KeyCount"] == 0


def test_the_dag_of_the_how_to_gives_its_operator_what_emr_takes(
    aws, monkeypatch, tmp_path: Path
) -> None:
    """All of the example runs but Airflow, which is played: its bash task returns the last line
    of both streams."""
    text = (Path(__file__).parents[2] / "docs/howto/emr.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    printed = tmp_path / "printed"
    shim = tmp_path / "verger"
    shim.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/words\ncat {printed}.err >&2\ncat {printed}.out\n'
    )
    shim.chmod(0o755)
    done = CliRunner().invoke(app, [*WORDS, "--print-request"])
    Path(f"{printed}.err").write_text(done.stderr)
    Path(f"{printed}.out").write_text(done.stdout)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def bash(function):
        def last_line() -> str:
            ran = subprocess.run(
                ["bash", "-c", function()],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=True,
            )
            return ran.stdout.splitlines()[-1].rstrip()

        return last_line

    def task(function):
        return function

    task.bash = bash
    given: dict[str, object] = {}
    played = {
        "airflow.decorators": {"dag": lambda **_: task, "task": task},
        "airflow.providers.amazon.aws.operators.emr": {"EmrCreateJobFlowOperator": given.update},
        "pendulum": {"datetime": datetime},
    }
    for name, content in played.items():
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            module = ModuleType(".".join(parts[:end]))
            vars(module).update(content if end == len(parts) else {})
            monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(example, {})  # noqa: S102 - of this repository
    assert given["wait_for_completion"] is True
    assert given["emr_conn_id"] is None
    wanted = given["job_flow_overrides"]
    model = make_session().client("emr").meta.service_model.operation_model("RunJobFlow")
    validate_parameters(wanted, model.input_shape)
    assert wanted == json.loads(done.stdout)
    # What the example asks of the command is what the command knows.
    words = (tmp_path / "words").read_text().replace("NAME/images", "photos/in")
    again = CliRunner().invoke(app, words.replace("NAME", "orchard").split())
    assert again.exit_code == 0, again.output
    validate_parameters(json.loads(again.stdout), model.input_shape)


def test_a_request_names_what_deliver_uploads(aws, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("verger.cloud.account.stack.find_stack", lambda *_: STACK)
    bundle = delivery.make_bundle()

    def make_bundle(_arch: str, _progress: Progress, network: str) -> delivery.Bundle:
        backbone = tmp_path / f"{network}.zip"
        backbone.write_text(network)
        return bundle._replace(backbone=backbone)

    monkeypatch.setattr(delivery, "make_bundle", make_bundle)
    asking = [*WORDS, "--network", "efficientnet_lite2", "--print-request"]
    told = re.search(r"first: verger (.*)", CliRunner().invoke(app, asking).stderr)
    assert told is not None
    delivered = CliRunner().invoke(app, told[1].split())
    assert delivered.exit_code == 0, delivered.output
    done = CliRunner().invoke(app, asking)
    assert "verger cloud deliver" not in done.stderr
    assert "efficientnet_lite2.zip" in done.stdout
    assert all(uri in done.stdout for uri in delivered.stdout.split())


def test_a_run_that_is_left_to_itself_goes_on_and_is_followed_by_the_same_command(aws) -> None:
    left = CliRunner().invoke(app, [*WORDS, "--detach"])
    assert left.exit_code == 0, left.output
    assert "Started the cluster j-1" in left.stderr
    assert "without --detach follows it" in left.stderr.replace("\n", " ")
    assert aws.runs
    assert len(schedules(aws)) == 1
    aws.after["ListSteps"] = lambda: None if aws.timeline else write_manifest()
    done = CliRunner().invoke(app, [*WORDS, "--json"])
    assert done.exit_code == 0, done.output
    assert "following it" in done.stderr
    assert aws.names.count("RunJobFlow") == 1


def test_what_does_not_go_together_is_refused(aws) -> None:
    for more in (["--detach", "--download", "x"], ["--detach", "--print-request"]):
        assert CliRunner().invoke(app, [*WORDS, *more]).exit_code == 2
    assert aws.calls == []


def test_logs_are_followed_as_they_come(aws, heard: Heard, monkeypatch) -> None:
    monkeypatch.setattr("verger.cloud.account.stack.find_stack", lambda *_: STACK)
    monkeypatch.setattr(cloud_jobs, "make_session", places.make_session)
    assert CliRunner().invoke(app, [*WORDS, "--detach"]).exit_code == 0
    key = "_verger/logs/j-1/containers/application_1/container_1_0001_01_000001/stderr.gz"
    texts = ["first\n", "first\nsecond\n", "first\nsecond\nlast\n"]
    client = make_client(int(make_session().client("s3").meta.endpoint_url.rpartition(":")[2]))

    def write() -> None:
        if texts:
            body = gzip.compress(texts.pop(0).encode())
            client.put_object(Bucket="orchard", Key=key, Body=body)

    aws.after["ListSteps"] = write
    done = CliRunner().invoke(app, ["cloud", "logs", "--follow", "--job", "j-1"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line for line in lines if line in {"first", "second", "last"}] == [
        "first", "second", "last",
    ]  # fmt: skip
    assert lines[-1].startswith("cluster j-1 in eu-west-3: ended")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--arch", "sparc"], "--arch"),
        (["--components", "0"], "--components"),
        (["--workers", "0"], "--workers"),
        (["--max-cost", "0"], "--max-cost"),
    ],
)
def test_a_bad_option_is_named(aws, options: list[str], words: str) -> None:
    done = CliRunner().invoke(app, [*WORDS, *options])
    assert done.exit_code == 2
    assert words in done.stderr
    assert aws.calls == []


def give_copy(aws: FakeAws, text: bytes) -> None:
    """Have the job write the executed copy where it was told to."""

    def write() -> None:
        words = aws.request("RunJobFlow")["Steps"][0]["HadoopJarStep"]["Args"]
        place = words[words.index("execute-notebook") + 2].removeprefix("s3://orchard/")
        make_session().client("s3").put_object(Bucket="orchard", Key=place, Body=text)

    at_step(aws, 3, write)


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    file = tmp_path / "paper.ipynb"
    file.write_text('{"cells": [{"cell_type": "code", "metadata": {}}]}')
    return file


def test_a_notebook_is_uploaded_executed_and_fetched(
    aws, heard: Heard, paper: Path, tmp_path: Path
) -> None:
    give_copy(aws, b"executed")
    launch_notebook(asked(), paper, tmp_path / "done.ipynb", heard)
    assert (tmp_path / "done.ipynb").read_bytes() == b"executed"
    words = aws.request("RunJobFlow")["Steps"][0]["HadoopJarStep"]["Args"]
    source = words[words.index("execute-notebook") + 1].removeprefix("s3://orchard/")
    stored = make_session().client("s3").get_object(Bucket="orchard", Key=source)
    assert stored["Body"].read() == paper.read_bytes()
    told = {word: words[words.index(word) + 1] for word in ("--input", "--output", "--components")}
    assert told == {"--input": SOURCE, "--output": OUTPUT, "--components": "2"}
    assert words[-2:] == ["--weights", "backbone.zip"]
    assert not aws.runs
    assert schedules(aws) == []


def test_the_copy_of_a_notebook_that_failed_is_fetched_and_the_failure_said(
    aws, heard: Heard, paper: Path, tmp_path: Path
) -> None:
    aws.end = ("TERMINATED_WITH_ERRORS", "FAILED", "STEP_FAILURE", "a step failed")
    give_copy(aws, b"half of it")
    with pytest.raises(VergerError, match="The job failed"):
        launch_notebook(asked(), paper, tmp_path / "done.ipynb", heard)
    assert (tmp_path / "done.ipynb").read_bytes() == b"half of it"
    assert not aws.runs


def test_what_is_no_notebook_starts_nothing(aws, heard: Heard, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match=r"photo\.jpg is no notebook"):
        launch_notebook(asked(), tmp_path / "photo.jpg", tmp_path / "done.ipynb", heard)
    assert aws.calls == []


def test_a_notebook_that_left_no_copy_is_no_success(aws, heard: Heard, paper: Path) -> None:
    with pytest.raises(SetupError, match=r"executed/.*ipynb cannot be fetched"):
        launch_notebook(asked(), paper, paper.with_name("done.ipynb"), heard)
    assert not aws.runs


def begin(paper: Path, aws: FakeAws, heard: Heard) -> None:
    """Have a notebook work on the output."""
    at_step(aws, 2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        launch_notebook(asked(), paper, paper.with_name("done.ipynb"), heard)
    del aws.at["DescribeCluster"]


def test_a_run_does_not_follow_a_notebook(aws, heard: Heard, paper: Path) -> None:
    begin(paper, aws, heard)
    with pytest.raises(UsageError, match="does something else"):
        launch.launch(asked(), heard)
    assert aws.names.count("RunJobFlow") == 1


def test_a_notebook_does_not_follow_another(aws, heard: Heard, paper: Path) -> None:
    begin(paper, aws, heard)
    other = paper.with_name("other.ipynb")
    other.write_text(f"{paper.read_text()}\n")
    with pytest.raises(UsageError, match="does something else"):
        launch_notebook(asked(), other, paper.with_name("done.ipynb"), heard)
    assert aws.names.count("RunJobFlow") == 1


def test_the_same_notebook_is_followed(aws, heard: Heard, paper: Path) -> None:
    begin(paper, aws, heard)
    give_copy(aws, b"executed")
    launch_notebook(asked(), paper, paper.with_name("done.ipynb"), heard)
    assert "following it" in heard.said
    assert aws.names.count("RunJobFlow") == 1


def test_a_run_to_the_output_of_a_notebook_starts_nothing(aws, heard: Heard) -> None:
    key = f"{OUTPUT.removeprefix('s3://orchard/')}/pca/matrix.csv"
    make_session().client("s3").put_object(Bucket="orchard", Key=key, Body=b"path\n")
    with pytest.raises(UsageError, match="no run of verger made them"):
        launch.launch(asked(), heard)
    assert "RunJobFlow" not in aws.names


def test_a_notebook_that_was_stopped_is_not_said_to_go_on(aws, heard: Heard, paper: Path) -> None:
    aws.end = ("TERMINATED", "CANCELLED", "USER_REQUEST", "by a user")
    with pytest.raises(SetupError, match="was stopped by someone") as caught:
        launch_notebook(asked(), paper, paper.with_name("done.ipynb"), heard)
    assert "begins again" in caught.value.hint


def test_a_manifest_that_cannot_be_read_afterwards_is_said(aws, heard: Heard, monkeypatch) -> None:
    def fail(_: Output) -> Manifest:
        raise OSError("no route to host")

    monkeypatch.setattr(launch, "read_manifest", fail)
    with pytest.raises(SetupError, match="manifest cannot be read: no route"):
        launch.launch(asked(), heard)
    assert not aws.runs


def test_a_notebook_on_an_output_of_a_run_starts_nothing(aws, heard: Heard, paper: Path) -> None:
    write_manifest()
    with pytest.raises(UsageError, match="output of `run`"):
        launch_notebook(asked(), paper, paper.with_name("done.ipynb"), heard)
    assert "RunJobFlow" not in aws.names


@pytest.mark.parametrize("name", ["paper.ipynb", ".", "gone/done.ipynb"])
def test_a_copy_that_cannot_be_written_starts_nothing(
    aws, heard: Heard, paper: Path, name: str
) -> None:
    with pytest.raises(UsageError, match="copy"):
        launch_notebook(asked(), paper, paper.parent / name, heard)
    assert aws.calls == []


def test_a_bucket_that_takes_no_code_is_said(aws, heard: Heard, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        answer = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        error = S3UploadFailedError("Failed to upload")
        error.__context__ = ClientError(answer, "PutObject")
        raise error

    monkeypatch.setattr("boto3.s3.inject.upload_file", refuse)
    monkeypatch.setattr(delivery, "_is_there", lambda *_: False)
    with pytest.raises(InputError, match="forbidden"):
        launch.launch(asked(), heard)
    assert "RunJobFlow" not in aws.names


def test_what_is_large_goes_and_comes_in_parts(aws, heard: Heard, tmp_path: Path) -> None:
    """As packages do: boto3 cuts what is larger than 8 MiB."""
    large = tmp_path / "environment.tar.gz"
    large.write_bytes(b"some packages " * 1_500_000)
    session = make_session()
    uri = delivery.deliver(session, STACK, [large], heard)[large]
    assert delivery.missing(session, STACK, {large: uri}) == []
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    tag = session.client("s3").head_object(Bucket=bucket, Key=key)["ETag"]
    assert tag.endswith('-3"'), "S3 gives a file of three parts a tag that says so"
    download.download(session, Location(uri.rpartition("/")[0]), tmp_path / "back", heard)
    assert (tmp_path / "back" / large.name).read_bytes() == large.read_bytes()
