"""The steps and the chain on a real server of Spark Connect give what a classic session gives."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyspark
import pytest
from pyspark.errors import PySparkException

from connect_server import OTHER_HOME, SPARK_HOME, Server, connect_server
from helpers import assert_same_features, features_of, go, matrix_of, verger
from stores import aws_settings, download, make_bucket, seaweedfs, upload
from verger import steps
from verger.errors import InputError, SetupError, UsageError, VergerError
from verger.output.layout import DataFile
from verger.settings import make_settings
from verger.spark import comparison, scan
from verger.spark.connect import Carried, Tally, check_version, connect, message_limit, share
from verger.spark.extraction import Extractor
from verger.spark.failures import spark_errors

REFUSED = "16m"
"""A message limit that MobileNetV2 fits into, and the other network does not."""

STEPS = """
import sys, verger
remote, source, output = sys.argv[1:]
spark = verger.start_session(remote=remote)
images = verger.list_images(source)
features, rejected = verger.extract(images, source, output)
pca = verger.fit_pca(features, components=5)
verger.write_matrix(verger.transform(features, pca), pca, output)
print(type(spark).__module__, features.count(), rejected.count())
"""

GROWING = """
import sys, verger
from pathlib import Path
from verger.spark import comparison, scan
comparison.FEW = scan.FEW_BYTES = 0
remote, source, output = sys.argv[1:]
for limit in (10, None):
    verger.run(source, output, remote=remote, components=5, limit=limit, wave_size=8)
"""

IDLE = 10
"""Seconds after which a session of the server below expires."""

SLEEPING = f"""
import time
from verger.cli.main import main
from verger.spark import waves

extract, seconds = waves.extract_images, iter([0, {IDLE + 3}, 0])

def extract_after_a_sleep(*arguments):
    time.sleep(next(seconds))
    return extract(*arguments)

waves.extract_images = extract_after_a_sleep
main()
"""
"""The command, which sleeps before its second wave."""

ENDED = """
import sys, verger
first = verger.start_session(remote=sys.argv[1])
assert verger.start_session(remote=sys.argv[1]) is first
first.client.release_session()
print(verger.start_session(remote=sys.argv[1]).range(3).count())
"""

REACHING = """
import sys, verger
for remote in sys.argv[1:]:
    try:
        verger.start_session(remote=remote)
    except verger.errors.SetupError:
        print(remote, "is refused")
    else:
        print(remote, "is taken")
"""

only_spark4 = pytest.mark.skipif(pyspark.__version__ < "4", reason="Spark 3.5 cannot be told so")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("connect")
    limit = {"spark.connect.grpc.maxInboundMessageSize": REFUSED}
    with connect_server(folder, limit) as started:
        yield started


def python(script: str, *arguments: object) -> str:
    """Run a script in a process that has no Spark of its own; what it printed."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def with_poison(orchard: Path, folder: Path) -> Path:
    """The orchard, with a file that is refused."""
    folder.mkdir()
    for kind in orchard.iterdir():
        (folder / kind.name).symlink_to(kind)
    (folder / "Bad").mkdir()
    (folder / "Bad/cut.jpg").write_bytes(next(orchard.rglob("*.jpg")).read_bytes()[:900])
    return folder


