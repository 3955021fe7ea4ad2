"""Nothing outside the European Union: regions, endpoints and buckets are looked up and refused."""

from collections.abc import Iterator

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from stores import FAKE_KEYS, KEYS, Stubs, aws_settings, make_bucket, moto_server
from verger.cloud.account.buckets import check_buckets
from verger.errors import InputError, RefusedError, SetupError, VergerError
from verger.store.errors import aws_errors
from verger.store.regions import EU_REGIONS, check_endpoint, check_region
from verger.store.session import make_session


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with moto_server() as port:
        make_bucket(port, "paris")
        for name, region in (("ohio", "us-east-2"), ("london", "eu-west-2")):
            client = boto3.client(
                "s3",
                endpoint_url=f"http://127.0.0.1:{port}",
                region_name=region,
                **FAKE_KEYS,
            )
            client.create_bucket(
                Bucket=name, CreateBucketConfiguration={"LocationConstraint": region}
            )
        yield port


@pytest.fixture
def aws(port: int, monkeypatch) -> Iterator[None]:
    with aws_settings(port, monkeypatch):
        yield


@pytest.fixture
def nobody(monkeypatch, tmp_path) -> None:
    """No credentials, no settings, no network."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def keys(nobody, monkeypatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("region", EU_REGIONS)
def test_regions_of_the_union_are_accepted(region: str) -> None:
    check_region(region)


@pytest.mark.parametrize(
    "region", ["eu-west-2", "eu-central-2", "us-east-2", "cn-north-1", "us-gov-west-1", "", "EU"]
)
def test_other_regions_are_refused(region: str, keys) -> None:
    with pytest.raises(RefusedError, match="not inside the European Union"):
        check_region(region)
    if region:
        with pytest.raises(RefusedError):
            make_session(region)


@pytest.mark.parametrize(
    "url",
    [
        None,
        "http://127.0.0.1:5000",
        "http://localhost:9000/path",
        "http://[::1]:9000",
        "https://s3.eu-west-3.amazonaws.com",
        "https://bucket.s3.eu-north-1.amazonaws.com/key",
        "https://vpce-1.s3.eu-west-1.vpce.amazonaws.com",
        "https://s3.dualstack.eu-south-2.amazonaws.com",
        "https://elasticmapreduce.eu-central-1.api.aws",
        "https://s3.eusc-de-east-1.amazonaws.eu",
    ],
)
def test_endpoints_in_the_union_and_on_this_machine_are_accepted(url: str | None) -> None:
    check_endpoint(url, "eu-west-1")


@pytest.mark.parametrize(
    "url",
    [
        "https://s3.us-east-2.amazonaws.com",
        "https://s3.amazonaws.com",
        "https://eu-west-1.s3.us-east-2.amazonaws.com",
        "https://s3.eu-west-2.amazonaws.com",
        "https://s3.cn-north-1.amazonaws.com.cn",
        "https://eu-west-1.amazonaws.com.evil.example",
        "https://s3.eu-west-1.example.org",
        "https://127.0.0.1.example.org",
        "http://s3.eu-west-1.amazonaws.com",
        "https://user@s3.us-east-1.amazonaws.com:443@s3.eu-west-1.example.org",
        "nonsense",
    ],
)
def test_endpoints_elsewhere_are_refused(url: str) -> None:
    with pytest.raises(RefusedError):
        check_endpoint(url, "eu-west-1")


@pytest.mark.parametrize(
    ("service", "call", "arguments"),
    [
        ("s3", "list_objects_v2", {"Bucket": "b"}),
        ("emr", "list_clusters", {}),
        ("scheduler", "list_schedules", {}),
        ("cloudformation", "describe_stacks", {}),
        ("ec2", "describe_vpcs", {}),
        ("service-quotas", "list_services", {}),
    ],
)
def test_a_request_to_a_host_elsewhere_is_never_sent(
    keys, monkeypatch, service: str, call: str, arguments: dict
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://store.example.org")
    client = make_session("eu-west-1").client(service)
    with pytest.raises(RefusedError, match="endpoint store"):
        getattr(client, call)(**arguments)


def test_a_client_made_for_ohio_is_refused_too(keys) -> None:
    client = make_session("eu-west-1").client("emr", region_name="us-east-2")
    with pytest.raises(RefusedError, match="us-east-2"):
        client.list_clusters()


def test_buckets_are_found_where_they_are(aws) -> None:
    assert check_buckets(make_session(), ["paris", "paris"]) == {"paris": "eu-west-3"}


@pytest.mark.parametrize(("bucket", "where"), [("ohio", "us-east-2"), ("london", "eu-west-2")])
def test_a_bucket_elsewhere_is_refused_whatever_the_settings_say(aws, bucket, where) -> None:
    with pytest.raises(RefusedError, match=where) as raised:
        check_buckets(make_session("eu-west-3"), ["paris", bucket])
    assert raised.value.exit_code == 6


@pytest.mark.parametrize("bucket", ["is-missing", "No_Such Bucket"])
def test_a_bucket_that_is_not_there_is_an_input_error(aws, bucket: str) -> None:
    with pytest.raises(InputError, match=bucket):
        check_buckets(make_session(), [bucket])


@pytest.mark.parametrize(
    ("status", "region", "body", "error", "words"),
    [
        (403, "eu-west-1", "AccessDenied", InputError, "forbidden"),
        (403, "us-east-2", None, RefusedError, "us-east-2"),
        (301, "us-east-2", None, RefusedError, "us-east-2"),
        (301, "eu-north-1", "PermanentRedirect", InputError, "eu-north-1"),
        (403, "eu-west-1", "ExpiredToken", SetupError, "expired"),
        (400, "eu-west-1", "InvalidAccessKeyId", SetupError, "InvalidAccessKeyId"),
        (403, "eu-west-1", "SignatureDoesNotMatch", SetupError, "refuses the AWS credentials"),
    ],
)
def test_where_a_bucket_is_counts_before_why_it_is_closed(
    status: int, region: str, body: str | None, error: type[VergerError], words: str
) -> None:
    stubs = Stubs()
    stub = stubs.on("s3")
    # The answer to HEAD has no body: only the status, and the header with the region.
    stub.add_client_error(
        "head_bucket",
        service_error_code=str(status),
        http_status_code=status,
        response_meta={"HTTPHeaders": {"x-amz-bucket-region": region}},
    )
    if body:
        stub.add_client_error(
            "list_objects_v2",
            service_error_code=body,
            http_status_code=status,
            response_meta={"HTTPHeaders": {"x-amz-bucket-region": region}},
        )
    with stubs.active(), pytest.raises(error, match=words):
        check_buckets(stubs, ["theirs"])


def test_a_bucket_without_a_region_is_refused() -> None:
    stubs = Stubs()
    stubs.on("s3").add_response("head_bucket", {})
    with stubs.active(), pytest.raises(RefusedError, match="does not say"):
        check_buckets(stubs, ["unknown"])


def test_no_credentials_are_a_setup_error(nobody) -> None:
    with pytest.raises(SetupError, match="no AWS credentials"):
        make_session("eu-west-1")


def test_an_unknown_profile_is_a_setup_error(nobody, monkeypatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SetupError, match="nobody"):
        make_session("eu-west-1")


def test_the_region_comes_from_the_settings(keys, monkeypatch) -> None:
    with pytest.raises(SetupError, match="No AWS region is set"):
        make_session()
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert make_session().region_name == "eu-north-1"
    assert make_session("eu-west-3").region_name == "eu-west-3"
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with pytest.raises(RefusedError):
        make_session()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("ExpiredTokenException", "expired"),
        ("UnrecognizedClientException", "refuses the AWS credentials"),
        ("AccessDeniedException", "may not"),
        ("ServiceQuotaExceededException", "quota"),
        ("ValidationException", "no such thing"),
    ],
)
def test_errors_of_aws_are_explained(code: str, words: str) -> None:
    stubs = Stubs()
    stubs.on("emr").add_client_error("list_clusters", code, "no such thing")
    client = stubs.client("emr")
    with stubs.active(), pytest.raises(SetupError, match=words), aws_errors("list the clusters"):
        client.list_clusters()


def test_a_lost_network_is_explained() -> None:
    with pytest.raises(SetupError, match="does not answer"), aws_errors("list the clusters"):
        raise EndpointConnectionError(endpoint_url="https://elasticmapreduce")
