"""A server of Spark Connect on loopback, of the Spark that pip installed, for the tests."""

import hashlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyspark
import pytest

from helpers import running
from stores import free_ports
from verger.spark.java import java_home
from verger.store.cache import cache_folder

SPARK_HOME = Path(pyspark.__file__).parent
JAR = (
    "https://repo1.maven.org/maven2/org/apache/spark/spark-connect_2.12/3.5.7/"
    "spark-connect_2.12-3.5.7.jar"
)
DIGEST = "15366e21273a874c760b51fa00743a2acb8fa78642cc35d7a076a3ade0c5eef6"
"""Of 3.5.7, which not only that Spark loads."""


class Server(NamedTuple):
    """Its address and its process."""

    url: str
    process: subprocess.Popen


@contextmanager
def connect_server(
    folder: Path, env: dict[str, str] | None = None, port: int = 0, **conf: str
) -> Iterator[Server]:
    """A server with two processors and its log in a folder.

    Args:
        folder: for its log; made here.
        env: of the server and its workers.
        port: where it listens; 0 for a free one.
        conf: settings of Spark's, `_` for a dot.
    """
    port = port or free_ports(1)[0]
    settings = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": port,
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        **{name.replace("_", "."): value for name, value in conf.items()},
    }
    jar = connect_jar()
    command = [
        SPARK_HOME / "bin/spark-submit", "--master", "local[2,2]",
        *(word for item in settings.items() for word in ("--conf", "{}={}".format(*item))),
        *(["--jars", jar] if jar else []),
        "--class", "org.apache.spark.sql.connect.service.SparkConnectServer",
        jar or "spark-internal",
    ]  # fmt: skip
    env = {
        **(env or os.environ),
        "JAVA_HOME": str(java_home()),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / "connect.log").open("wb") as log,
        # `exec` in Spark's scripts makes the process that is started Java itself.
        running(command, env=env, stdout=log, stderr=log, cwd=folder) as process,
    ):
        wait_for(port, process)
        yield Server(f"sc://127.0.0.1:{port}", process)


def connect_jar() -> Path | None:
    """The server's jar, which Spark 3.5 lacks and later ones have."""
    if any((SPARK_HOME / "jars").glob("spark-connect_*.jar")):
        return None
    file = cache_folder() / "connect" / Path(JAR).name
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with urllib.request.urlopen(JAR, timeout=60) as answer:
                content = answer.read()
        except OSError as error:
            pytest.skip(f"Maven Central cannot be reached: there is no Connect server ({error})")
        file.write_bytes(content)
    if hashlib.sha256(file.read_bytes()).hexdigest() != DIGEST:
        file.unlink()
        pytest.fail(f"{file.name} is not the file that it should be")
    return file


def wait_for(port: int, process: subprocess.Popen) -> None:
    for _ in range(600):
        assert process.poll() is None, "the Connect server ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("the Connect server does not answer")
