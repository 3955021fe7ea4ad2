"""`cloud check` of made-up accounts, and what a run refuses of the same before it starts."""

import dataclasses
import json
from collections.abc import Iterator
from datetime import timedelta
from email.utils import format_datetime

import boto3
import pytest
from test_cloud_run import REGION, STACK
from typer.testing import CliRunner

from fake_aws import AwsError, FakeAws
from stores import FAKE_KEYS, aws_settings, make_bucket, moto_server
from verger.cli import cloud_setup
from verger.cli.main import app
from verger.cloud.account import limits, permissions
from verger.cloud.account.permissions import policy
from verger.cloud.account.places import Place
from verger.cloud.account.stack import Stack
from verger.cloud.jobs import check, prepare
from verger.cloud.jobs.prepare import Launch
from verger.errors import RefusedError, SetupError
from verger.progress import utc_now
from verger.settings import RunSettings
from verger.store import session as sessions

KEY = "arn:aws:kms:eu-west-3:123456789012:key/1"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with moto_server() as port:
        make_bucket(port, "orchard")
        make_bucket(port, "photos")
        elsewhere = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="eu-west-1", **FAKE_KEYS
        )
        elsewhere.create_bucket(
            Bucket="erin", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
        yield port


@pytest.fixture
def aws(port: int, monkeypatch) -> Iterator[FakeAws]:
    """An account in which all is well, and where a run has its stack."""
    fake = FakeAws()
    made = sessions.make_session
    for module in (sessions, cloud_setup):
        monkeypatch.setattr(module, "make_session", lambda *a, **k: fake.install(made(*a, **k)))
    have_stack(monkeypatch, STACK)
    with aws_settings(port, monkeypatch):
        yield fake


def have_stack(monkeypatch, stack: Stack | None) -> None:
    def find(*_: object) -> Stack:
        if stack is None:
            raise SetupError(
                f"There is nothing of verger in {REGION} yet.",
                f"Make it: verger cloud init --bucket NAME --region {REGION}",
            )
        return stack

    monkeypatch.setattr(check, "find_stack", find)


def new_account(aws: FakeAws, monkeypatch) -> None:
    """Just opened: small quotas, nothing of verger."""
    aws.quotas = {"L-1216C47A": 5.0, "L-34B43A08": 5.0}
    have_stack(monkeypatch, None)


def company(aws: FakeAws, monkeypatch) -> None:
    """Much runs there; disks have a key of its own, which the stack knows."""
    aws.quotas = {"L-1216C47A": 640.0, "L-34B43A08": 320.0}
    cpu = {"CoreCount": 8, "ThreadsPerCore": 2}
    on_demand = {"InstanceType": "m5.4xlarge", "CpuOptions": cpu}
    aws.in_use = [on_demand] * 10 + [{**on_demand, "InstanceLifecycle": "spot"}]
    for other in ("g5.xlarge", "inf1.xlarge", "trn1.2xlarge"):  # of other quotas
        aws.in_use.append({"InstanceType": other, "CpuOptions": cpu})
    aws.disk_key = KEY
    have_stack(monkeypatch, dataclasses.replace(STACK, disk_key=KEY))


def broken(aws: FakeAws, monkeypatch) -> None:
    """Everything that can be wrong."""
    aws.quotas = {"L-1216C47A": 2.0, "L-34B43A08": 0.0}
    aws.granted = without("elasticmapreduce:RunJobFlow")
    aws.zones = {name: (zone, {"m6i.xlarge"}) for name, (zone, _) in aws.zones.items()}
    aws.disk_key = KEY
    aws.networks, aws.endpoints = ["vpc-1"], ["vpce-1"]
    have_stack(monkeypatch, dataclasses.replace(STACK, buckets=("orchard", "erin")))


def without(action: str) -> dict:
    document = policy("run", STACK.buckets, "123456789012")
    for statement in document["Statement"]:
        statement["Action"] = [one for one in statement["Action"] if one != action]
    return document


def levels(*options: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = CliRunner().invoke(app, ["cloud", "check", "--json", *options])
    found = json.loads(done.stdout)
    return done.exit_code, {one["what"]: one for one in found}


def test_a_new_account_is_told_what_to_ask_for_and_what_to_make(aws, monkeypatch) -> None:
    new_account(aws, monkeypatch)
    code, found = levels()
    assert code == 0, found
    assert found["Set-up"]["level"] == "note"
    assert "verger cloud init" in found["Set-up"]["remedy"]
    assert "one machine, primary and worker" in found["Quotas"]["found"]
    assert "L-1216C47A" in found["Quotas"]["remedy"]
    assert "verger cloud prices --refresh" in found["Prices"]["remedy"]


def test_a_company_s_account_is_counted_right(aws, monkeypatch) -> None:
    company(aws, monkeypatch)
    code, found = levels()
    assert code == 0, found
    assert "640 processors on demand (160 in use), 320 spot" in found["Quotas"]["found"]
    assert found["Key of disks"]["level"] == "note"
    assert found["Rights"]["level"] == "ok"
    assert found["Left behind"]["found"] == "nothing that costs"


def test_a_broken_account_has_a_remedy_in_each_line(aws, monkeypatch) -> None:
    broken(aws, monkeypatch)
    code, found = levels()
    assert code == 6, "a quota is a refusal"
    bad = {name for name, one in found.items() if one["level"] in {"fails", "refused"}}
    assert bad == {"Quotas", "Rights", "Machines", "Key of disks", "Buckets", "Left behind"}
    assert all(found[name]["remedy"] for name in bad)
    assert "elasticmapreduce:RunJobFlow" in found["Rights"]["found"]
    assert "erin is in eu-west-1" in found["Buckets"]["found"]
    assert "vpce-1" in found["Left behind"]["found"]
    shown = CliRunner().invoke(app, ["cloud", "check"])
    assert shown.exit_code == 6
    assert "Quotas" in shown.stdout
    assert "…" not in shown.stdout, "nothing is cut off, the ARN of a key least of all"
    assert "6 things in all" in shown.stderr.replace("\n", " ")


def test_nothing_is_changed_by_a_look(aws, monkeypatch) -> None:
    broken(aws, monkeypatch)
    levels()
    verbs = ("Describe", "Get", "List", "Simulate")
    assert aws.names
    assert all(name.startswith(verbs) for name in aws.names)


def test_without_credentials_that_is_all_that_is_said(aws, monkeypatch, tmp_path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    done = CliRunner().invoke(app, ["cloud", "check"])
    assert done.exit_code == 5
    assert "no AWS credentials" in done.stderr


@pytest.mark.parametrize(
    ("region", "words"), [("eu-west-2", "not inside"), ("eusc-de-east-1", "starts no machines")]
)
def test_a_region_where_nothing_is_started_is_refused(aws, region: str, words: str) -> None:
    done = CliRunner().invoke(app, ["cloud", "check", "--region", region])
    assert done.exit_code == 6
    assert words in done.stderr.replace("\n", " ")
    assert aws.calls == []


ACTIONS = sorted({action for one in policy("run")["Statement"] for action in one["Action"]})


@pytest.mark.parametrize("action", ACTIONS)
def test_each_missing_right_is_named(aws, action: str) -> None:
    aws.granted = without(action)
    session = sessions.make_session()
    findings = {one.what: one for one in check.check_account(session)}
    assert findings["Rights"].found == f"missing: {action}"
    aws.granted = None


@pytest.mark.parametrize("may_look", [True, False])
def test_the_role_of_a_session_is_simulated_with_its_path(aws, may_look: bool) -> None:
    made = "arn:aws:iam::123456789012:role/aws-reserved/sso.amazonaws.com/eu-west-1/SSO_run"
    aws.role = made if may_look else ""
    session = "arn:aws:sts::123456789012:assumed-role/SSO_run/somebody"
    wanted = policy("run", STACK.buckets, "123456789012")
    assert permissions.missing_rights(sessions.make_session(), session, wanted) == []
    asked = {call["PolicySourceArn"] for name, call in aws.calls if name.startswith("Simulate")}
    assert asked == {made if may_look else "arn:aws:iam::123456789012:role/SSO_run"}


def test_the_right_to_pass_roles_is_asked_for_those_of_the_company(aws, monkeypatch) -> None:
    owned = dataclasses.replace(
        STACK,
        service_role="emr",
        instance_profile="emr-machines",
        scheduler_role="arn:aws:iam::123456789012:role/clocks/emr-clock",
    )
    have_stack(monkeypatch, owned)
    aws.granted = policy("run", STACK.buckets, "123456789012")
    findings = {one.what: one for one in check.check_account(sessions.make_session())}
    assert findings["Rights"].found == "missing: iam:PassRole"
    for statement in aws.granted["Statement"]:
        if "iam:PassRole" in statement["Action"]:
            statement["Resource"] = "arn:aws:iam::123456789012:role/emr*"
    findings = {one.what: one for one in check.check_account(sessions.make_session())}
    assert findings["Rights"].level == "ok"


def test_rights_to_a_bucket_that_is_not_there_yet_are_not_missing(aws, monkeypatch) -> None:
    """Who has what `verger cloud policy run --bucket NAME` prints, and has set nothing up yet."""
    have_stack(monkeypatch, None)
    aws.granted = policy("run", ("orchard", "verger-smoke-*"), "123456789012")
    session = sessions.make_session()
    findings = {one.what: one for one in check.check_account(session)}
    assert findings["Rights"].level == "ok"
    assert "but those to its bucket" in findings["Rights"].found
    for bucket, level in (("orchard", "ok"), ("verger-smoke-1", "ok"), ("another", "fails")):
        findings = {one.what: one for one in check.check_account(session, bucket=bucket)}
        assert findings["Rights"].level == level


def test_who_asks_is_asked_once(aws, monkeypatch) -> None:
    asked = []
    ask = limits.who_asks
    monkeypatch.setattr(limits, "who_asks", lambda session: asked.append(1) or ask(session))
    findings = {one.what: one for one in check.check_account(sessions.make_session())}
    assert {findings[what].level for what in ("Credentials", "Clock", "Rights")} == {"ok"}
    assert len(asked) == 1


def test_a_clock_ten_minutes_off_is_noticed(aws) -> None:
    caller = limits.who_asks(sessions.make_session())
    limits.check_clock(caller)
    headers = caller["ResponseMetadata"]["HTTPHeaders"]
    for minutes, words in ((10, "10 minutes ahead of"), (-10, "10 minutes behind")):
        headers["date"] = format_datetime(utc_now() - timedelta(minutes=minutes))
        with pytest.raises(SetupError, match=words):
            limits.check_clock(caller)


def account_of(stack: Stack = STACK, **options: object) -> limits.Capacity:
    run = RunSettings(input="s3://photos/in", output="s3://orchard/out")
    return prepare.check_account(Place(sessions.make_session(), stack), Launch(run, **options))


def test_a_run_takes_the_zones_that_have_machines(aws) -> None:
    aws.zones["subnet-2"] = ("eu-west-3b", set())
    found = account_of()
    assert found.subnets == ("subnet-1", "subnet-3")
    assert found.machines == {"m7g.xlarge", "m6g.xlarge"}
    assert found.most_machines == 8


def test_a_type_that_emr_does_not_take_is_left_out(aws) -> None:
    aws.supported = {"m6g.xlarge"}
    assert account_of().machines == {"m6g.xlarge"}


def test_a_region_without_the_types_is_refused_with_their_names(aws) -> None:
    aws.zones = {name: (zone, {"m6i.xlarge"}) for name, (zone, _) in aws.zones.items()}
    with pytest.raises(SetupError, match=r"None of eu-west-3a.*m7g\.xlarge"):
        account_of()
    assert account_of(arch="x86_64").machines == {"m6i.xlarge"}


@pytest.mark.parametrize(
    ("on_demand", "spot_quota", "spot", "machines"),
    [(5, 5, False, 1), (16, 5, False, 4), (16, 0, True, 2), (16, 5, True, 3), (32, 640, True, 8)],
)
def test_a_quota_says_how_many_machines(
    aws, on_demand: int, spot_quota: int, spot: bool, machines: int
) -> None:
    aws.quotas = {"L-1216C47A": float(on_demand), "L-34B43A08": float(spot_quota)}
    assert account_of(spot=spot).most_machines == machines


@pytest.mark.parametrize("spot", [False, True])
def test_a_quota_of_two_is_refused_with_what_to_ask_for(aws, spot: bool) -> None:
    # The primary machine is never a spot machine: more of those would not help.
    aws.quotas = {"L-1216C47A": 2.0, "L-34B43A08": 0.0}
    with pytest.raises(RefusedError, match="may run 2 processors") as caught:
        account_of(spot=spot)
    assert "L-1216C47A" in caught.value.hint


def test_a_key_that_emr_may_not_use_is_refused(aws) -> None:
    aws.disk_key = KEY
    with pytest.raises(SetupError, match="may not use") as caught:
        account_of()
    assert "verger cloud init --bucket orchard" in caught.value.hint
    assert "--also photos" in caught.value.hint, "or jobs would lose it"
    assert account_of(dataclasses.replace(STACK, disk_key=KEY)).most_machines == 8


def test_an_account_that_has_never_changed_a_quota_has_the_default(aws) -> None:
    def absent(**_: object) -> dict:
        raise AwsError("NoSuchResourceException")

    aws.get_service_quota = absent
    aws.get_aws_default_service_quota = lambda **_: {"Quota": {"Value": 5.0}}
    quotas = limits.read_quotas(sessions.make_session())
    assert {quota.processors for quota in quotas.values()} == {5}
