"""The stack: what its template promises, and making, changing and removing it on moto."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import boto3
import cfnlint.api
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.stub import ANY
from typer.testing import CliRunner

from helpers import verger
from policies import mistakes_in
from stores import REGION, Stubs, aws_settings, make_bucket, make_client, moto_server
from verger.cli.main import app
from verger.cloud.account import cloudformation, erase, limits, network, owned, stack
from verger.cloud.account.cloudformation import TAGS
from verger.cloud.money import budget
from verger.errors import InputError, RefusedError, SetupError, UsageError
from verger.progress import Progress, Time
from verger.store.regions import EU_REGIONS
from verger.store.session import make_session

# moto passes over what it does not play: policies of buckets and groups of schedules.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")


@pytest.fixture
def port() -> Iterator[int]:
    with moto_server() as port:
        yield port


@pytest.fixture
def env(port: int, monkeypatch) -> Iterator[dict[str, str]]:
    monkeypatch.setattr(cloudformation, "POLL_SECONDS", 0)
    with aws_settings(port, monkeypatch) as env:
        yield env


@pytest.fixture
def resources() -> dict[str, dict]:
    decoded = cfnlint.decode.decode_str(cloudformation.template())[0]
    return json.loads(json.dumps(decoded))["Resources"]


def properties(resources: dict[str, dict], kind: str) -> list[dict]:
    found = [item["Properties"] for item in resources.values() if item["Type"] == kind]
    assert found, f"the template has no {kind}"
    return found


def resolved(value: object) -> object:
    """A policy of the template, in which names of CloudFormation are filled in."""
    match value:
        case {"Ref": name}:
            value = NAMES[name]
        case {"Fn::GetAtt": _}:
            value = "arn:aws:iam::123456789012:role/orchard"
        case {"Fn::If": [_, yes, _]}:
            value = resolved(yes)
        case {"Fn::Sub": text}:
            value = re.sub(r"\$\{([\w:]+)\}", lambda found: NAMES[found[1]], str(text))
        case list():
            value = [resolved(one) for one in value]
        case dict():
            value = {key: resolved(one) for key, one in value.items()}
    return value


KEY = "arn:aws:kms:eu-west-3:123456789012:key/1"
NAMES = {
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::AccountId": "123456789012",
    "AWS::StackName": "verger",
    "BucketArns": "arn:aws:s3:::orchard",
    "ObjectArns": "arn:aws:s3:::orchard/*",
    "DiskKey": KEY,
}


def test_the_template_passes_cfn_lint_in_every_region() -> None:
    config = cfnlint.config.ManualArgs(regions=list(EU_REGIONS), include_checks=["W"])
    assert cfnlint.api.lint(cloudformation.template(), config=config) == []


def test_the_bucket_is_encrypted_closed_and_forgets_logs(resources) -> None:
    (bucket,) = properties(resources, "AWS::S3::Bucket")
    rules = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rules[0]["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    expiring = {
        rule["Prefix"]["Fn::Sub"]: rule["ExpirationInDays"]
        for rule in bucket["LifecycleConfiguration"]["Rules"]
        if "Prefix" in rule
    }
    wanted = {stack.LOGS: 30, stack.CODE: 30, stack.TEMPORARY: 7}
    assert expiring == {f"${{Prefix}}{name}/": days for name, days in wanted.items()}
    (policy,) = properties(resources, "AWS::S3::BucketPolicy")
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert resources["DataBucket"]["DeletionPolicy"].startswith("Retain")


def test_the_network_leads_to_s3_and_nowhere_else(resources) -> None:
    kinds = {item["Type"] for item in resources.values()}
    for way_out in ("InternetGateway", "NatGateway", "Route", "EIP", "EgressOnlyInternetGateway"):
        assert f"AWS::EC2::{way_out}" not in kinds
    subnets = properties(resources, "AWS::EC2::Subnet")
    assert len(subnets) == 3
    assert len({str(subnet["AvailabilityZone"]) for subnet in subnets}) == 3
    assert not any(subnet["MapPublicIpOnLaunch"] for subnet in subnets)
    (endpoint,) = properties(resources, "AWS::EC2::VPCEndpoint")
    assert endpoint["VpcEndpointType"] == "Gateway"
    for statement in endpoint["PolicyDocument"]["Statement"]:
        assert statement["Resource"] != "*", "anybody's bucket could be written to"
        if statement["Resource"] not in ({"Ref": "BucketArns"}, {"Ref": "ObjectArns"}):
            assert statement["Action"] == ["s3:GetObject", "s3:ListBucket"], "a bucket of AWS'"


def test_emr_may_make_no_endpoint_that_is_paid_by_the_hour(resources) -> None:
    statements = resources["ServiceRole"]["Properties"]["Policies"][0]["PolicyDocument"]
    denied = [one["Action"] for one in statements["Statement"] if one["Effect"] == "Deny"]
    assert "ec2:CreateVpcEndpoint" in denied


def test_every_policy_of_the_template_is_one_that_iam_knows(resources) -> None:
    """Actions that exist, on resources that they take."""
    found = []
    for item in resources.values():
        for policy in (*item["Properties"].get("Policies", ()), item["Properties"]):
            document = policy.get("PolicyDocument")
            if document and item["Type"].startswith("AWS::IAM::"):
                found += mistakes_in(resolved(document))
    assert found == []


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
    assert tag == TAGS["application"]


def test_machines_need_a_session_for_their_credentials(resources) -> None:
    (found,) = properties(resources, "AWS::EMR::SecurityConfiguration")
    settings = found["SecurityConfiguration"]
    assert settings["EncryptionConfiguration"]["EnableAtRestEncryption"] is True
    metadata = settings["InstanceMetadataServiceConfiguration"]
    assert metadata["MinimumInstanceMetadataServiceVersion"] == 2


def test_the_stack_is_made_once_changed_and_found(env, port: int, monkeypatch) -> None:
    make_bucket(port, "photographs")
    session = make_session()
    with pytest.raises(SetupError) as raised:
        stack.find_stack(session)
    assert "verger cloud init" in raised.value.hint
    made = stack.create_stack(session, "verger-data")
    assert (made.region, made.bucket, made.buckets) == (REGION, "verger-data", ("verger-data",))
    assert len(set(made.subnets)) == 3
    assert made.scheduler_role.startswith("arn:aws:iam::")
    assert stack.create_stack(session, "verger-data") == made
    assert stack.find_stack(session) == made
    # A region that has got another zone since then: a subnet that moved would be another one.
    monkeypatch.setattr(stack, "_three_zones", lambda _: [f"{REGION}d"] * 3)
    changed = stack.create_stack(session, "verger-data", others=["photographs"])
    assert changed.buckets == ("verger-data", "photographs")
    assert changed.subnets == made.subnets
    cloudformation = session.client("cloudformation")
    (described,) = cloudformation.describe_stacks()["Stacks"]
    assert {tag["Key"]: tag["Value"] for tag in described["Tags"]} == TAGS
    given = {item["ParameterKey"]: item["ParameterValue"] for item in described["Parameters"]}
    for bucket in changed.buckets:
        assert f"arn:aws:s3:::{bucket}/*" in given["ObjectArns"]
    with pytest.raises(InputError, match="verger-data, not another"):
        stack.create_stack(session, "another")


def test_another_bucket_of_the_stack_must_be_in_its_region(env, port: int) -> None:
    for name, region in (("berlin", "eu-central-1"), ("ohio", "us-east-2")):
        boto3.client("s3", region_name=region).create_bucket(
            Bucket=name, CreateBucketConfiguration={"LocationConstraint": region}
        )
    session = make_session()
    with pytest.raises(InputError, match="eu-central-1"):
        stack.create_stack(session, "verger-data", others=["berlin"])
    with pytest.raises(RefusedError, match="us-east-2"):
        stack.create_stack(session, "verger-data", others=["ohio"])
    assert session.client("cloudformation").describe_stacks()["Stacks"] == []


def test_a_bucket_that_is_there_already_is_not_taken_over(env, port: int) -> None:
    make_bucket(port, "mine")
    with pytest.raises(InputError, match="there already"):
        stack.create_stack(make_session(), "mine")
    with pytest.raises(InputError, match="cannot be the name"):
        stack.create_stack(make_session(), "Not A Name")


def network_of(made: stack.Stack) -> str:
    ec2 = boto3.client("ec2", region_name=REGION)
    return ec2.describe_subnets(SubnetIds=[made.subnets[0]])["Subnets"][0]["VpcId"]


def delete_routes(made: stack.Stack) -> None:
    """Delete what moto forgets when it deletes a stack, and then misses."""
    ec2 = boto3.client("ec2", region_name=REGION)
    filters = [{"Name": "vpc-id", "Values": [network_of(made)]}]
    for table in ec2.describe_route_tables(Filters=filters)["RouteTables"]:
        if any(association["Main"] for association in table["Associations"]):
            continue
        for association in table["Associations"]:
            ec2.disassociate_route_table(AssociationId=association["RouteTableAssociationId"])
        ec2.delete_route_table(RouteTableId=table["RouteTableId"])


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
        stack.create_stack(stubs, "theirs")


def test_wrong_keys_are_not_taken_for_a_taken_name() -> None:
    stubs = Stubs()
    absent(stubs)
    stubs.on("s3").add_client_error("head_bucket", "403", http_status_code=403)
    stubs.on("sts").add_client_error("get_caller_identity", "InvalidClientTokenId")
    with stubs.active(), pytest.raises(SetupError, match="refuses the AWS credentials"):
        stack.create_stack(stubs, "theirs")


def test_a_lost_network_is_not_taken_for_a_taken_name(monkeypatch) -> None:
    def lose(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://s3")

    stubs = Stubs()
    absent(stubs)
    monkeypatch.setattr(stubs.client("s3"), "head_bucket", lose)
    with stubs.active(), pytest.raises(SetupError, match="does not answer"):
        stack.create_stack(stubs, "mine")


def test_a_stack_that_is_being_made_is_said() -> None:
    stubs = Stubs()
    parameters = [{"ParameterKey": "Bucket", "ParameterValue": "verger-data"}]
    making = {"StackName": "verger", "CreationTime": 0, "StackStatus": "CREATE_IN_PROGRESS"}
    answers = stubs.on("cloudformation")
    answers.add_response("describe_stacks", {"Stacks": [{**making, "Parameters": parameters}]})
    zones = {"AvailabilityZones": [{"ZoneName": "eu-west-3a"}]}
    stubs.on("ec2").add_response("describe_availability_zones", zones)
    off = {"EbsEncryptionByDefault": False}
    stubs.on("ec2").add_response("get_ebs_encryption_by_default", off)
    words = "Stack:verger is in CREATE_IN_PROGRESS state and can not be updated."
    answers.add_client_error("update_stack", "ValidationError", words)
    with stubs.active(), pytest.raises(SetupError, match="CREATE_IN_PROGRESS"):
        stack.create_stack(stubs, "verger-data")


def test_a_stack_that_cannot_be_made_names_the_first_failure() -> None:
    stubs = Stubs()
    absent(stubs)
    stubs.on("s3").add_client_error("head_bucket", "404", http_status_code=404)
    zones = [{"ZoneName": f"{REGION}{letter}"} for letter in "ab"]
    stubs.on("ec2").add_response("describe_availability_zones", {"AvailabilityZones": zones})
    off = {"EbsEncryptionByDefault": False}
    stubs.on("ec2").add_response("get_ebs_encryption_by_default", off)
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
        stack.create_stack(stubs, "verger-data")


def test_security_groups_that_emr_left_behind_go_with_the_stack(env) -> None:
    session = make_session()
    made = stack.create_stack(session, "verger-data")
    ec2 = session.client("ec2")
    network = network_of(made)
    groups = [
        ec2.create_security_group(GroupName=name, Description=name, VpcId=network)["GroupId"]
        for name in ("ElasticMapReduce-Master-Private", "ElasticMapReduce-Slave-Private")
    ]
    for one, other in (groups, groups[::-1]):
        ec2.authorize_security_group_ingress(
            GroupId=one,
            IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": other}]}],
        )
    delete_routes(made)
    stack.delete_stack(session)
    left = {group["GroupId"] for group in ec2.describe_security_groups()["SecurityGroups"]}
    assert left.isdisjoint(groups)
    with pytest.raises(SetupError, match="nothing of verger"):
        stack.find_stack(session)
    stack.delete_stack(session)


def test_failed_deletion_names_what_is_in_the_way() -> None:
    stubs = Stubs()
    stubs.on("ec2").add_response("describe_vpcs", {"Vpcs": []})
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
                 "LogicalResourceId": "Subnet1", "ResourceStatus": "DELETE_FAILED",
                 "ResourceStatusReason": "it has dependencies"},
                {"StackId": "s", "EventId": "e", "StackName": "verger", "Timestamp": 0,
                 "PhysicalResourceId": "arn:stack", "ResourceStatus": "DELETE_IN_PROGRESS"},
                {"StackId": "s", "EventId": "e", "StackName": "verger", "Timestamp": 0,
                 "LogicalResourceId": "S3Endpoint", "ResourceStatus": "UPDATE_FAILED",
                 "ResourceStatusReason": "a month ago"},
            ]
        },
        {"StackName": ANY},
    )  # fmt: skip
    with stubs.active(), pytest.raises(SetupError, match="Subnet1 failed") as raised:
        stack.delete_stack(stubs)
    assert "verger cloud stop" in raised.value.hint


def test_an_endpoint_that_emr_made_is_found_deleted_and_waited_for(env) -> None:
    session = make_session()
    made = stack.create_stack(session, "verger-data")
    ec2 = session.client("ec2")
    where = network_of(made)
    endpoint = ec2.create_vpc_endpoint(
        VpcId=where,
        VpcEndpointType="Interface",
        ServiceName=f"com.amazonaws.{REGION}.elasticmapreduce",
        SubnetIds=[made.subnets[0]],
    )["VpcEndpoint"]["VpcEndpointId"]
    assert network.find_endpoints(session, where) == [endpoint]
    delete_routes(made)
    stack.delete_stack(session)
    assert network.find_endpoints(session, where) == []
    assert network.find_networks(session) == []


def test_an_endpoint_that_takes_long_is_waited_for_and_then_named() -> None:
    stubs, slept = Stubs(), []
    one = {
        "VpcEndpointId": "vpce-1", "VpcEndpointType": "Interface", "State": "available",
        "Tags": [],
    }  # fmt: skip
    answers = stubs.on("ec2")
    answers.add_response("describe_vpc_endpoints", {"VpcEndpoints": [one]})
    answers.add_response("delete_vpc_endpoints", {}, {"VpcEndpointIds": ["vpce-1"]})
    going = {"VpcEndpoints": [{**one, "State": "deleting"}]}
    time = Time(sleep=slept.append, poll_seconds=300)
    answers.add_response("describe_vpc_endpoints", going)
    answers.add_response("describe_vpc_endpoints", going)
    with stubs.active(), pytest.raises(SetupError, match="vpce-1 are still being deleted"):
        network.free_network(stubs, "vpc-1", time)
    assert slept == [300, 300]


@pytest.mark.parametrize(
    ("encrypted", "key", "found"),
    [(False, None, ""), (True, "alias/aws/ebs", ""), (True, KEY, KEY)],
)
def test_a_key_of_the_customer_s_is_noticed(encrypted: bool, key: str | None, found: str) -> None:
    stubs = Stubs()
    answers = stubs.on("ec2")
    answers.add_response("get_ebs_encryption_by_default", {"EbsEncryptionByDefault": encrypted})
    if key:
        answers.add_response("get_ebs_default_kms_key_id", {"KmsKeyId": key})
    with stubs.active():
        assert limits.default_disk_key(stubs) == found


def test_a_key_of_the_customer_s_is_given_to_emr_s_role(env, resources, monkeypatch) -> None:
    monkeypatch.setattr(stack, "default_disk_key", lambda *_: KEY)
    assert stack.create_stack(make_session(), "verger-data").disk_key == KEY
    policy = resources["DiskKeyPolicy"]
    assert policy["Condition"] == "KeyForServiceRole"
    assert policy["Properties"]["Roles"] == [{"Ref": "ServiceRole"}]
    use, give = policy["Properties"]["PolicyDocument"]["Statement"]
    assert use["Resource"] == give["Resource"] == {"Ref": "DiskKey"}
    assert give["Action"] == "kms:CreateGrant"


def test_what_is_there_already_is_not_made(env, port: int, tmp_path: Path) -> None:
    make_bucket(port, "theirs")
    session = make_session()
    ec2, iam = session.client("ec2"), session.client("iam")
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.1.0/24")["Subnet"]["SubnetId"]
    before = len(ec2.describe_vpcs()["Vpcs"])
    file = tmp_path / "ours.json"
    given = {
        "bucket": True,
        "prefix": "data/fruits/",
        "subnets": [subnet],
        "service_role": "emr",
        "instance_profile": "emr-machines",
        "scheduler_role": "arn:aws:iam::123456789012:role/clock",
        "tags": {"cost-centre": "42"},
    }
    file.write_text(json.dumps(given))
    words = ("cloud", "init", "--bucket", "theirs", "--bring-your-own", file)
    done = verger(*words, env=env)
    assert done.returncode == 0, done.stderr
    made = stack.find_stack(session)
    assert (made.subnets, made.service_role, made.instance_profile) == (
        (subnet,), "emr", "emr-machines",
    )  # fmt: skip
    assert made.scheduler_role == given["scheduler_role"]
    assert made.key(stack.LOGS) == "data/fruits/_verger/logs"
    assert dict(made.cluster_tags) == {"cost-centre": "42"}
    assert len(ec2.describe_vpcs()["Vpcs"]) == before
    assert iam.list_roles()["Roles"] == []
    # Given again without the file, it keeps what it knew.
    assert stack.create_stack(session, "theirs") == made
    client = make_client(port)
    for key in ("data/fruits/_verger/logs/1", "data/fruits/in/a.jpg", "of/others"):
        client.put_object(Bucket="theirs", Key=key, Body=b"1")
    done = verger("cloud", "destroy", "--purge", "--yes", env=env)
    assert done.returncode == 0, done.stderr
    assert "The bucket theirs stays" in done.stdout
    left = [one["Key"] for one in client.list_objects_v2(Bucket="theirs")["Contents"]]
    assert left == ["data/fruits/in/a.jpg", "of/others"], "what is not verger's own stays"
    assert len(ec2.describe_vpcs()["Vpcs"]) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"subnet": "subnet-1"}', "subnet: Extra inputs are not permitted"),
        ('{"subnets": "subnet-1"}', "subnets: Input should be a valid"),
        ('{"kms_key": "alias/mine"}', "kms_key: String should match"),
        ('{"tags": {"a": "b,c"}}', "tags: one has a comma"),
        ("not json", "Invalid JSON"),
    ],
)
def test_a_file_of_what_is_there_that_is_wrong_names_the_field(
    tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "ours.json").write_text(text)
    with pytest.raises(UsageError, match=words):
        owned.read_owned(tmp_path / "ours.json")


def test_roles_have_the_boundary_that_was_given(env) -> None:
    session = make_session()
    boundary = session.client("iam").create_policy(
        PolicyName="bound",
        PolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
            }
        ),
    )["Policy"]["Arn"]
    stack.create_stack(session, "verger-data", owned=owned.Owned(permissions_boundary=boundary))
    iam = session.client("iam")
    roles = [iam.get_role(RoleName=one["RoleName"])["Role"] for one in iam.list_roles()["Roles"]]
    assert len(roles) == 3
    bounds = {role["PermissionsBoundary"]["PermissionsBoundaryArn"] for role in roles}
    assert bounds == {boundary}


def test_the_sovereign_cloud_is_refused_with_the_reason() -> None:
    with pytest.raises(RefusedError, match="neither its prices nor what EMR needs there"):
        stack.create_stack(Stubs("eusc-de-east-1"), "verger-data")


def test_init_and_destroy_as_commands(env, port: int, tmp_path: Path) -> None:
    options = ("--bucket", "verger-data", "--email", "a@example.org")
    done = verger("cloud", "init", *options, env=env)
    assert done.returncode == 0, done.stderr
    assert "verger is ready in eu-west-3" in done.stdout
    session = make_session()
    assert not session.client("ec2").get_ebs_encryption_by_default()["EbsEncryptionByDefault"]
    budgets = session.client("budgets")
    account = stack.find_stack(session).account
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
            "Ec2SubnetId": stack.find_stack(session).subnets[1],
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
    delete_routes(stack.find_stack(session))
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


def test_disks_are_encrypted_where_that_is_asked(env, monkeypatch) -> None:
    monkeypatch.setattr(stack, "default_disk_key", lambda *_: "")  # moto has none
    words = ["cloud", "init", "--bucket", "verger-data", "--encrypt-disks"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "AWS encrypts all new disks" in done.stdout
    ec2 = make_session().client("ec2")
    assert ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"]


def test_destroy_without_purge_keeps_the_data(env, port: int) -> None:
    session = make_session()
    made = stack.create_stack(session, "verger-data")
    delete_routes(made)
    client = make_client(port)
    client.put_object(Bucket="verger-data", Key="in/a.jpg", Body=b"1")
    for words in (
        ("--place", "s3://verger-data/in"),
        ("--purge", "--bucket", "another"),
        ("--purge", "--list", "/no/such/folder/erased.csv"),
    ):
        assert delete_all(env, *words).exit_code == 2
    done = verger("cloud", "destroy", "--yes", env=env)
    assert done.returncode == 0, done.stderr
    assert "verger-data stays" in done.stdout
    assert client.get_object(Bucket="verger-data", Key="in/a.jpg")


def delete_all(env: dict[str, str], *words: object, **answers: object) -> object:
    return CliRunner().invoke(app, ["cloud", "destroy", "--yes", *map(str, words)], **answers)


def test_destroy_goes_on_without_a_right_to_budgets(env, monkeypatch) -> None:
    session = make_session()
    delete_routes(stack.create_stack(session, "verger-data"))

    def refuse(*_: object) -> None:
        raise SetupError("AWS refused to delete the budget: the credentials may not.")

    monkeypatch.setattr(budget, "delete_budget", refuse)
    done = delete_all(env)
    assert done.exit_code == 0, done.output
    assert "Whether there is a budget is not known" in done.stdout
    assert session.client("cloudformation").describe_stacks()["Stacks"] == []


def test_the_budget_of_another_region_stays(env) -> None:
    session = make_session()
    delete_routes(stack.create_stack(session, "verger-data"))
    for region in (REGION, "eu-west-1"):
        budget.set_budget(make_session(region), "123456789012", "a@example.org", 10**6)
    assert delete_all(env).exit_code == 0
    left = session.client("budgets").describe_budgets(AccountId="123456789012")["Budgets"]
    assert [one["BudgetName"] for one in left] == ["verger-eu-west-1"]
    assert left[0]["BudgetLimit"]["Amount"] == "1000000.00", "AWS takes no exponent"


def test_a_bucket_that_logs_fill_again_is_emptied_again(env, port: int) -> None:
    make_bucket(port, "verger-data")
    session, client = make_session(), make_client(port)
    late = [f"_verger/logs/j-1/{number}" for number in range(3)]

    def write(_: float) -> None:
        if late:
            client.put_object(Bucket="verger-data", Key=late.pop(), Body=b"late")

    write(0)
    erase.delete_bucket(session, "verger-data", Progress(), Time(sleep=write))
    assert client.list_buckets()["Buckets"] == []
    erase.delete_bucket(session, "verger-data", Progress(), Time(sleep=write))


def test_a_second_destroy_mends_the_first(env, port: int) -> None:
    """The stack is gone, its network and bucket are not."""
    session = make_session()
    ec2 = session.client("ec2")
    make_bucket(port, "verger-data")
    make_client(port).put_object(Bucket="verger-data", Key="in/a.jpg", Body=b"1")
    tags = [{"Key": "application", "Value": "verger"}]
    vpc = ec2.create_vpc(
        CidrBlock="10.83.0.0/24", TagSpecifications=[{"ResourceType": "vpc", "Tags": tags}]
    )["Vpc"]["VpcId"]
    left = ec2.create_security_group(
        GroupName="ElasticMapReduce-ServiceAccess", Description="x", VpcId=vpc
    )["GroupId"]
    refused = delete_all(env, "--purge")
    assert refused.exit_code == 5
    assert "--bucket NAME" in refused.stderr
    done = delete_all(env, "--purge", "--bucket", "verger-data")
    assert done.exit_code == 0, done.output
    assert "The bucket verger-data is gone" in done.stdout
    groups = ec2.describe_security_groups()["SecurityGroups"]
    assert left not in {group["GroupId"] for group in groups}
    assert make_client(port).list_buckets()["Buckets"] == []
    again = delete_all(env, "--purge", "--bucket", "verger-data")
    assert again.exit_code == 0, again.output