@pytest.mark.spark
def test_a_run_is_bit_for_bit_that_of_a_classic_session(
    server: Server, orchard: Path, sound: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    arguments = ("run", orchard, output, "--components", 5, "--json", "--remote")
    done = verger(*arguments, f"{server.url}/;user_id=secret")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["spark"] == {
        "version": pyspark.__version__, "master": server.url,
    }  # fmt: skip
    assert "secret" not in (output / "manifest.json").read_text()
    assert_same_features(output, sound)
    assert (output / "pca/matrix.csv").read_bytes() == (sound / "pca/matrix.csv").read_bytes()
    with (
        np.load(output / "recogniser/discriminant.npz") as ours,
        np.load(sound / "recogniser/discriminant.npz") as theirs,
    ):
        assert set(ours) == set(theirs)
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.spark
def test_steps_are_bit_for_bit_those_of_a_classic_session(
    server: Server, orchard: Path, spark, tmp_path: Path
) -> None:
    source = with_poison(orchard, tmp_path / "images")
    said = python(STEPS, server.url, source, tmp_path / "remote")
    assert said.split() == ["pyspark.sql.connect.session", "24", "1"]
    here = str(tmp_path / "here")
    features, _ = steps.extract(steps.list_images(str(source)), str(source), here)
    pca = steps.fit_pca(features, components=5)
    steps.write_matrix(steps.transform(features, pca), pca, here)
    ours, theirs = (tmp_path / name / "pca/matrix.csv" for name in ("remote", "here"))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
@pytest.mark.spark
def test_joins_and_reductions_in_tasks_are_those_of_a_classic_session(
    server: Server, orchard: Path, spark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python(GROWING, server.url, orchard, tmp_path / "remote")
    monkeypatch.setattr(comparison, "FEW", 0)
    monkeypatch.setattr(scan, "FEW_BYTES", 0)
    for limit in (10, None):
        go(orchard, tmp_path / "here", components=5, limit=limit, wave_size=8)
    assert_same_features(tmp_path / "remote", tmp_path / "here")
    # Which of several files comes first hangs on their random names, and the last bits on that.
    ours, theirs = (matrix_of(tmp_path / name) for name in ("remote", "here"))
    pd.testing.assert_frame_equal(ours, theirs, atol=1e-9, rtol=0)


@pytest.mark.spark
def test_a_network_beyond_the_message_limit_is_told(
    server: Server, orchard: Path, tmp_path: Path
) -> None:
    done = verger(
        "run", orchard, tmp_path / "out", "--remote", server.url, "--network", "efficientnet_lite2"
    )
    assert done.returncode == 5
    assert "larger than the server's messages may be, 16 MB" in done.stderr
    assert "maxInboundMessageSize" in done.stderr


@pytest.mark.spark
def test_a_folder_that_workers_do_not_see_is_told_before_anything_is_done(
    server: Server, orchard: Path, tmp_path: Path
) -> None:
    # In a container the same path is another folder; here the script's own view is the other one.
    script = """
import sys, verger
from pathlib import Path
from verger.spark import connect
from verger.store.location import Location
connect.connect(sys.argv[1], Location("/no such folder"))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, server.url], capture_output=True, text=True, check=False
    )
    assert "do not see the folder /no such folder" in done.stderr


@pytest.mark.slow
def test_from_s3_to_s3_the_server_reads_and_writes(
    orchard: Path, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        seaweedfs(tmp_path / "store") as port,
        aws_settings(port, monkeypatch),
        connect_server(tmp_path / "server") as server,
    ):
        upload(orchard, port, bucket := make_bucket(port, "far"), "in")
        places = (f"s3://{bucket}/in", f"s3://{bucket}/out")
        done = verger("run", *places, "--components", 5, "--remote", server.url)
        assert done.returncode == 0, done.stderr
        assert_same_features(download(port, bucket, "out", tmp_path / "out"), sound)


@pytest.mark.slow
def test_a_deadline_ends_a_run_there_too_and_the_next_one_goes_on(
    server: Server, orchard: Path, sound: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    go_on = ["run", orchard, output, "--components", 5, "--wave-size", 8, "--remote", server.url]
    soon = datetime.now(timezone.utc) + timedelta(seconds=1)
    done = verger(*go_on, "--deadline", soon.isoformat())
    assert done.returncode == 7, done.stderr
    assert "images are left" in done.stderr
    done = verger(*go_on)
    assert done.returncode == 0, done.stderr
    assert_same_features(output, sound)


HIDDEN = """
import importlib.metadata, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "verger":
            raise ModuleNotFoundError("No module named 'verger'", name=name)

sys.meta_path.insert(0, Hidden())
known = importlib.metadata.version

def version(name):
    if name == "verger":
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)

importlib.metadata.version = version
"""
"""What makes a Python one without verger."""


@pytest.mark.slow
def test_workers_without_verger_are_told_before_anything_is_done(
    orchard: Path, tmp_path: Path
) -> None:
    hiding = tmp_path / "hiding"
    hiding.mkdir()
    (hiding / "sitecustomize.py").write_text(HIDDEN)
    with connect_server(tmp_path / "server", environment={"PYTHONPATH": str(hiding)}) as bare:
        done = verger("run", orchard, tmp_path / "out", "--remote", bare.url)
    assert done.returncode == 5
    assert "have no verger" in done.stderr
    assert "Install the same verger" in done.stderr


@pytest.mark.slow
def test_after_the_server_was_started_anew_the_same_command_goes_on(
    orchard: Path, sound: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with connect_server(tmp_path / "first") as first:
        go_on = ["run", orchard, output, "--components", "5", "--wave-size", "8", "--remote"]
        verger(*go_on, first.url, "--limit", "8")
    done = verger(*go_on, first.url)
    assert done.returncode == 5
    assert "cannot be reached" in done.stderr
    assert len(features_of(output)) == 8
    with connect_server(tmp_path / "second", port=int(first.url.rpartition(":")[2])):
        done = verger(*go_on, first.url)
    assert done.returncode == 0, done.stderr
    assert_same_features(output, sound)


@only_spark4
@pytest.mark.slow
def test_after_a_session_expired_between_two_waves_the_same_command_goes_on(
    orchard: Path, sound: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    manager = "spark.connect.session.manager"
    expiring = {
        f"{manager}.defaultSessionTimeout": f"{IDLE}s",
        f"{manager}.maintenanceInterval": "1s",
    }
    with connect_server(tmp_path / "server", expiring) as server:
        command = ["run", orchard, output, "--components", 5, "--wave-size", 8, "--json"]
        command += ["--remote", server.url]
        done = subprocess.run(
            [sys.executable, "-c", SLEEPING, *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 5, done.stderr
        assert "The session on the Connect server has ended: it expired" in done.stderr
        assert "the same command goes on" in done.stderr
        assert "Traceback" not in done.stderr
        assert len(features_of(output)) == 8
        done = verger(*command)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)["counts"]
    assert (counts["reused"], counts["featurized"]) == (8, 16)
    assert_same_features(output, sound)


@only_spark4
@pytest.mark.spark
def test_a_session_that_has_ended_is_replaced_in_the_same_process(server: Server) -> None:
    assert python(ENDED, server.url) == "3\n"


@pytest.mark.spark
def test_a_session_elsewhere_is_not_taken_for_the_one_that_was_asked_for(server: Server) -> None:
    other = f"{server.url}/;user_id=other"
    said = python(REACHING, server.url, other, server.url).splitlines()
    assert said == [f"{server.url} is taken", f"{other} is refused", f"{server.url} is taken"]


@pytest.mark.skipif(OTHER_HOME == SPARK_HOME, reason="there is one Spark only")
@pytest.mark.spark
def test_a_real_server_of_another_major_version_is_refused_either_way(
    server: Server, orchard: Path, tmp_path: Path
) -> None:
    paths = os.environ["PYTHONPATH"].split(os.pathsep)
    others = [path for path in paths if Path(path).resolve() != SPARK_HOME.parent]
    of_other = {**os.environ, "PYTHONPATH": os.pathsep.join(others)}
    command = ("run", orchard, tmp_path / "out", "--remote")
    ours, theirs = pyspark.__version__, "3"
    with connect_server(tmp_path / "server", environment=of_other, home=OTHER_HOME) as other:
        newer = verger(*command, other.url)
        again = python(REACHING, other.url, server.url)
    older = verger(*command, server.url, env=of_other)
    for done, place, there, here in (
        (newer, other.url, theirs, ours), (older, server.url, ours, theirs),
    ):  # fmt: skip
        assert done.returncode == 5, done.stderr
        assert f"Error: {place} is Spark {there}" in done.stderr
        assert f"PySpark here is {here}" in done.stderr
        assert f'"pyspark[connect]=={there[0]}.*"' in done.stderr
        assert "Traceback" not in done.stderr
    assert again.splitlines() == [f"{other.url} is refused", f"{server.url} is taken"]


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(SetupError, match=r"sc://127\.0\.0\.1:1 cannot be reached"):
        connect("sc://127.0.0.1:1/;token=secret")


def test_a_server_of_another_major_version_is_refused() -> None:
    check_version(pyspark.__version__, "sc://host")
    with pytest.raises(SetupError, match=r"sc://host is Spark 9\.1\.0") as caught:
        check_version("9.1.0", "sc://host")
    assert '"pyspark[connect]==9.*"' in caught.value.hint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"remote": "http://host"}, "Spark Connect server"),
        ({"remote": "sc://"}, "Spark Connect server"),
        ({"remote": "sc://host", "master": "local[2]"}, "--master"),
        ({"remote": "sc://host", "driver_memory": "4g"}, "--driver-memory"),
    ],
)
def test_what_cannot_work_there_is_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_settings(input="/in", output="/out", **options)


def test_a_token_is_not_kept_in_the_manifest() -> None:
    settings = make_settings(input="/in", output="/out", remote="sc://host:443/;token=secret")
    assert settings.model_dump(mode="json")["remote"] == "sc://host:443"
    assert settings.model_dump()["remote"].endswith("secret")


def test_a_network_is_compared_with_the_message_limit_before_it_is_sent() -> None:
    def server(limit: str | Exception) -> Any:
        def get(name: str, default: str) -> str:
            if isinstance(limit, Exception):
                raise limit
            return limit or default

        return Far(conf=SimpleNamespace(get=get))

    assert message_limit(server("16m")) == 16 * 2**20
    assert message_limit(server("2097152")) == 2 * 2**20
    # PySpark itself sends no more.
    assert message_limit(server("1g")) == 128 * 2**20
    assert message_limit(server("")) == 128 * 2**20
    assert message_limit(server(PySparkException("CONFIG_NOT_AVAILABLE"))) == 128 * 2**20
    assert share(server("2m"), b"x" * 1000).value == b"x" * 1000
    with pytest.raises(SetupError, match="larger than the server's messages may be, 2 MB"):
        share(server("2m"), b"x" * 2**20)


class Far(SimpleNamespace):
    """A session that `is_connect` takes for one."""

    __module__ = "pyspark.sql.connect.session"


def test_what_tasks_wrote_is_counted_where_they_cannot_tell() -> None:
    extractor = Extractor(None, Carried(None), 1, 1.0, Tally(), Tally())
    for file in (DataFile("a", 1, 5, "featurized"), DataFile("b", 1, 2, "rejected")):
        extractor.count(file)
    assert (extractor.done.value, extractor.rejected.value) == (7, 2)


@pytest.mark.parametrize(
    ("said", "meant", "hint"),
    [
        ("Sent message larger than max (13 vs. 12)", "message limit", "--network"),
        ("[INVALID_HANDLE.SESSION_CLOSED] The handle is invalid", "has ended", "same command"),
        ("[INVALID_HANDLE.SESSION_CHANGED] The handle is invalid", "has ended", "same command"),
        ("status = StatusCode.UNAVAILABLE", "cannot be reached any more", "same command"),
        ("status = StatusCode.PERMISSION_DENIED", "does not permit", "READ VOLUME"),
        ("User does not have permission MODIFY on any file.", "does not permit", "WRITE VOLUME"),
        ("status = StatusCode.UNAUTHENTICATED", "who asks", "token"),
        ("[PYTHON_VERSION_MISMATCH] Python in worker", "another Python", "server's Python"),
        ("ModuleNotFoundError: No module named 'verger'", "have no verger", "Install"),
        ("verger.errors.InputError: NOT_FOUND\nLook", "^NOT_FOUND", "Look"),
    ],
)
def test_what_a_server_says_is_told_in_words(said: str, meant: str, hint: str) -> None:
    from pyspark.errors.exceptions.connect import SparkConnectGrpcException

    with pytest.raises(VergerError, match=meant) as caught, spark_errors():
        raise SparkConnectGrpcException(said)
    assert type(caught.value) is (InputError if "InputError" in said else SetupError)
    assert hint in caught.value.hint
