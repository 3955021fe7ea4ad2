"""The parts of a run on AWS: requests, logs, and what is found and stopped on moto."""

import dataclasses
import gzip
import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from test_cloud_run import OUTPUT, REGION, SOURCE, STACK, Heard
from typer.testing import CliRunner

from helpers import verger
from stores import aws_settings, make_bucket, make_client, moto_server
from verger.cli import cloud_jobs
from verger.cli.main import app
from verger.cloud.jobs import download, follow, inventory, logs
from verger.cloud.jobs.bundle import ENTRY
from verger.cloud.jobs.cluster import Cluster, cluster_request, list_clusters, start_cluster
from verger.cloud.jobs.inventory import Inventory
from verger.cloud.jobs.job import Job, State
from verger.cloud.jobs.schedule import schedule_request
from verger.cloud.jobs.submit import job_command, spark_properties, submit_arguments
from verger.errors import InputError, SetupError
from verger.progress import Progress, Time
from verger.settings import RunSettings
from verger.store.errors import aws_errors
from verger.store.location import Location
from verger.store.regions import OPT_IN
from verger.store.session import make_session

END = datetime(2026, 1, 31, 20, 0, tzinfo=timezone.utc)


def make_job(**changes: object) -> Job:
    run = RunSettings(input=SOURCE, output=OUTPUT, components="0.95", label_from="none", fresh=True)
    job = Job(
        run_id="20260131-1200-abcd",
        output=Location(OUTPUT),
        properties=spark_properties(
            region=REGION,
            environment="s3://orchard/e.tar.gz",
            code="s3://orchard/v.zip",
            backbone="s3://o/b.zip",
        ),
        entry=f"s3://orchard/{ENTRY.name}",
        command=job_command(run, END),
        arch="arm64",
        machines=("m7g.xlarge", "m6g.xlarge"),
        subnets=STACK.subnets[:2],
        workers=3,
        spot=False,
        ends_at=END,
    )
    return dataclasses.replace(job, **changes)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with moto_server() as port:
        make_bucket(port, "orchard")
        yield port


SOON = Time(poll_seconds=0.01)


@pytest.fixture
def env(port: int, monkeypatch) -> Iterator[dict[str, str]]:
    with aws_settings(port, monkeypatch) as env:
        make_session().client("scheduler").create_schedule_group(Name="verger")
        yield env


def test_the_cluster_is_transient_encrypted_private_and_tagged() -> None:
    request = cluster_request(make_job(), STACK)
    assert request["ReleaseLabel"] == "emr-7.14.0"
    assert request["Instances"]["KeepJobFlowAliveWhenNoSteps"] is False
    assert request["Instances"]["Ec2SubnetIds"] == ["subnet-1", "subnet-2"]
    assert request["AutoTerminationPolicy"]["IdleTimeout"] == 900
    assert request["SecurityConfiguration"] == STACK.security_configuration
    assert request["LogUri"].startswith(f"s3://{STACK.bucket}/")
    logged = request["MonitoringConfiguration"]["S3LoggingConfiguration"]["LogTypeUploadPolicy"]
    assert logged["system-logs"] == logged["application-logs"] == "on-customer-s3only"
    assert logged["persistent-ui-logs"] == "disabled"
    tags = {tag["Key"]: tag["Value"] for tag in request["Tags"]}
    assert tags["application"] == "verger"
    assert tags["for-use-with-amazon-emr-managed-policies"] == "true"
    assert tags["run"] == "20260131-1200-abcd"
    (step,) = request["Steps"]
    assert step["ActionOnFailure"] == "TERMINATE_CLUSTER"


def test_the_step_is_the_one_that_yarn_is_rehearsed_with() -> None:
    job = make_job()
    words = cluster_request(job, STACK)["Steps"][0]["HadoopJarStep"]["Args"]
    rehearsed = submit_arguments(job.properties, entry=job.entry, command=job.command)
    assert words[0] == "spark-submit"
    assert set(rehearsed) < set(words)
    assert words[1:3] == rehearsed[:2] == ["--deploy-mode", "cluster"]
    assert words[words.index(job.entry) :] == rehearsed[rehearsed.index(job.entry) :]
    assert "spark.pyspark.python=python3.11" in words


