"""Images to a bucket without their metadata, again and again; and their erasure."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from PIL import Image

from helpers import verger
from stores import FAKE_KEYS, Stubs, aws_settings, forget, make_bucket, make_client, moto_server
from verger.cloud.account.erase import erase
from verger.cloud.account.upload import upload_images, upload_packed
from verger.errors import InputError, RefusedError, SetupError, UsageError
from verger.images.listing import list_images
from verger.progress import Progress
from verger.store import objects
from verger.store.location import Location
from verger.store.session import make_session


class Counting(Progress):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.last = 0

    def start(self, stage: str, total: int | None = None) -> None:
        self.stages.append((stage, total))

    def update(self, done: int, rejected: int = 0) -> None:
        self.last = done


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with moto_server() as port:
        for name in ("paris", "packs"):
            make_bucket(port, name)
        ohio = {"region_name": "us-east-2", "endpoint_url": f"http://127.0.0.1:{port}"}
        boto3.client("s3", **ohio, **FAKE_KEYS).create_bucket(
            Bucket="ohio", CreateBucketConfiguration={"LocationConstraint": "us-east-2"}
        )
        yield port


@pytest.fixture
def env(port: int, monkeypatch) -> Iterator[dict[str, str]]:
    with aws_settings(port, monkeypatch) as env:
        yield env


@pytest.fixture
def photographs(orchard: Path, tmp_path: Path) -> Path:
    """Some photographs, one of which tells where it was taken, and a note."""
    folder = tmp_path / "photographs"
    shutil.copytree(next(iter(sorted(orchard.iterdir()))), folder / "Apple")
    exif = Image.Exif()
    exif[0x010F] = "Camera of Somebody"
    exif.get_ifd(0x8825)[1] = "N"
    first = min((folder / "Apple").iterdir())
    Image.open(first).save(first, exif=exif)
    (folder / "note.txt").write_text("not an image")
    return folder


def keys(port: int, bucket: str, prefix: str) -> list[str]:
    found = make_client(port).list_objects_v2(Bucket=bucket, Prefix=prefix)
    return [entry["Key"] for entry in found.get("Contents", ())]


def test_images_arrive_without_metadata_and_what_is_none_stays(
    env, port: int, photographs: Path
) -> None:
    told = Counting()
    place = Location.parse("s3://paris/plain")
    done = upload_images(make_session(), Location(str(photographs)), place, told)
    assert (done.sent, done.present) == (6, 0)
    assert list(done.refused) == ["note.txt"]
    assert told.stages[-1] == ("upload", 7)
    assert told.last == 7
    for image in list_images(place):
        body = (
            make_client(port).get_object(Bucket="paris", Key=f"plain/{image.path}")["Body"].read()
        )
        assert b"Somebody" not in body
        with (
            Image.open(io.BytesIO(body)) as ours,
            Image.open(photographs / image.path) as theirs,
        ):
            assert not ours.getexif()
            assert ours.tobytes() == theirs.tobytes()
    assert len(keys(port, "paris", "plain/")) == 6


def test_the_same_upload_sends_what_is_missing_or_changed(env, port: int, photographs) -> None:
    source, place = Location(str(photographs)), Location.parse("s3://paris/again")
    upload_images(make_session(), source, place, Progress())
    first, second, *_ = sorted((photographs / "Apple").glob("*.jpg"))
    make_client(port).delete_object(Bucket="paris", Key=f"again/Apple/{first.name}")
    Image.new("RGB", (9, 9)).save(second)
    done = upload_images(make_session(), source, place, Progress())
    assert (done.sent, done.present) == (2, 4)
    assert len(keys(port, "paris", "again/")) == 6


def test_an_upload_that_breaks_off_goes_on(env, port: int, photographs: Path, monkeypatch) -> None:

    sent = []

    def put(path: str, data: bytes) -> None:
        if len(sent) == 3:
            raise SetupError("The store of paris does not answer.")
        sent.append(path)
        make_client(port).put_object(Bucket="paris", Key=path.removeprefix("paris/"), Body=data)

    source, place = Location(str(photographs)), Location.parse("s3://paris/broken")
    with monkeypatch.context() as patch:
        patch.setattr(objects, "put", put)
        with pytest.raises(SetupError, match="does not answer"):
            upload_images(make_session(), source, place, Progress())
    done = upload_images(make_session(), source, place, Progress())
    assert (done.sent, done.present) == (3, 3)


def test_the_command_packs_and_goes_on(env, port: int, photographs: Path) -> None:
    arguments = ("cloud", "upload", photographs, "s3://packs/in", "--json")
    done = verger(*arguments, env=env)
    assert done.returncode == 0, done.stderr
    packed = json.loads(done.stdout)
    assert (packed["images"], packed["status"]) == (7, "complete")
    shards = [key for key in keys(port, "packs", "in/") if key.endswith(".parquet")]
    assert len(shards) == 1
    body = make_client(port).get_object(Bucket="packs", Key=shards[0])["Body"].read()
    assert b"Somebody" not in body
    again = verger("cloud", "upload", photographs, "s3://packs/in", env=env)
    assert again.returncode == 0, again.stderr
    assert "6 packed, 1 refused" in again.stdout
    plain = verger("cloud", "upload", photographs, "s3://packs/plain", "--no-pack", env=env)
    assert plain.returncode == 0, plain.stderr
    assert "6 sent" in plain.stdout
    assert "left out: note.txt" in plain.stdout


@pytest.mark.parametrize("upload", [upload_images, upload_packed])
@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        ("s3://ohio/in", RefusedError, "us-east-2"),
        ("s3://missing/in", InputError, "does not exist"),
        ("elsewhere", UsageError, "not on S3"),
    ],
)
def test_nothing_is_sent_to_a_place_that_is_refused(
    env, port: int, photographs: Path, upload, target: str, error, words: str
) -> None:
    with pytest.raises(error, match=words):
        upload(make_session(), Location(str(photographs)), Location.parse(target), Progress())
    assert keys(port, "ohio", "") == []


@pytest.mark.parametrize("command", ["plan", "upload"])
def test_the_commands_refuse_a_bucket_in_ohio_with_exit_code_6(
    env, photographs: Path, command: str
) -> None:
    arguments = (photographs,) if command == "upload" else ()
    done = verger("cloud", command, *arguments, "s3://ohio/in", env=env)
    assert done.returncode == 6, done.stderr
    assert "us-east-2" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plan_counts_a_bucket_and_takes_its_region(env, port: int) -> None:
    for number in range(3):
        make_client(port).put_object(Bucket="paris", Key=f"three/{number}.jpg", Body=b"x")
    done = verger(
        "cloud", "plan", "s3://paris/three", "--json", env={**env, "AWS_REGION": "eu-north-1"}
    )
    assert done.returncode == 0, done.stderr
    assert {(row["images"], row["region"]) for row in json.loads(done.stdout)} == {(3, "eu-west-3")}


def test_images_are_not_fetched_from_elsewhere_either(env) -> None:
    places = Location.parse("s3://ohio/in"), Location.parse("s3://packs/from-ohio")
    with pytest.raises(RefusedError, match="us-east-2"):
        upload_packed(make_session(), *places, Progress())


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://store.example.org", "store"),
        ("https://s3.us-east-1.amazonaws.com", "us-east-1"),
        ("http://s3.eu-west-3.amazonaws.com", "encrypt"),
    ],
)
def test_a_store_elsewhere_is_refused(
    env, photographs: Path, monkeypatch, url: str, words: str
) -> None:
    session = make_session()
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    forget()
    with pytest.raises(RefusedError, match=words):
        upload_images(
            session, Location(str(photographs)), Location.parse("s3://paris/x"), Progress()
        )


def test_a_folder_without_files_is_an_input_error(env, tmp_path: Path) -> None:
    place = Location.parse("s3://paris/empty")
    with pytest.raises(InputError, match="holds no file"):
        upload_images(make_session(), Location(str(tmp_path)), place, Progress())
    with pytest.raises(UsageError, match="on S3 already"):
        upload_images(make_session(), place, Location.parse("s3://paris/other"), Progress())


@pytest.mark.parametrize("page_size", [1000, 2])
def test_erasure_takes_all_versions_below_a_place_and_nothing_beside(
    env, port: int, page_size: int, monkeypatch
) -> None:
    monkeypatch.setattr("verger.cloud.account.erase.PAGE_SIZE", page_size)
    name = f"versions-{page_size}"
    client = make_client(port)
    make_bucket(port, name)
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    for key in ("in/a", "in/a", "in/b", "in", "in-not/c"):
        client.put_object(Bucket=name, Key=key, Body=b"123")
    client.delete_object(Bucket=name, Key="in/b")
    for key in ("in/half", "in-not/half"):
        client.create_multipart_upload(Bucket=name, Key=key)
    told = Counting()
    erased = erase(make_session(), Location(f"s3://{name}/in"), told)
    assert sorted(version.key for version in erased) == ["in", "in/a", "in/a", "in/b", "in/b"]
    assert sum(version.size for version in erased) == 12
    assert told.last == 5
    left = client.list_object_versions(Bucket=name)
    assert [version["Key"] for version in left["Versions"]] == ["in-not/c"]
    assert "DeleteMarkers" not in left
    uploads = client.list_multipart_uploads(Bucket=name)["Uploads"]
    assert [upload["Key"] for upload in uploads] == ["in-not/half"]
    assert erase(make_session(), Location(f"s3://{name}/in"), Progress()) == []


def test_an_object_that_cannot_be_erased_is_named() -> None:
    stubs = Stubs()
    stub = stubs.on("s3")
    version = {"Key": "in/a", "VersionId": "1", "Size": 3}
    stub.add_response("list_object_versions", {"Versions": [version], "IsTruncated": False})
    stub.add_response("delete_objects", {"Errors": [{"Key": "in/a", "Code": "AccessDenied"}]})
    words = r"s3://b/in/a cannot be erased \(AccessDenied\)"
    with stubs.active(), pytest.raises(SetupError, match=words):
        erase(stubs, Location("s3://b/in"), Progress())
