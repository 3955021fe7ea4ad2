"""The command itself, as a process of its own: exit codes, streams, Ctrl-C, and no Java around."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from helpers import VERGER, committed, go, processes_below, running, verger

pytestmark = pytest.mark.spark


def test_it_runs_without_java_and_prints_the_manifest(
    orchard: Path, tmp_path: Path, path_without_java: Path
) -> None:
    env = {"HOME": os.environ["HOME"], "PATH": str(path_without_java)}
    assert shutil.which("java", path=env["PATH"]) is None
    done = verger("run", orchard, tmp_path / "out", "--components", "0.9", "--json", env=env)
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert manifest["counts"]["featurized"] == 24
    assert manifest["explained_variance_ratio"] >= 0.9
    assert "Traceback" not in done.stderr
    assert "WARN" not in done.stderr.replace('"WARN"', "")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{missing}", "{out}"], 3, "does not exist"),
        (["{orchard}", "{orchard}/out"], 2, "inside the input"),
        (["{orchard}", "{out}", "--components", "0"], 2, "--components"),
        (["{orchard}", "{out}", "--components", "many"], 2, "--components"),
        (["{orchard}", "{out}", "--components", "25"], 2, "at most 23"),
        (["{orchard}", "{out}", "--engine", "onnx"], 2, "--engine"),
        (["{orchard}", "{out}", "--weights", "/no/such.weights.h5"], 2, "--weights"),
        (["{orchard}", "{out}", "--label-from", "["], 2, "--label-from"),
        (["{orchard}", "{out}", "--max-rejected", "2"], 2, "--max-rejected"),
        (["{orchard}", "{out}", "--engine", "tensorflow", "--precision", "bf16"], 2, "bf16"),
        (["{orchard}", "{out}", "--limit", "3", "--prune"], 2, "--prune"),
        (["{orchard}", "{out}", "--keep-pca"], 2, "no fitted PCA"),
        (["ftp://host/images", "{out}"], 2, "ftp://"),
        (["{orchard}", "/proc/nowhere"], 5, "cannot be written"),
        (["{orchard}"], 2, "output"),
    ],
)
def test_a_mistake_is_a_line_and_an_exit_code(
    orchard: Path, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    places = {"orchard": orchard, "out": tmp_path / "out", "missing": tmp_path / "missing"}
    done = verger("run", *(argument.format(**places) for argument in arguments))
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_with_130_and_the_next_run_goes_on(
    spark, orchard: Path, tmp_path: Path
) -> None:
    arguments = ["run", orchard, tmp_path / "out", "--wave-size", "4"]
    options = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with running([*VERGER, *arguments], **options) as process:
        while not committed(tmp_path / "out") and process.poll() is None:
            time.sleep(0.05)
        # As a terminal does: to the whole process group.
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "goes on from whatever is done" in errors
    assert "Traceback" not in errors
    status = json.loads((tmp_path / "out/manifest.json").read_text())["status"]
    assert status == "interrupted"
    counts = go(orchard, tmp_path / "out", wave_size=4).counts
    assert counts.reused > 0
    assert counts.reused + counts.featurized == 24


def test_ctrl_c_while_spark_starts_leaves_no_java(orchard: Path, tmp_path: Path) -> None:
    arguments = [*VERGER, "run", orchard, tmp_path / "out"]
    with running(arguments, stderr=subprocess.PIPE, text=True) as process:
        java: list[psutil.Process] = []
        while not java and process.poll() is None:
            java = processes_below(process.pid, "org.apache.spark.deploy.SparkSubmit")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert psutil.wait_procs(java, timeout=10)[1] == []


def test_where_a_run_is_can_be_asked_while_it_goes_on(orchard: Path, tmp_path: Path) -> None:
    arguments = [*VERGER, "run", orchard, tmp_path / "out"]
    with running(arguments, stderr=subprocess.PIPE, text=True) as process:
        while not processes_below(process.pid, "org.apache.spark.deploy.SparkSubmit"):
            assert process.poll() is None
        process.send_signal(signal.SIGQUIT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Thread MainThread:" in errors


ASKED = """
import asyncio, os, signal, time
from verger.cli.reporting import answer_sigquit

def ask():
    os.kill(os.getpid(), signal.SIGQUIT)
    time.sleep(0.5)

async def ask_in_a_loop():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, print)
    ask()
    loop.remove_signal_handler(signal.SIGINT)

answer_sigquit()
ask()
asyncio.run(ask_in_a_loop())
ask()
"""


def test_a_loop_of_asyncio_does_not_keep_it_from_answering() -> None:
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True)
    assert done.stderr.count("Thread MainThread:") == 3


def test_a_second_run_on_an_output_in_use_is_refused(orchard: Path, tmp_path: Path) -> None:
    from verger.output.files import locked
    from verger.output.layout import Output
    from verger.store.location import Location

    with locked(Output(Location.parse(str(tmp_path / "out")))):
        done = verger("run", orchard, tmp_path / "out")
    assert done.returncode == 5
    assert "in use" in done.stderr


def test_the_demo_says_where_matrix_and_model_are(tmp_path: Path) -> None:
    done = verger("demo", tmp_path / "demo", "--images", "30")
    assert done.returncode == 0, done.stderr
    for name in ("pca/matrix.csv", "model"):
        assert (tmp_path / "demo/output" / name).exists()
        assert name in done.stdout.replace("\n", "")
    refused = verger("demo", tmp_path / "demo", "--images", "45")
    assert refused.returncode == 2
    assert "has 30 photographs" in refused.stderr


def test_doctor_says_what_is_here() -> None:
    done = verger("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    found = {name: finding["found"] for name, finding in findings.items()}
    assert found["Python"] == platform.python_version()
    assert '"17.' in found["Java"]
    for name, package in (("Spark", "pyspark"), ("Arrow", "pyarrow"), ("OpenVINO", "openvino")):
        assert found[name] == version(package)
    assert "2f518e773d44" in found["Weights"]
    assert found["Processors"] == str(len(os.sched_getaffinity(0)))
    assert all(finding["ok"] for finding in findings.values())


def test_doctor_names_a_java_that_does_not_run(tmp_path: Path) -> None:
    done = verger("doctor", env={**os.environ, "JAVA_HOME": str(tmp_path)})
    assert done.returncode == 5
    assert "JAVA_HOME" in done.stdout