def test_every_process_of_the_cluster_is_told_the_region() -> None:
    words = cluster_request(make_job(), STACK)["Steps"][0]["HadoopJarStep"]["Args"]
    for process in ("spark.yarn.appMasterEnv", "spark.executorEnv"):
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            assert f"{process}.{name}={REGION}" in words
    assert f"spark.hadoop.fs.s3a.endpoint.region={REGION}" in words


def examples(language: str) -> list[str]:
    text = (Path(__file__).parents[2] / "docs/howto/emr.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_state_machine_of_the_how_to_calls_what_emr_has() -> None:
    (text,) = examples("json")
    machine = json.loads(text)
    states = machine["States"]
    operations = boto3.client("emr", region_name=REGION).meta.service_model.operation_names
    tasks = [state for state in states.values() if state["Type"] == "Task"]
    for task in tasks:
        name = task["Resource"].removeprefix("arn:aws:states:::aws-sdk:emr:")
        assert name[0].upper() + name[1:] in operations
    followers = {state["Next"] for state in states.values() if "Next" in state}
    assert {machine["StartAt"], *followers} <= states.keys()
    assert "TERMINATED_WITH_ERRORS" in text


def test_the_command_has_what_was_asked_and_the_deadline() -> None:
    words = make_job().command
    assert words[:3] == ("run", SOURCE, OUTPUT)
    assert words[words.index("--components") + 1] == "0.95"
    assert words[words.index("--label-from") + 1] == "none"
    assert "--fresh" in words
    assert words[words.index("--deadline") + 1] == "2026-01-31T20:00:00Z"


def fleets(job: Job) -> dict[str, dict]:
    found = cluster_request(job, STACK)["Instances"]["InstanceFleets"]
    return {fleet["InstanceFleetType"]: fleet for fleet in found}


def test_on_demand_there_is_a_primary_machine_and_workers_of_the_architecture() -> None:
    found = fleets(make_job())
    assert set(found) == {"MASTER", "CORE"}
    assert found["CORE"]["TargetOnDemandCapacity"] == 3
    kinds = [kind["InstanceType"] for kind in found["CORE"]["InstanceTypeConfigs"]]
    assert kinds == ["m7g.xlarge", "m6g.xlarge"]


def test_spot_machines_fall_back_to_on_demand_and_never_hold_the_driver() -> None:
    found = fleets(make_job(spot=True))
    assert found["MASTER"]["TargetSpotCapacity"] == found["CORE"]["TargetSpotCapacity"] == 0
    assert found["CORE"]["TargetOnDemandCapacity"] == 1
    assert found["TASK"]["TargetSpotCapacity"] == 2
    spot = found["TASK"]["LaunchSpecifications"]["SpotSpecification"]
    assert spot["TimeoutAction"] == "SWITCH_TO_ON_DEMAND"
    yarn = next(
        one["Properties"]
        for one in cluster_request(make_job(spot=True), STACK)["Configurations"]
        if one["Classification"] == "yarn-site"
    )
    assert yarn["yarn.node-labels.am.default-node-label-expression"] == "CORE"


def test_one_worker_needs_no_spot_machine() -> None:
    assert set(fleets(make_job(spot=True, workers=1))) == {"MASTER", "CORE"}


@pytest.mark.parametrize(
    ("region", "partition"), [("eu-west-3", "aws"), ("eusc-de-east-1", "aws-eusc")]
)
def test_the_schedule_is_in_the_partition_of_its_region(region: str, partition: str) -> None:
    request = schedule_request(dataclasses.replace(STACK, region=region), "j-1", END)
    assert request["Target"]["Arn"].startswith(f"arn:{partition}:scheduler:::")
    assert request["ScheduleExpression"] == "at(2026-01-31T20:00:00)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "26/01/31 12:00:00 INFO Client: x\nError: It failed.\nDo this.\n\nmore",
            ["Error: It failed.", "Do this."],
        ),
        (
            (
                "Traceback (most recent call last):\n  File 1\nValueError: first\n"
                "26/01/31 12:00:00 INFO y\n"
                "Traceback (most recent call last):\n  File 2\nKeyError: last\nafterwards"
            ),
            ["Traceback (most recent call last):", "  File 2", "KeyError: last"],
        ),
        (
            (
                "26/01/31 12:00:00 INFO y\nException in thread main x.SparkException: no\n"
                "\tat scala\nCaused by: java.io.IOException: disk"
            ),
            [
                "Exception in thread main x.SparkException: no",
                "Caused by: java.io.IOException: disk",
            ],
        ),
        ("\n".join(map(str, range(100))), [str(line) for line in range(80, 100)]),
        ("", []),
    ],
)
def test_the_error_is_found_in_a_log(text: str, expected: list[str]) -> None:
    assert logs.find_error([text]) == expected


