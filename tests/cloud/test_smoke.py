"""The first, small run: compared, removed, and written down without numbers of accounts."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_cloud_run import CLOCK, STACK, Heard, at_step, schedules, write_manifest
from typer.testing import CliRunner

from fake_aws import FakeAws, machine
from stores import aws_settings, make_bucket, make_client, moto_server
from verger.cli.main import app
from verger.cloud.account import places
from verger.cloud.account import stack as stacks
from verger.cloud.account.permissions import policy
from verger.cloud.jobs import check, delivery, smoke
from verger.errors import DefectError, SetupError
from verger.progress import Time
from verger.settings import RunSettings
from verger.store.location import Location
from verger.store.session import make_session

TIME = Time(CLOCK.now, CLOCK.sleep)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with moto_server() as port:
        yield port


@pytest.fixture
def aws(port: int, monkeypatch, tmp_path: Path) -> Iterator[FakeAws]:
    """An account without a stack; making one is making its bucket."""
    fake = FakeAws()
    fake.instances = [machine(0.2)] * 2
    file = tmp_path / "environment.tar.gz"
    file.write_bytes(b"packages")
    bundle = delivery.Bundle(file, file, file)
    monkeypatch.setattr(delivery, "make_bundle", lambda *_: bundle)
    monkeypatch.setattr(smoke, "IMAGES", 15)
    made: dict[str, stacks.Stack] = {}

    def create(_: object, bucket: str) -> stacks.Stack:
        make_bucket(port, bucket)
        made["stack"] = stacks.Stack(
            **{**vars(STACK), "bucket": bucket, "buckets": (bucket,)},
        )
        return made["stack"]

    def find(*_: object) -> stacks.Stack:
        if "stack" not in made:
            raise SetupError("There is nothing of verger here yet.")
        return made["stack"]

    monkeypatch.setattr(stacks, "create_stack", create)
    monkeypatch.setattr(stacks, "delete_stack", lambda *_: made.clear())
    for module in (stacks, check, places):
        monkeypatch.setattr(module, "find_stack", find)
    monkeypatch.setattr(places, "make_session", lambda *a: fake.install(make_session(*a)))
    with aws_settings(port, monkeypatch):
        make_session().client("scheduler").create_schedule_group(Name="verger")
        yield fake
        make_session().client("scheduler").delete_schedule_group(Name="verger")


def features(paths: list[str], shift: float = 0.0) -> bytes:
    values = [[len(path) + shift, 1.0] for path in sorted(paths)]
    table = pa.table({"path": sorted(paths), "features": pa.array(values, pa.list_(pa.float32()))})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def run_here(run: RunSettings) -> None:
    folder = Path(run.input.path)
    paths = [file.relative_to(folder).as_posix() for file in folder.rglob("*.jpg")]
    (Path(run.output.path) / "files/outcome=featurized").mkdir(parents=True)
    (Path(run.output.path) / "files/outcome=featurized/a.parquet").write_bytes(features(paths))


def run_there(aws: FakeAws, port: int, shift: float = 0.0) -> None:
    """What the cluster leaves, from the images that were uploaded."""
    words = aws.request("RunJobFlow")["Steps"][0]["HadoopJarStep"]["Args"]
    source, output = (Location(words[words.index("run") + place]) for place in (1, 2))
    bucket, _, prefix = source.path.partition("/")
    client = make_client(port)
    keys = [one["Key"] for one in client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]
    paths = [key.removeprefix(f"{prefix}/") for key in keys]
    place = output.child("files", "outcome=featurized", "b.parquet").path.partition("/")[2]
    client.put_object(Bucket=bucket, Key=place, Body=features(paths, shift))
    write_manifest(output=output.uri)


def bucket_of(aws: FakeAws) -> str:
    return aws.request("RunJobFlow")["LogUri"].split("/")[2]


def assert_asked_once(aws: FakeAws, bucket: str) -> None:
    """For rights, those to this bucket among them, and for what was left and costs."""
    asked = [params for name, params in aws.calls if name == "SimulatePrincipalPolicy"]
    assert len(asked) == len(policy("run")["Statement"])
    assert [f"arn:aws:s3:::{bucket}"] in [one["ResourceArns"] for one in asked]
    assert aws.names.count("DescribeVpcs") == 1


def test_a_right_to_the_new_bucket_that_is_missing_makes_none(aws, port: int) -> None:
    aws.granted = policy("run", ("orchard",), STACK.account)
    with pytest.raises(SetupError, match="Rights: missing: s3:ListBucket"):
        smoke.smoke(aws.install(make_session()), run_here, Heard(), time=TIME)
    assert make_client(port).list_buckets()["Buckets"] == []


def test_it_runs_compares_costs_and_leaves_nothing(aws, port: int) -> None:
    at_step(aws, 2, lambda: run_there(aws, port, 1e-4))
    kept = smoke.Transcript(Heard(), TIME)
    session = aws.install(make_session())
    assert smoke.smoke(session, run_here, kept, time=TIME) == 15
    assert not aws.runs
    assert schedules(aws) == []
    assert make_client(port).list_buckets()["Buckets"] == []
    text = "\n".join(kept.lines)
    assert "of account ACCOUNT" in text
    assert "123456789012" not in text
    assert "All that it made is removed" in text
    assert "15 images, largest difference of a feature 9.9e-05." in text
    assert re.search(r"It cost 0\.\d\d EUR without tax\.", text), "no more than expected"
    assert_asked_once(aws, bucket_of(aws))


def test_another_result_is_a_defect_and_even_so_all_is_removed(aws, port: int) -> None:
    at_step(aws, 2, lambda: run_there(aws, port, 0.5))
    with pytest.raises(DefectError, match=r"differ from those of this machine by up to 0\.5"):
        smoke.smoke(aws.install(make_session()), run_here, Heard(), time=TIME)
    assert not aws.runs
    assert make_client(port).list_buckets()["Buckets"] == []


def test_a_stack_that_was_there_stays_with_what_it_holds(aws, port: int) -> None:
    stacks.create_stack(None, "orchard")
    make_client(port).put_object(Bucket="orchard", Key="in/a.jpg", Body=b"1")
    at_step(aws, 2, lambda: run_there(aws, port))
    smoke.smoke(aws.install(make_session()), run_here, Heard(), time=TIME)
    assert_asked_once(aws, "orchard")
    left = [one["Key"] for one in make_client(port).list_objects_v2(Bucket="orchard")["Contents"]]
    assert "in/a.jpg" in left
    assert not [key for key in left if "smoke" in key]
    for key in left:
        make_client(port).delete_object(Bucket="orchard", Key=key)
    make_client(port).delete_bucket(Bucket="orchard")


def test_an_account_that_is_not_ready_spends_nothing(aws, port: int) -> None:
    aws.quotas["L-1216C47A"] = 2.0
    with pytest.raises(Exception, match="Quotas: The account may run 2 processors"):
        smoke.smoke(aws.install(make_session()), run_here, Heard(), time=TIME)
    assert make_client(port).list_buckets()["Buckets"] == []
    assert "RunJobFlow" not in aws.names


def test_what_cannot_be_removed_is_said(aws, port: int, monkeypatch) -> None:
    at_step(aws, 2, lambda: run_there(aws, port))

    def refuse(*_: object) -> None:
        raise SetupError("Subnet1 failed: it has dependencies")

    monkeypatch.setattr(stacks, "delete_stack", refuse)
    heard = Heard()
    smoke.smoke(aws.install(make_session()), run_here, heard, time=TIME)
    assert "Not all is removed: Subnet1 failed" in heard.said
    assert "verger cloud destroy --region eu-west-3 --purge --bucket verger-smoke-" in heard.said


def test_a_transcript_that_cannot_be_written_starts_nothing(aws, monkeypatch) -> None:
    started = []
    monkeypatch.setattr(smoke, "smoke", lambda *a, **k: started.append(1))
    done = CliRunner().invoke(app, ["cloud", "smoke", "--transcript", "/no/such/folder/smoke.txt"])
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr
    assert not started


def test_numbers_of_accounts_are_taken_out() -> None:
    text = "arn:aws:iam::123456789012:role/x, 1234567890123 bytes, run 20260131-1200"
    assert smoke.without_accounts(text) == (
        "arn:aws:iam::ACCOUNT:role/x, 1234567890123 bytes, run 20260131-1200"
    )
