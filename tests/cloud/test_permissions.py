"""The policies for people: no call without a permission, no permission without a call."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import cfnlint.decode
import pytest
from botocore import xform_name

import verger as verger_package
from calls import HANDLERS, known_calls, permissions_of
from helpers import verger
from policies import as_list, mistakes_in, reference
from stores import aws_settings, forget, make_bucket, moto_server
from verger.cloud.account import cloudformation, erase, limits, network
from verger.cloud.account.permissions import policy
from verger.cloud.account.stack import encrypt_disks
from verger.cloud.jobs.cluster import list_clusters
from verger.errors import InputError, SetupError
from verger.progress import Progress
from verger.store import objects
from verger.store.objects import list_objects
from verger.store.session import make_session

SOURCE = Path(verger_package.__file__).parent
MANAGED_POLICY_CHARACTERS = 6_144
"""The longest that IAM takes, blanks not counted."""


def actions_of(who: str) -> set[str]:
    return {
        action for statement in policy(who)["Statement"] for action in as_list(statement["Action"])
    }


def resource_kinds() -> set[str]:
    template = json.loads(json.dumps(cfnlint.decode.decode_str(cloudformation.template())[0]))
    return {item["Type"] for item in template["Resources"].values()}


def test_no_permission_is_given_that_no_call_needs() -> None:
    needed = set[str]().union(*map(permissions_of, known_calls()))
    by_cloudformation = set[str]().union(*HANDLERS.values())
    assert actions_of("run") - needed == set()
    assert actions_of("setup") - needed - by_cloudformation == set()


def test_no_call_is_made_that_no_policy_permits() -> None:
    needed = set[str]().union(*map(permissions_of, known_calls()))
    assert needed - actions_of("run") - actions_of("setup") == set()


def test_what_cloudformation_makes_is_permitted_to_who_sets_up() -> None:
    assert set(HANDLERS) == resource_kinds()
    assert set[str]().union(*HANDLERS.values()) <= actions_of("setup")


def test_every_recorded_call_is_one_that_the_code_still_makes() -> None:
    source = "".join(file.read_text() for file in SOURCE.rglob("*.py"))
    # Transfers of boto3 make these of one upload or download.
    transfers = {"s3:CreateMultipartUpload", "s3:UploadPart", "s3:CompleteMultipartUpload"}
    for call in known_calls().keys() - transfers:
        assert xform_name(call.partition(":")[2]) in source, call


@pytest.mark.parametrize("who", ["run", "setup"])
def test_a_policy_has_actions_that_exist_on_resources_that_they_take(who: str) -> None:
    assert mistakes_in(policy(who)) == []
    assert len("".join(json.dumps(policy(who)).split())) < MANAGED_POLICY_CHARACTERS


@pytest.mark.parametrize("who", ["run", "setup"])
def test_what_can_be_narrowed_to_a_resource_is(who: str) -> None:
    """Whoever runs verger can touch nothing else of the account."""
    for statement in policy(who)["Statement"]:
        if as_list(statement["Resource"]) != ["*"]:
            continue
        for action in as_list(statement["Action"]):
            service, _, name = action.partition(":")
            known = reference()[service]["privileges"][name]
            kinds = [one for one in known["resource_types"].values() if one["required"]]
            assert not kinds or known["access_level"] in {"List", "Read"}, action


def test_roles_are_passed_by_name_and_to_one_service_each() -> None:
    passed = [one for one in policy("run")["Statement"] if "iam:PassRole" in one["Action"]]
    assert len(passed) == 3
    for statement in passed:
        assert "role/verger-" in statement["Resource"]
        assert statement["Condition"]["StringEquals"]["iam:PassedToService"]


def test_a_policy_is_printed_for_an_account_and_its_buckets() -> None:
    words = ("cloud", "policy", "run", "--bucket", "orchard", "--account", "123456789012")
    done = verger(*words)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed == policy("run", ("orchard",), "123456789012")
    assert "arn:aws:s3:::orchard/*" in done.stdout
    assert "BUCKET" not in done.stdout
    assert verger("cloud", "policy", "nobody").returncode == 2


@contextmanager
def enforced(port: int) -> Iterator[None]:
    """Have moto ask IAM before it answers, as AWS does."""

    def set_free_calls(count: str) -> None:
        place = f"http://127.0.0.1:{port}/moto-api/reset-auth"
        header = {"Content-Type": "text/plain"}
        urlopen(Request(place, count.encode(), header, method="POST")).close()

    set_free_calls("0")
    try:
        yield
    finally:
        set_free_calls("inf")


def test_iam_lets_who_runs_do_what_a_run_does_and_nothing_else(monkeypatch) -> None:
    """moto knows the resources of S3 only, and takes those of other services for all."""
    with moto_server() as port:
        for name in ("orchard", "others"):
            make_bucket(port, name)
        with aws_settings(port, monkeypatch):
            iam = make_session().client("iam")
            iam.create_user(UserName="runner")
            key = iam.create_access_key(UserName="runner")["AccessKey"]
            iam.put_user_policy(
                UserName="runner", PolicyName="run",
                PolicyDocument=json.dumps(policy("run", ("orchard",), "123456789012")),
            )  # fmt: skip
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
            forget()
            session = make_session()
            with enforced(port):
                limits.check_clock(limits.who_asks(session))
                assert network.find_networks(session) == []
                assert list_clusters(session, "eu-west-3") == []
                objects.put("orchard/in/a.jpg", b"1")
                assert [one.key for one in list_objects("orchard/in")] == ["in/a.jpg"]
                with pytest.raises(InputError, match="forbidden"):
                    list(list_objects("others"))
                with pytest.raises(InputError, match="forbidden"):
                    erase.delete_bucket(session, "orchard", Progress())
                with pytest.raises(SetupError, match="may not"):
                    encrypt_disks(session)