def test_verger_s_own_words_come_before_the_traceback_of_another_log() -> None:
    texts = ["Traceback (most recent call last):\nKeyError: 1", "Error: It failed."]
    assert logs.find_error(texts) == ["Error: It failed."]


def test_the_end_of_a_large_log_is_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(logs, "MAX_LINES", 3)
    file = tmp_path / "stderr.gz"
    # In two parts, as gzip appends.
    file.write_bytes(gzip.compress(b"some words\n" * 1000) + gzip.compress(b"Error: It failed.\n"))
    assert logs.read_log(Location(str(file))) == "some words\n" * 2 + "Error: It failed.\n"
    file.write_bytes(gzip.compress(b"what there is\n")[:-4])
    assert logs.read_log(Location(str(file))) == "what there is\n"


def test_a_log_that_cannot_be_read_once_is_not_shown_twice(monkeypatch) -> None:
    texts = ["first\n", "", "first\nlast\n"]

    class Fake:
        def state(self) -> State:
            return State("running" if texts[1:] else "ended")

        def logs(self, _: object) -> list[Location]:
            return [Location("/log.gz")]

    monkeypatch.setattr(follow, "read_log", lambda _: texts.pop(0))
    said: list[str] = []
    follow.follow_logs(Fake(), STACK, said.append, SOON)
    assert said == ["--- /log.gz", "first", "last"]


def test_logs_are_followed_past_a_failure_of_the_network() -> None:
    away = EndpointConnectionError(endpoint_url="https://elasticmapreduce.eu-west-3.amazonaws.com")
    states = [away, State("running"), State("ended")]
    listings = [[], away, []]

    def answer(answers: list[Any]) -> Any:
        with aws_errors("look"):
            if isinstance(one := answers.pop(0), Exception):
                raise one
        return one

    class Fake:
        def state(self) -> State:
            return answer(states)

        def logs(self, _: object) -> list[Location]:
            return answer(listings)

    said: list[str] = []
    assert follow.follow_logs(Fake(), STACK, said.append, SOON).phase == "ended"
    assert said == ["AWS does not answer; asking again. The job goes on meanwhile."] * 2
    assert (states, listings) == ([], [])


def test_a_damaged_or_missing_log_is_empty(env, port: int) -> None:
    make_client(port).put_object(Bucket="orchard", Key="bad.gz", Body=b"no gzip")
    assert logs.read_log(Location("s3://orchard/bad.gz")) == ""
    assert logs.read_log(Location("s3://orchard/none.gz")) == ""


def test_a_cluster_is_found_by_its_tags_shown_and_stopped(env, heard: Heard) -> None:
    session = make_session()
    job = make_job(ends_at=datetime.now(timezone.utc) + timedelta(hours=1))
    started = start_cluster(session, STACK, job, heard)
    foreign = session.client("emr").run_job_flow(
        Name="someone else's",
        Instances={"KeepJobFlowAliveWhenNoSteps": True},
        ServiceRole="r",
        JobFlowRole="r",
    )["JobFlowId"]
    assert [one.id for one in list_clusters(session, REGION)] == [started.id]
    assert started.state().phase == "running"
    shown = verger("cloud", "status", env=env)
    assert f"cluster {started.id} in {REGION}: running, 0.00 EUR so far" in shown.stdout
    assert foreign not in shown.stdout
    stopped = verger("cloud", "stop", env=env)
    assert stopped.returncode == 0, stopped.stderr
    assert f"Stopped: cluster {started.id}" in stopped.stderr
    assert started.state().phase == "ended"
    assert Cluster(session, REGION, foreign).state().phase != "ended"
    assert session.client("scheduler").list_schedules(GroupName="verger")["Schedules"] == []
    assert "Nothing of verger runs" in verger("cloud", "status", env=env).stdout
    (past,) = list_clusters(session, REGION, since=datetime.now(timezone.utc) - timedelta(days=1))
    assert past.id == started.id
    assert past.ends_at == job.ends_at.replace(microsecond=0)
    paid = verger("cloud", "costs", env=env)
    assert job.run_id in paid.stdout, paid.stderr
    assert "Without tax" in paid.stdout


