"""A server of Spark Connect on loopback, of a Spark that pip installed, for the tests."""

import hashlib
import os
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyspark
import pytest

from helpers import running
from stores import free_ports
from verger.spark.java import java_home
from verger.store.location import cache_folder
from yarn import BRIEF_JAVA, MAVEN

SPARK_HOME = Path(pyspark.__file__).resolve().parent
OTHER_HOME = Path(sysconfig.get_path("purelib"), "pyspark").resolve()
"""Of the Spark that `PYTHONPATH` hides in `make test-spark4`; elsewhere it is the same."""

CONNECT_JARS = "spark-connect_*.jar"
CONNECT = (
    "org/apache/spark/spark-connect_2.12/3.5.7/spark-connect_2.12-3.5.7.jar",
    "15366e21273a874c760b51fa00743a2acb8fa78642cc35d7a076a3ade0c5eef6",
)
"""Of Spark 3.5, which does not bring it, as Spark 4 does. A later 3.5 loads that of 3.5.7 too."""


class Server(NamedTuple):
    """Its address and its process."""

    url: str
    process: subprocess.Popen


@contextmanager
def connect_server(
    folder: Path,
    conf: Mapping[str, str] | None = None,
    port: int = 0,
    jars: Iterable[Path] = (),
    environment: Mapping[str, str] | None = None,
    home: Path = SPARK_HOME,
) -> Iterator[Server]:
    """A server with two processors and its log in a folder.

    Args:
        folder: for its log; made here.
        conf: more of Spark's settings.
        port: where it listens; 0 for a free one.
        jars: what it loads besides its own.
        environment: more variables, which its workers have too.
        home: of the Spark that it is.
    """
    port = port or free_ports(1)[0]
    settings = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": port,
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        **(conf or {}),
    }
    own = fetch_jar(*CONNECT) if not any((home / "jars").glob(CONNECT_JARS)) else None
    loaded = ",".join(str(jar) for jar in (own, *jars) if jar)
    command = [
        home / "bin/spark-submit", "--master", "local[2,2]",
        *(word for item in settings.items() for word in ("--conf", "{}={}".format(*item))),
        *(["--jars", loaded] if loaded else []),
        "--class", "org.apache.spark.sql.connect.service.SparkConnectServer",
        own or "spark-internal",
    ]  # fmt: skip
    env = {
        **os.environ,
        "JAVA_HOME": str(java_home()),
        "SPARK_HOME": str(home),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        **BRIEF_JAVA,
        **(environment or {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / "connect.log").open("wb") as log,
        # `exec` in Spark's scripts makes the process that is started Java itself.
        running(command, env=env, stdout=log, stderr=log, cwd=folder) as process,
    ):
        wait_for(port, process)
        yield Server(f"sc://127.0.0.1:{port}", process)


def fetch_jar(path: str, digest: str) -> Path:
    """A jar of Maven Central; where that cannot be reached the test is skipped."""
    file = cache_folder() / "connect" / Path(path).name
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with urllib.request.urlopen(f"{MAVEN}/{path}", timeout=60) as answer:
                content = answer.read()
        except OSError as error:
            pytest.skip(f"Maven Central cannot be reached: {file.name} is not here ({error})")
        mine = file.with_name(f"{file.name}.{os.getpid()}")
        mine.write_bytes(content)
        mine.replace(file)
    if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
        file.unlink()
        pytest.fail(f"{file.name} is not the file that it should be")
    return file


def wait_for(port: int, process: subprocess.Popen) -> None:
    for _ in range(1800):
        assert process.poll() is None, "the Connect server ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("the Connect server does not answer")
