"""The stack: what its template promises, and making, changing and removing it on moto."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import cfnlint.api
import pytest
from botocore.stub import ANY, Stubber

from helpers import verger
from stores import FAKE_KEYS, aws_settings, make_bucket, make_client, moto_server
from verger.cloud.account import stack
from verger.errors import InputError, RefusedError, SetupError
from verger.store.regions import EU_REGIONS
from verger.store.session import make_session

REGION = "eu-west-3"

# moto passes over what it does not play: policies of buckets and groups of schedules.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")


@pytest.fixture
def port() -> Iterator[int]:
    with moto_server() as port:
        yield port


@pytest.fixture
def env(port: int, monkeypatch) -> Iterator[dict[str, str]]:
    monkeypatch.setattr(stack, "_POLL_SECONDS", 0)
    with aws_settings(port, monkeypatch) as env:
        yield env


@pytest.fixture
def resources() -> dict[str, dict]:
    decoded = cfnlint.decode.decode_str(stack.template())[0]
    return json.loads(json.dumps(decoded))["Resources"]


def properties(resources: dict[str, dict], kind: str) -> list[dict]:
    found = [item["Properties"] for item in resources.values() if item["Type"] == kind]
    assert found, f"the template has no {kind}"
    return found


def test_the_template_passes_cfn_lint_in_every_region() -> None:
    config = cfnlint.config.ManualArgs(regions=list(EU_REGIONS), include_checks=["W"])
    assert cfnlint.api.lint(stack.template(), config=config) == []


def test_the_bucket_is_encrypted_closed_and_forgets_logs(resources) -> None:
    (bucket,) = properties(resources, "AWS::S3::Bucket")
    rules = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rules[0]["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    expiring = {
        rule["Prefix"]: rule["ExpirationInDays"]
        for rule in bucket["LifecycleConfiguration"]["Rules"]
        if "Prefix" in rule
    }
    assert expiring == {f"{stack.LOGS}/": 30, f"{stack.CODE}/": 30, f"{stack.TEMPORARY}/": 7}
    (policy,) = properties(resources, "AWS::S3::BucketPolicy")
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert resources["DataBucket"]["DeletionPolicy"].startswith("Retain")


def test_the_network_leads_to_s3_and_nowhere_else(resources) -> None:
    kinds = {item["Type"] for item in resources.values()}
    for way_out in ("InternetGateway", "NatGateway", "Route", "EIP", "EgressOnlyInternetGateway"):
        assert f"AWS::EC2::{way_out}" not in kinds
    (subnet,) = properties(resources, "AWS::EC2::Subnet")
    assert subnet["MapPublicIpOnLaunch"] is False
    (endpoint,) = properties(resources, "AWS::EC2::VPCEndpoint")
    assert endpoint["VpcEndpointType"] == "Gateway"
    for statement in endpoint["PolicyDocument"]["Statement"]:
        assert statement["Resource"] != "*", "anybody's bucket could be written to"


def test_jobs_reach_named_buckets_in_the_region_only(resources) -> None:
    (policy,) = properties(resources, "AWS::IAM::ManagedPolicy")
    for statement in policy["PolicyDocument"]["Statement"]:
        assert statement["Resource"] in ({"Ref": "BucketArns"}, {"Ref": "ObjectArns"})
        region = statement["Condition"]["StringEquals"]["aws:RequestedRegion"]
        assert region == {"Ref": "AWS::Region"}
        assert "s3:*" not in statement["Action"]


def test_no_role_may_do_everything_and_the_clock_ends_our_clusters_only(resources) -> None:
    for role in properties(resources, "AWS::IAM::Role"):
        for policy in role.get("Policies", ()):
            for statement in policy["PolicyDocument"]["Statement"]:
                allowed = statement["Effect"] == "Allow"
                assert not (allowed and statement["Resource"] == "*")
    clock = resources["SchedulerRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    assert clock[0]["Action"] == "elasticmapreduce:TerminateJobFlows"
    tag = clock[0]["Condition"]["StringEquals"]["elasticmapreduce:ResourceTag/application"]
    assert tag == stack.TAGS["application"]


def test_machines_need_a_session_for_their_credentials(resources) -> None:
    (found,) = properties(resources, "AWS::EMR::SecurityConfiguration")
    settings = found["SecurityConfiguration"]
    assert settings["EncryptionConfiguration"]["EnableAtRestEncryption"] is True
    metadata = settings["InstanceMetadataServiceConfiguration"]
    assert metadata["MinimumInstanceMetadataServiceVersion"] == 2


def test_the_stack_is_made_once_changed_and_found(env, port: int) -> None:
    make_bucket(port, "photographs")
    session = make_session()
    with pytest.raises(SetupError) as raised:
        stack.find_stack(session, REGION)
    assert "verger cloud init" in raised.value.hint
    made = stack.create_stack(session, REGION, "verger-data")
    assert (made.region, made.bucket, made.buckets) == (REGION, "verger-data", ("verger-data",))
    assert made.subnet.startswith("subnet-")
    assert made.scheduler_role.startswith("arn:aws:iam::")
    assert stack.create_stack(session, REGION, "verger-data") == made
    assert stack.find_stack(session, REGION) == made
    changed = stack.create_stack(session, REGION, "verger-data", others=["photographs"])
    assert changed.buckets == ("verger-data", "photographs")
    cloudformation = session.client("cloudformation")
    (described,) = cloudformation.describe_stacks()["Stacks"]
    assert {tag["Key"]: tag["Value"] for tag in described["Tags"]} == stack.TAGS
    given = {item["ParameterKey"]: item["ParameterValue"] for item in described["Parameters"]}
    for bucket in changed.buckets:
        assert f"arn:aws:s3:::{bucket}/*" in given["ObjectArns"]
    with pytest.raises(InputError, match="verger-data, not another"):
        stack.create_stack(session, REGION, "another")


def test_another_bucket_of_the_stack_must_be_in_its_region(env, port: int) -> None:
    for name, region in (("berlin", "eu-central-1"), ("ohio", "us-east-2")):
        boto3.client("s3", region_name=region).create_bucket(
            Bucket=name, CreateBucketConfiguration={"LocationConstraint": region}
        )
    session = make_session()
    with pytest.raises(InputError, match="eu-central-1"):
        stack.create_stack(session, REGION, "verger-data", others=["berlin"])
    with pytest.raises(RefusedError, match="us-east-2"):
        stack.create_stack(session, REGION, "verger-data", others=["ohio"])
    assert session.client("cloudformation").describe_stacks()["Stacks"] == []


def test_a_bucket_that_is_there_already_is_not_taken_over(env, port: int) -> None:
    make_bucket(port, "mine")
    with pytest.raises(InputError, match="there already"):
        stack.create_stack(make_session(), REGION, "mine")
    with pytest.raises(InputError, match="cannot be the name"):
        stack.create_stack(make_session(), REGION, "Not A Name")


def delete_routes(subnet: str) -> None:
    """Delete what moto forgets when it deletes a stack, and then misses."""
    ec2 = boto3.client("ec2", region_name=REGION)
    network = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
    filters = [{"Name": "vpc-id", "Values": [network]}]
    for table in ec2.describe_route_tables(Filters=filters)["RouteTables"]:
        if any(association["Main"] for association in table["Associations"]):
            continue
        for association in table["Associations"]:
            ec2.disassociate_route_table(AssociationId=association["RouteTableAssociationId"])
        ec2.delete_route_table(RouteTableId=table["RouteTableId"])


class Stubs:
    """A session whose clients are stubbed; each service has the answers that it was given."""

    def __init__(self) -> None:
        self.clients: dict[str, object] = {}
        self.stubs: dict[str, Stubber] = {}

    def client(self, name: str, **_: object):
        if name not in self.clients:
            self.clients[name] = boto3.client(name, region_name=REGION, **FAKE_KEYS)
            self.stubs[name] = Stubber(self.clients[name])
        return self.clients[name]

    def on(self, name: str) -> Stubber:
        self.client(name)
        return self.stubs[name]

    @contextmanager
    def active(self) -> Iterator[None]:
        for stub in self.stubs.values():
            stub.activate()
        yield
        for stub in self.stubs.values():
            stub.assert_no_pending_responses()


def absent(stubs: Stubs) -> None:
    stubs.on("cloudformation").add_client_error(
        "describe_stacks", "ValidationError", "Stack with id verger does not exist"
    )


def test_a_name_taken_by_someone_else_is_an_input_error() -> None:
    stubs = Stubs()
    absent(stubs)
    stubs.on("s3").add_client_error("head_bucket", "403", http_status_code=403)
    stubs.on("sts").add_response("get_caller_identity", {"Account": "123456789012"})
    with stubs.active(), pytest.raises(InputError, match="someone else's"):
        stack.create_stack(stubs, REGION, "theirs")


def test_wrong_keys_are_not_taken_for_a_taken_name() -> None:
    stubs = Stubs()
    absent(stubs)
    stubs.on("s3").add_client_error("head_bucket", "403", http_status_code=403)
    stubs.on("sts").add_client_error("get_caller_identity", "InvalidClientTokenId")
    with stubs.active(), pytest.raises(SetupError, match="refuses the AWS credentials"):
        stack.create_stack(stubs, REGION, "theirs")


def test_a_stack_that_cannot_be_made_names_the_first_failure() -> None:
    stubs = Stubs()
    absent(stubs)
    stubs.on("s3").add_client_error("head_bucket", "404", http_status_code=404)
    answers = stubs.on("cloudformation")
    answers.add_response("create_stack", {"StackId": "arn:stack"})
    state = {"StackName": "verger", "CreationTime": 0, "StackStatus": "DELETE_COMPLETE"}
    answers.add_response("describe_stacks", {"Stacks": [state]})
    event = {"StackId": "s", "EventId": "e", "StackName": "verger", "Timestamp": 0}
    answers.add_response(
        "describe_stack_events",
        {
            "StackEvents": [
                {**event, "LogicalResourceId": "Routes", "ResourceStatus": "CREATE_FAILED",
                 "ResourceStatusReason": "Resource creation cancelled"},
                {**event, "LogicalResourceId": "Network", "ResourceStatus": "CREATE_FAILED",
                 "ResourceStatusReason": "The maximum number of VPCs has been reached."},
            ]
        },
    )  # fmt: skip
    with stubs.active(), pytest.raises(SetupError, match="Network failed: The maximum number"):
        stack.create_stack(stubs, REGION, "verger-data")


def test_a_missing_right_is_named() -> None:
    stubs = Stubs()
    stubs.on("cloudformation").add_client_error("describe_stacks", "AccessDenied")
    with stubs.active(), pytest.raises(SetupError) as raised:
        stack.find_stack(stubs, REGION)
    assert "DescribeStacks" in raised.value.hint


def test_security_groups_that_emr_left_behind_go_with_the_stack(env) -> None:
    session = make_session()
    made = stack.create_stack(session, REGION, "verger-data")
    ec2 = session.client("ec2")
    network = ec2.describe_subnets(SubnetIds=[made.subnet])["Subnets"][0]["VpcId"]
    groups = [
        ec2.create_security_group(GroupName=name, Description=name, VpcId=network)["GroupId"]
        for name in ("ElasticMapReduce-Master-Private", "ElasticMapReduce-Slave-Private")
    ]
    for one, other in (groups, groups[::-1]):
        ec2.authorize_security_group_ingress(
            GroupId=one,
            IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": other}]}],
        )
    delete_routes(made.subnet)
    stack.delete_stack(session, REGION)
    left = {group["GroupId"] for group in ec2.describe_security_groups()["SecurityGroups"]}
    assert left.isdisjoint(groups)
    with pytest.raises(SetupError, match="nothing of verger"):
        stack.find_stack(session, REGION)
    stack.delete_stack(session, REGION)


def test_failed_deletion_names_what_is_in_the_way() -> None:
    stubs = Stubs()
    answers = stubs.on("cloudformation")
    state = {"StackName": "verger", "StackId": "arn:stack", "CreationTime": 0}
    answers.add_response(
        "describe_stacks", {"Stacks": [{**state, "StackStatus": "CREATE_COMPLETE"}]}
    )
    answers.add_response("delete_stack", {}, {"StackName": "arn:stack"})
    answers.add_response("describe_stacks", {"Stacks": [{**state, "StackStatus": "DELETE_FAILED"}]})
    answers.add_response(
        "describe_stack_events",
        {
            "StackEvents": [
                {"StackId": "s", "EventId": "e", "StackName": "verger", "Timestamp": 0,
                 "LogicalResourceId": "PrivateSubnet", "ResourceStatus": "DELETE_FAILED",
                 "ResourceStatusReason": "it has dependencies"}
            ]
        },
        {"StackName": ANY},
    )  # fmt: skip
    with stubs.active(), pytest.raises(SetupError, match="PrivateSubnet failed") as raised:
        stack.delete_stack(stubs, REGION)
    assert "verger cloud stop" in raised.value.hint


def test_init_and_destroy_as_commands(env, port: int, tmp_path: Path) -> None:
    options = ("--bucket", "verger-data", "--email", "a@example.org")
    done = verger("cloud", "init", *options, env=env)
    assert done.returncode == 0, done.stderr
    assert "verger is ready in eu-west-3" in done.stdout
    session = make_session()
    assert session.client("ec2").get_ebs_encryption_by_default()["EbsEncryptionByDefault"]
    budgets = session.client("budgets")
    account = stack.find_stack(session, REGION).account
    (budget,) = budgets.describe_budgets(AccountId=account)["Budgets"]
    assert float(budget["BudgetLimit"]["Amount"]) == 10

    client = make_client(port)
    client.put_bucket_versioning(
        Bucket="verger-data", VersioningConfiguration={"Status": "Enabled"}
    )
    for key in ("in/a.jpg", "in/a.jpg", "out/pca/matrix.csv", "top"):
        client.put_object(Bucket="verger-data", Key=key, Body=b"12345")
    client.delete_object(Bucket="verger-data", Key="in/a.jpg")
    client.create_multipart_upload(Bucket="verger-data", Key="half")
    make_bucket(port, "photographs")
    for key in ("old/b.jpg", "older/c.jpg"):
        client.put_object(Bucket="photographs", Key=key, Body=b"1")

    cluster = session.client("emr").run_job_flow(
        Name="x",
        Instances={
            "InstanceCount": 1,
            "MasterInstanceType": "m5.xlarge",
            "KeepJobFlowAliveWhenNoSteps": True,
            "Ec2SubnetId": stack.find_stack(session, REGION).subnet,
        },
        JobFlowRole="x",
        ServiceRole="y",
    )["JobFlowId"]
    refused = verger("cloud", "destroy", "--yes", env=env)
    assert refused.returncode == 5
    assert cluster in refused.stderr
    session.client("emr").terminate_job_flows(JobFlowIds=[cluster])

    listing = tmp_path / "erased.csv"
    purge = ("--purge", "--place", "s3://photographs/old", "--list", listing)
    unsure = verger("cloud", "destroy", *purge, env=env)  # nobody is there to say yes
    assert unsure.returncode == 1
    assert client.get_object(Bucket="verger-data", Key="top")
    delete_routes(stack.find_stack(session, REGION).subnet)
    done = verger("cloud", "destroy", *purge, "--yes", env=env)
    assert done.returncode == 0, done.stderr
    assert "Erased s3://verger-data/in/: 3 objects and versions" in done.stdout
    rows = listing.read_text().splitlines()
    assert sorted(row.split(",")[1] for row in rows[1:]) == [
        "in/a.jpg", "in/a.jpg", "in/a.jpg", "old/b.jpg", "out/pca/matrix.csv", "top",
    ]  # fmt: skip
    assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == ["photographs"]
    kept = client.list_objects_v2(Bucket="photographs")["Contents"]
    assert [entry["Key"] for entry in kept] == ["older/c.jpg"]
    assert budgets.describe_budgets(AccountId=account)["Budgets"] == []


def test_destroy_without_purge_keeps_the_data(env, port: int) -> None:
    session = make_session()
    made = stack.create_stack(session, REGION, "verger-data")
    delete_routes(made.subnet)
    client = make_client(port)
    client.put_object(Bucket="verger-data", Key="in/a.jpg", Body=b"1")
    assert verger("cloud", "destroy", "--place", "s3://verger-data/in", env=env).returncode == 2
    done = verger("cloud", "destroy", "--yes", env=env)
    assert done.returncode == 0, done.stderr
    assert "verger-data stays" in done.stdout
    assert client.get_object(Bucket="verger-data", Key="in/a.jpg")