def test_a_cost_that_is_not_known_is_said_as_it_is(monkeypatch) -> None:
    class Unknown(Cluster):
        def cost(self) -> None:
            raise SetupError("AWS refused: [/price] of m9z")

    found = Inventory((Unknown(None, REGION, "j-1"),), {})
    monkeypatch.setattr(cloud_jobs, "_look", lambda _: found)
    assert "[/price] of m9z" in CliRunner().invoke(app, ["cloud", "costs"]).stdout


def test_the_step_s_error_is_read_from_its_logs(env, port: int) -> None:
    key = "_verger/logs/j-9/containers/application_1/container_1_0001_01_000001/stderr.gz"
    body = gzip.compress(b"26/01/31 12:00:00 INFO x\nError: It failed.\nDo this.\n")
    make_client(port).put_object(Bucket="orchard", Key=key, Body=body)
    other = key.replace("_000001/", "_000002/")
    make_client(port).put_object(
        Bucket="orchard", Key=other, Body=gzip.compress(b"Error: not the driver\n")
    )
    step = "_verger/logs/j-9/steps/s-1/stderr.gz"
    make_client(port).put_object(Bucket="orchard", Key=step, Body=gzip.compress(b"Exit 1\n"))
    cluster = Cluster(make_session(), REGION, "j-9")
    assert logs.find_error(map(logs.read_log, cluster.logs(STACK))) == [
        "Error: It failed.",
        "Do this.",
    ]


def test_the_logs_of_the_latest_job_are_shown_by_the_command(
    env, port: int, heard: Heard, monkeypatch
) -> None:
    monkeypatch.setattr("verger.cloud.account.stack.find_stack", lambda *_: STACK)
    job = make_job(
        run_id="30000101-0000-last", ends_at=datetime.now(timezone.utc) + timedelta(hours=1)
    )
    cluster = start_cluster(make_session(), STACK, job, heard)
    inventory.stop_all([cluster], heard, SOON)
    nothing = CliRunner().invoke(app, ["cloud", "logs"])
    assert "no log yet" in nothing.stdout, nothing.output
    body = gzip.compress(b"Traceback (most recent call last):\n  File 1\nKeyError: 1\n")
    key = f"_verger/logs/{cluster.id}/steps/s-1/stderr.gz"
    make_client(port).put_object(Bucket="orchard", Key=key, Body=body)
    shown = CliRunner().invoke(app, ["cloud", "logs", "--job", cluster.id])
    assert shown.exit_code == 0, shown.output
    assert f"cluster {cluster.id}" in shown.stdout
    assert "KeyError: 1" in shown.stdout
    assert CliRunner().invoke(app, ["cloud", "logs", "--job", "j-none"]).exit_code == 3


def test_regions_that_do_not_answer_are_named(env, monkeypatch) -> None:
    def refuse(_session: object, region: str, _since: object) -> list[Cluster]:
        if region != REGION:
            raise SetupError(f"{region} does not answer.")
        return []

    monkeypatch.setattr(inventory, "list_clusters", refuse)
    found = inventory.take_inventory(make_session())
    assert found.running == ()
    assert found.unseen["Clusters in eu-south-1"] == "eu-south-1 does not answer."
    assert not any(REGION in what for what in found.unseen)
    assert not any("eusc-de-east-1" in what for what in found.unseen), "another partition"
    stopped = CliRunner().invoke(app, ["cloud", "stop"])
    assert stopped.exit_code == 5
    assert "eu-west-1: not seen. eu-west-1 does not answer." in stopped.stderr
    assert "Nothing of verger runs on AWS, as far as AWS answered." in stopped.stderr
    shown = CliRunner().invoke(app, ["cloud", "status"])
    assert "as far as AWS answered" in shown.stdout


