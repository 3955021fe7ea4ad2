"""The same command on S3: a real server, real requests, and what may go wrong with them."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import fs

from faults import LOST_ANSWER, Fault, faulty
from helpers import assert_same_features, features_of, matrix_of, verger
from stores import (
    KEYS,
    REGION,
    aws_settings,
    download,
    forget,
    make_bucket,
    make_client,
    moto_server,
    seaweedfs,
    upload,
)
from verger.errors import InputError, SetupError
from verger.images.listing import list_images
from verger.spark import reading
from verger.spark.reading import Reader, Slice
from verger.spark.writing import write_here
from verger.store import objects, storage
from verger.store.errors import bucket_errors
from verger.store.location import Location
from verger.store.lock import Lease


@pytest.fixture(scope="module")
def port(tmp_path_factory) -> Iterator[int]:
    with seaweedfs(tmp_path_factory.mktemp("store") / "weed") as port:
        yield port


@pytest.fixture(scope="module")
def moto_port() -> Iterator[int]:
    with moto_server() as port:
        make_bucket(port, "plays")
        yield port


@pytest.fixture
def aws(port: int, monkeypatch) -> Iterator[dict[str, str]]:
    """This process and its children use SeaweedFS."""
    with aws_settings(port, monkeypatch) as env:
        yield env


@pytest.fixture
def moto(moto_port: int, monkeypatch) -> Iterator[dict[str, str]]:
    """This process and its children use moto, which takes any key and sorts as S3 does."""
    with aws_settings(moto_port, monkeypatch) as env:
        yield env


@pytest.fixture(scope="module")
def bucket(port: int, orchard: Path) -> str:
    """A bucket with the orchard in `in/`; tests must not change that."""
    upload(orchard, port, make_bucket(port, "orchard"), "in")
    return "orchard"


def assert_same_matrix(left: Path, right: Path) -> None:
    ours, theirs = matrix_of(left), matrix_of(right)
    pd.testing.assert_frame_equal(ours.iloc[:, :2], theirs.iloc[:, :2])
    np.testing.assert_allclose(ours.iloc[:, 2:], theirs.iloc[:, 2:], atol=1e-9)


def test_the_store_refuses_what_was_signed_for_another_region(
    aws, port: int, bucket: str, monkeypatch
) -> None:
    keys = {"access_key": KEYS["AWS_ACCESS_KEY_ID"], "secret_key": KEYS["AWS_SECRET_ACCESS_KEY"]}
    for region, words in (("eu-west-1", "AuthorizationHeaderMalformed"), (REGION, "")):
        store = fs.S3FileSystem(
            region=region, scheme="http", endpoint_override=f"127.0.0.1:{port}", **keys
        )
        selector = fs.FileSelector(f"{bucket}/in", recursive=True)
        with pytest.raises(OSError, match=words) if words else nullcontext():
            assert store.get_file_info(selector)
    # Of a bucket whose region is looked up, it does not matter what the settings say.
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    forget()
    place = Location(f"s3://{bucket}/in")
    first = next(iter(list_images(place)))
    assert storage.read_bytes(place.child(first.path))


def test_without_a_region_nothing_is_guessed(aws, bucket: str, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    forget()
    with pytest.raises(SetupError, match="No AWS region is set"):
        list(list_images(Location(f"s3://{bucket}/in")))


def test_a_run_from_s3_to_s3_is_the_local_one_and_grows_like_it(
    aws, port: int, orchard: Path, sound: Path, tmp_path: Path
) -> None:
    upload(orchard, port, bucket := make_bucket(port, "grows"), "in")
    arguments = ("run", f"s3://{bucket}/in", f"s3://{bucket}/out/a b", "--components=5", "--json")
    done = verger(*arguments)
    assert done.returncode == 0, done.stderr
    out = download(port, bucket, "out/a b", tmp_path / "out")
    assert_same_features(out, sound)
    assert_same_matrix(out, sound)
    assert "data:image/webp" in (out / "report.html").read_text()
    assert not (out / "_run/lease.json").exists()
    assert all("_temporary" not in str(file) for file in out.rglob("*"))
    for text in (done.stdout, done.stderr, (out / "manifest.json").read_text()):
        assert KEYS["AWS_SECRET_ACCESS_KEY"] not in text
        assert KEYS["AWS_ACCESS_KEY_ID"] not in text.replace(f"s3://{bucket}", "")

    # A local copy, in which one picture was replaced meanwhile, goes to the same place.
    copy = shutil.copytree(orchard, tmp_path / "in")
    changed = copy / "Cherry/r_0_100.jpg"
    changed.write_bytes((copy / "Cherry/r_2_100.jpg").read_bytes() + b"\0")
    done = verger("run", copy, f"s3://{bucket}/out/a b", "--components=5", "--rebase", "--json")
    counts = json.loads(done.stdout)["counts"]
    assert (counts["reused"], counts["featurized"]) == (23, 1)
    rows = features_of(download(port, bucket, "out/a b", tmp_path / "grown")).set_index("path")
    np.testing.assert_array_equal(
        rows.features["Cherry/r_0_100.jpg"], rows.features["Cherry/r_2_100.jpg"]
    )


ODD_KEYS = [
    "a+b.jpg", "a%2Fb.jpg", "100%.jpg", "été 🍐.jpg", " lead.jpg", "q?x=1&y.jpg", "a#b.jpg",
    'quo"te.jpg', "com,ma.jpg", "deep/er/and/deeper.jpg",
]  # fmt: skip
ODDER_KEYS = ["a//b.jpg", "../up.jpg", "./here.jpg"]


@pytest.mark.parametrize(
    ("store", "bucket_name", "keys"),
    [("port", "orchard", ODD_KEYS), ("moto_port", "plays", ODD_KEYS + ODDER_KEYS)],
    ids=["seaweedfs", "moto"],
)
def test_odd_keys_are_listed_and_read_as_they_are(
    bucket: str, monkeypatch, request, store: str, bucket_name: str, keys: list[str]
) -> None:
    port = request.getfixturevalue(store)
    client = make_client(port)
    for key in keys:
        client.put_object(Bucket=bucket_name, Key=f"odd/{key}", Body=key.encode())
    folder = Location(f"s3://{bucket_name}/odd")
    with aws_settings(port, monkeypatch):
        found = {image.path: image for image in list_images(folder)}
        assert set(found) == set(keys)
        for key in keys:
            assert storage.read_bytes(folder.child(key)) == key.encode()
            assert storage.read_bytes(folder.child(key), 3) == key.encode()[:3]
            assert found[key].size == len(key.encode())
            assert found[key].etag
    assert found["deep/er/and/deeper.jpg"].label == "and"


def test_an_odd_key_may_be_empty_or_missing(moto, moto_port: int) -> None:
    make_client(moto_port).put_object(Bucket="plays", Key="odd//empty", Body=b"")
    folder = Location("s3://plays/odd")
    assert storage.read_bytes(folder.child("/empty"), 9) == b""
    with pytest.raises(OSError, match="An object is missing in the bucket plays"):
        storage.read_bytes(folder.child("/missing"))


@pytest.mark.parametrize("page_size", [1000, 10])
@pytest.mark.parametrize("shape", ["flat", "wide", "deep"])
def test_listing_is_in_the_order_of_a_local_folder(
    moto, moto_port: int, tmp_path: Path, shape: str, page_size: int, monkeypatch
) -> None:
    names = {
        "flat": [f"{number}.jpg" for number in range(25)],
        "wide": [f"{number}/x.jpg" for number in range(25)] + ["3.jpg", "3-a/y.jpg", "z.jpg"],
        "deep": ["a/b/c/d/1.jpg", "a/b/c/2.jpg", "a/b-/3.jpg", "a/4.jpg", "a.jpg", "a-/5.jpg"],
    }[shape]
    client = make_client(moto_port)
    for name in names:
        client.put_object(Bucket="plays", Key=f"{shape}/{name}", Body=b"x")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.setattr(objects, "PAGE_SIZE", page_size)
    local = [image.path for image in list_images(Location(str(tmp_path)))]
    assert [image.path for image in list_images(Location(f"s3://plays/{shape}"))] == local


def test_names_exist_and_are_deleted_as_in_a_folder(aws, port: int, bucket: str) -> None:
    client = make_client(port)
    for key in ("d/one", "d/two/three", "d-not"):
        client.put_object(Bucket=bucket, Key=key, Body=b"x")
    folder = Location(f"s3://{bucket}/d")
    assert storage.names(folder) == ["one", "two"]
    assert storage.is_folder(folder)
    assert not storage.is_folder(folder.child("one"))
    assert storage.exists(folder.child("one"))
    assert not storage.exists(folder.child("on"))
    storage.delete(folder)
    assert not storage.exists(folder)
    assert storage.exists(Location(f"s3://{bucket}/d-not"))


def test_a_lease_is_held_by_one_and_taken_over_from_the_dead(aws, bucket: str) -> None:
    path = f"{bucket}/leased/_run/lease.json"
    first, second = Lease(path, seconds=2), Lease(path, seconds=2)
    assert first.acquire()
    assert not second.acquire()
    first._stopped.wait(3)
    assert not second.acquire(), "it is renewed"
    first._stopped.set()  # as if its process had died
    first._thread.join()
    time.sleep(3.5)
    assert second.acquire()
    assert not first._put(IfMatch=first._etag)
    second.release()
    assert not objects.exists(path)


def test_a_lease_whose_answer_was_lost_is_held_all_the_same(
    aws, port: int, bucket: str, monkeypatch
) -> None:
    """boto3 puts it once more, and finds it taken: by itself."""
    lost: list[str] = []

    def lose_first_put(method: str, _: str) -> Fault | None:
        if method != "PUT" or lost:
            return None
        lost.append(method)
        return LOST_ANSWER

    path = f"{bucket}/lost/_run/lease.json"
    with faulty(port, lose_first_put) as bad, aws_settings(bad, monkeypatch):
        lease = Lease(path)
        assert lease.acquire()
        assert lost == ["PUT"]
        assert lease.is_held()
        assert not Lease(path).acquire()
        lease.release()
        assert not objects.exists(path)


def test_an_output_in_use_on_s3_is_refused(aws, bucket: str, orchard: Path) -> None:
    lease = Lease(f"{bucket}/held/_run/lease.json")
    assert lease.acquire()
    done = verger("run", orchard, f"s3://{bucket}/held")
    lease.release()
    assert done.returncode == 5
    assert "in use" in done.stderr


@pytest.mark.parametrize(
    ("source", "env", "code", "words"),
    [
        ("s3://no-such-bucket/in", {}, 3, "no-such-bucket does not exist"),
        ("s3://orchard/empty", {}, 3, "holds no file"),
        ("s3://orchard/in", {"AWS_SECRET_ACCESS_KEY": "wrong"}, 5, "refuses the AWS credentials"),
        ("s3://orchard/in", {"AWS_ACCESS_KEY_ID": "nobody"}, 5, "refuses the AWS credentials"),
        ("s3://orchard/in", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, 5, "does not answer"),
        ("s3://orchard/in", {"AWS_PROFILE": "nobody"}, 5, "AWS_PROFILE"),
    ],
)
def test_what_is_wrong_with_a_bucket_is_said_in_a_line(
    aws, bucket: str, tmp_path: Path, source: str, env, code: int, words: str
) -> None:
    done = verger("run", source, tmp_path / "out", env={**aws, **env})
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in done.stderr
    assert not (tmp_path / "out").exists()


def test_errors_of_the_store_have_their_meaning() -> None:
    from botocore.exceptions import ClientError

    def meaning(code: str, status: int, headers: dict[str, str] | None = None) -> Exception:
        response = {
            "Error": {"Code": code},
            "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers or {}},
        }
        with pytest.raises((InputError, SetupError)) as raised, bucket_errors("orchard/key"):
            raise ClientError(response, "GetObject")
        return raised.value

    assert "expired" in meaning("ExpiredToken", 400).message
    assert isinstance(meaning("AccessDenied", 403), InputError)
    assert "missing" in meaning("NoSuchKey", 404).message
    elsewhere = meaning("PermanentRedirect", 301, {"x-amz-bucket-region": "us-east-1"})
    assert "is in us-east-1" in elsewhere.message
    assert isinstance(meaning("InternalError", 500), SetupError)


@pytest.mark.usefixtures("moto")
@pytest.mark.parametrize("whole", [reading.WHOLE_BYTES, 0])
def test_many_files_of_a_store_are_read_at_once_and_in_order(
    whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "WHOLE_BYTES", whole)
    folder = Location("s3://plays/many")
    rows = [pa.RecordBatch.from_pydict({"number": range(n, n + 3)}) for n in range(0, 75, 3)]
    files = [write_here(folder, [batch])[0] for batch in rows]
    assert len(files) > reading.OPENED_AHEAD
    reader = Reader(folder, rows[0].schema)
    slices = [Slice(file, 1, 3) for file in files]
    found = [number for batch in reader.read(slices) for number in batch[0].to_pylist()]
    assert found == [number for number in range(75) if number % 3]
    storage.delete(folder.child(files[20].name))
    with pytest.raises(SetupError, match=rf"{files[20].name} has gone"):
        list(reader.read(slices))
    storage.delete(folder)
