"""On a cluster: a master and two workers that share nothing with the driver but the store."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clusters import standalone
from helpers import VERGER, assert_same_features, go, matrix_of, running, verger
from stores import aws_env, download, make_bucket, make_client, seaweedfs, upload

pytestmark = pytest.mark.spark


@pytest.mark.slow
def test_a_cluster_gives_what_one_machine_gives_though_a_worker_dies(
    orchard: Path, tmp_path: Path, spark
) -> None:
    with seaweedfs(tmp_path / "store/weed") as port:
        client = make_client(port)
        upload(orchard, port, make_bucket(port, "orchard"), "in")
        env = {**os.environ, **aws_env(port)}
        with standalone(tmp_path / "cluster", 2, env) as cluster:
            arguments = [
                "run", "s3://orchard/in", "s3://orchard/out", "--master", cluster.url,
                "--wave-size", "3", "--json",
            ]  # fmt: skip
            with running(
                [*VERGER, *arguments], env=env, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            ) as process:  # fmt: skip
                committed = "out/files/_delta_log/00000000000000000001.json"
                while not client.list_objects_v2(Bucket="orchard", Prefix=committed)["KeyCount"]:
                    if process.poll() is not None:
                        pytest.fail(process.communicate()[1])
                    time.sleep(0.1)
                cluster.workers[0].kill()
                output, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
        counts = json.loads(output)["counts"]
        assert counts["featurized"] == 24
        copy = download(port, "orchard", "out", tmp_path / "copy")
    go(orchard, tmp_path / "local")
    assert_same_features(copy, tmp_path / "local")
    ours, theirs = matrix_of(copy), matrix_of(tmp_path / "local")
    assert list(ours.path) == list(theirs.path)
    assert abs(ours.iloc[:, 2:] - theirs.iloc[:, 2:]).max(axis=None) < 1e-9


def test_a_cluster_that_gives_no_executor_is_said(tmp_path: Path) -> None:
    code = """
import sys
from verger.progress import Progress
from verger.spark import session
session.EXECUTOR_SECONDS = 1
class Notes(Progress):
    def note(self, text): print(text)
session.note_missing_executors(session.start_session(sys.argv[1]), Notes())
"""
    with standalone(tmp_path / "cluster", 0, dict(os.environ)) as cluster:
        done = subprocess.run(
            [sys.executable, "-c", code, cluster.url], capture_output=True, text=True, check=True
        )
    assert f"{cluster.url} has given no executor yet" in done.stdout


def test_a_master_that_is_not_there_is_said_in_a_line(orchard: Path, tmp_path: Path) -> None:
    done = verger("run", orchard, tmp_path / "out", "--master", "spork://nowhere:1")
    assert done.returncode == 5
    assert "spork://nowhere:1" in done.stderr
    assert "Traceback" not in done.stderr