@pytest.mark.parametrize(
    ("code", "here", "off", "unseen"),
    [
        ("UnrecognizedClientException", REGION, {"eu-south-1", "eu-south-2"}, 0),
        ("UnrecognizedClientException", "eu-south-1", {"eu-south-2"}, 1),
        ("ExpiredTokenException", REGION, set(), 2),
    ],
)
def test_a_region_that_may_be_off_in_the_account_is_told_apart(
    env, monkeypatch, code: str, here: str, off: set[str], unseen: int
) -> None:
    def refuse(_session: object, region: str, _since: object) -> list[Cluster]:
        if region in OPT_IN:
            raise SetupError("no") from ClientError({"Error": {"Code": code}}, "ListClusters")
        return []

    monkeypatch.setattr(inventory, "list_clusters", refuse)
    found = inventory.take_inventory(make_session(here))
    assert set(found.off) == off
    assert len(found.unseen) == unseen


def test_regions_that_are_off_are_named_and_stop_succeeds(env, monkeypatch) -> None:
    found = inventory.Inventory((), {}, ("eu-south-1", "eu-south-2"))
    monkeypatch.setattr(inventory, "take_inventory", lambda *_: found)
    stopped = CliRunner().invoke(app, ["cloud", "stop"])
    assert stopped.exit_code == 0
    assert "unknown to these credentials: eu-south-1 and eu-south-2" in stopped.stderr


def test_no_region_that_answers_is_an_error(env, monkeypatch) -> None:
    def refuse(*_: object) -> list[Cluster]:
        raise SetupError("There are no AWS credentials.")

    monkeypatch.setattr(inventory, "list_clusters", refuse)
    with pytest.raises(SetupError, match="no AWS credentials"):
        inventory.take_inventory(make_session())


def test_stopping_goes_on_where_one_refuses(heard: Heard) -> None:
    told = []

    class Fake:
        def __init__(self, name: str, refuses: bool) -> None:
            self.title, self.refuses = name, refuses

        def state(self):
            return State("ended" if self.title in told else "running")

        def stop(self) -> None:
            told.append(self.title)
            if self.refuses:
                raise SetupError(f"{self.title} refuses")

        def clean_up(self) -> None:
            told.append(f"{self.title} is clean")

    with pytest.raises(SetupError, match="one refuses"):
        inventory.stop_all([Fake("one", True), Fake("two", False)], heard, SOON)
    assert "two is clean" in told
    assert heard.stages == ["ending", "ending"]


@pytest.mark.parametrize("way", ["../evil", "{folder}/evil", "/evil", "in//evil"])
def test_a_download_leaves_no_path_of_the_folder(env, port: int, tmp_path, way: str) -> None:
    client, key = make_client(port), f"sly/{way.format(folder=tmp_path)}"
    client.put_object(Bucket="orchard", Key=key, Body=b"1")
    with pytest.raises(InputError, match="no path"):
        download.download(make_session(), Location("s3://orchard/sly"), tmp_path / "d", Progress())
    assert not (tmp_path / "evil").exists()
    client.delete_object(Bucket="orchard", Key=key)


def test_an_output_that_is_a_whole_bucket_is_downloaded(env, port: int, tmp_path) -> None:
    make_bucket(port, "whole")
    make_client(port).put_object(Bucket="whole", Key="pca/variance.csv", Body=b"1")
    assert download.download(make_session(), Location("s3://whole"), tmp_path, Progress()) == 1
    assert (tmp_path / "pca/variance.csv").read_bytes() == b"1"


def test_a_download_goes_on_and_puts_the_manifest_last(env, port: int, tmp_path) -> None:
    client, place = make_client(port), Location("s3://orchard/done")
    for name in ("manifest.json", "files/outcome=featurized/a.parquet", "pca/variance.csv"):
        client.put_object(Bucket="orchard", Key=f"done/{name}", Body=json.dumps(name).encode())
    folder = tmp_path / "out"
    assert download.download(make_session(), place, folder, Progress()) == 3
    kept = folder / "files/outcome=featurized/a.parquet"
    before = kept.stat().st_mtime_ns
    client.put_object(Bucket="orchard", Key="done/pca/variance.csv", Body=b'"pca/variance.css"')
    download.download(make_session(), place, folder, Progress())
    assert kept.stat().st_mtime_ns == before
    assert (folder / "pca/variance.csv").read_bytes() == b'"pca/variance.css"'
    # Compaction replaced the file: whoever reads the folder must not find both.
    client.delete_object(Bucket="orchard", Key="done/files/outcome=featurized/a.parquet")
    (folder / "own.parquet").touch()
    download.download(make_session(), place, folder, Progress())
    assert not kept.exists()
    assert (folder / "own.parquet").exists()


@pytest.fixture
def heard() -> Heard:
    return Heard()
