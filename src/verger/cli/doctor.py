"""What this machine has of what verger needs."""

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from verger.cli import console
from verger.cli.options import Debug, Json
from verger.cli.reporting import reporting
from verger.errors import VergerError

MEMORY_NEEDED = 4 * 2**30
"""Bytes: 2 GiB for Spark's Java machine, the rest for its workers."""
DISK_NEEDED = 2**30


@dataclass(frozen=True)
class Finding:
    """A thing looked for: whether it is well, what was found, whether a run needs it."""

    name: str
    ok: bool
    found: str
    needed: bool = True


def doctor(json: Json = False, debug: Debug = False) -> None:
    """Say what is found of Java, Spark, engines, weights and memory."""
    with reporting(debug):
        with console.stage("doctor"):
            findings = examine()
        show(findings, as_json=json)
        if any(finding.needed and not finding.ok for finding in findings):
            raise typer.Exit(5)


def examine() -> list[Finding]:
    """Look at the machine; nothing is started but `java -version`."""
    return [
        Finding("Python", sys.version_info >= (3, 10), platform.python_version()),
        _java(),
        _package("Spark", "pyspark", "not installed: pip install pyspark"),
        _package("Arrow", "pyarrow", "not installed: pip install pyarrow"),
        _package("OpenVINO", "openvino"),
        _package("TensorFlow", "tensorflow", needed=False),
        _weights(),
        Finding("Processors", True, str(len(os.sched_getaffinity(0)))),
        _memory(),
        _disk(),
    ]


def show(findings: list[Finding], *, as_json: bool) -> None:
    """Print the findings."""
    if as_json:
        console.say(json.dumps([asdict(finding) for finding in findings], indent=2))
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for finding in findings:
        bad = "[red]✗[/]" if finding.needed else "[yellow]-[/]"
        table.add_row("[green]✓[/]" if finding.ok else bad, finding.name, Text(finding.found))
    console.stdout.print(table)


def _java() -> Finding:
    from verger.spark.java import IS_SPARK_4, VECTORS, java_home

    try:
        home = java_home()
        # As Spark will start it.
        options = [VECTORS] if IS_SPARK_4 else []
        answer = subprocess.run(  # noqa: S603 - the program that Spark will run
            [home / "bin" / "java", *options, "-version"],
            capture_output=True,
            text=True,
            check=True,
        )
    except VergerError as error:
        return Finding("Java", False, str(error))
    except (OSError, subprocess.CalledProcessError) as error:
        return Finding("Java", False, f"{home} does not run: {error}; unset JAVA_HOME")
    # Java says of its own accord that a module is an incubator's.
    line = next(line for line in answer.stderr.splitlines() if " version " in line)
    known = ('"17.', '"21.') if IS_SPARK_4 else ('"17.', '"11.', '"1.8')
    return Finding("Java", any(words in line for words in known), f"{line} in {home}")


def _package(
    name: str, package: str, missing: str = "not installed", *, needed: bool = True
) -> Finding:
    from verger.networks.graph import engine_version

    installed = engine_version(package)
    return Finding(name, bool(installed), installed or missing, needed)


def _weights() -> Finding:
    from verger.networks.weights import BUNDLED_DIGESTS, bundled_bytes, find_weights

    weights = find_weights("bundled")
    try:
        for name in BUNDLED_DIGESTS:
            bundled_bytes(name)
    except VergerError as error:
        return Finding("Weights", False, str(error))
    return Finding(
        "Weights", True, f"{weights.name}, sha256 {weights.sha256[:12]}…, {weights.licence}"
    )


def _memory() -> Finding:
    available = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable")
    )
    return Finding("Memory", available >= MEMORY_NEEDED, f"{available / 2**30:.1f} GiB available")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    return Finding("Disk", free >= DISK_NEEDED, f"{free / 2**30:.0f} GiB free in {Path.cwd()}")
