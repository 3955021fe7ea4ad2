"""Clusters on loopback, of the Spark that pip installed: started and stopped by the tests."""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pyspark

from helpers import running
from stores import free_ports
from verger.spark.java import java_home

SPARK_CLASS = Path(pyspark.__file__).parent / "bin/spark-class"


class Cluster(NamedTuple):
    """A standalone cluster: its master's URL and the processes of its workers."""

    url: str
    workers: list[subprocess.Popen]


@contextmanager
def standalone(folder: Path, workers: int, env: dict[str, str]) -> Iterator[Cluster]:
    """A master and workers of one core each, with logs in a folder."""
    port, page = free_ports(2)
    url = f"spark://127.0.0.1:{port}"
    env = {
        **env,
        "JAVA_HOME": str(java_home()),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_WORKER_DIR": str(folder / "work"),
        "SPARK_LOCAL_DIRS": str(folder / "local"),
    }
    folder.mkdir(parents=True)
    with ExitStack() as stack:

        def start(name: str, *arguments: object) -> subprocess.Popen:
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            command = [SPARK_CLASS, *arguments]
            return stack.enter_context(running(command, env=env, stdout=log, stderr=log))

        master = start(
            "master", "org.apache.spark.deploy.master.Master",
            "--host", "127.0.0.1", "--port", port, "--webui-port", page,
        )  # fmt: skip
        processes = [
            start(
                f"worker-{number}", "org.apache.spark.deploy.worker.Worker",
                "--host", "127.0.0.1", "--cores", 1, "--memory", "2g", "--webui-port", 0, url,
            )
            for number in range(workers)
        ]  # fmt: skip
        _wait_for_workers(page, workers, [master, *processes])
        yield Cluster(url, processes)


def _wait_for_workers(page: int, workers: int, started: list[subprocess.Popen]) -> None:
    for _ in range(300):
        assert all(process.poll() is None for process in started), "a part of the cluster ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{page}/json/", timeout=5) as answer:
                if f'"aliveworkers" : {workers}' in answer.read().decode():
                    return
        except OSError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"the {workers} workers did not come up")
