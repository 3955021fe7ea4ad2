"""One Spark worker against two on this machine, next to bare processes, and everybody's memory.

    .venv/bin/python benchmarks/workers.py FOLDER [--images 1000] [--repeats 3] [--json FILE]

Each worker has one task at a time. Bare processes run the engine alone, without Spark: what two of
them reach against one is what two workers can. Memory is PSS (shared pages counted once), sampled
twice a second.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

import psutil
from bench import Contender, run, unpack
from machine import machine
from photographs import link_images
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from clusters import standalone
from helpers import VERGER, running
from verger.networks.graph import load_backbone

MEBIBYTE = 2**20

console = Console()


def kind(process: psutil.Process) -> str:
    """What a process is for, by its command line."""
    command = " ".join(process.cmdline())
    names = {
        "CoarseGrainedExecutorBackend": "executor, Java",
        "SparkSubmit": "driver, Java",
        "spark.daemon": "worker, Python",
        "-m verger": "driver, Python",
    }
    return next((name for part, name in names.items() if part in command), "")


def memory(roots: list[psutil.Process]) -> Counter[str]:
    """PSS in bytes of the largest process of each kind below some processes."""
    found: Counter[str] = Counter()
    for root in roots:
        for process in (root, *root.children(recursive=True)):
            try:
                if name := kind(process):
                    found[name] = max(found[name], process.memory_full_info().pss)
            except psutil.Error:  # it ended meanwhile
                continue
    return found


def measure(images: Path, count: int, workers: int) -> tuple[float, Counter[str]]:
    """Images a second of runs on a cluster, and the peaks of memory.

    What a run takes longer than one of a quarter of the images is extraction without its start.
    """
    peaks: Counter[str] = Counter()
    seconds = dict[int, float]()
    with (
        tempfile.TemporaryDirectory() as scratch,
        standalone(Path(scratch) / "cluster", workers, dict(os.environ)) as cluster,
    ):
        for limit in (count // 4, count):
            output = Path(scratch, str(limit))
            command = [*VERGER, "run", images, output, "--limit", limit, "--master", cluster.url]
            with running(command, stdout=subprocess.DEVNULL) as verger:
                roots = [psutil.Process(process.pid) for process in (verger, *cluster.workers)]
                while verger.poll() is None:
                    peaks |= memory(roots)
                    time.sleep(0.5)
            if verger.returncode:
                sys.exit(f"verger ended with {verger.returncode}")
            manifest = json.loads((output / "manifest.json").read_text())
            seconds[limit] = manifest["timings"]["extract"]
    return (count - count // 4) / (seconds[count] - seconds[count // 4]), peaks


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    options = parser.parse_args()
    facts = machine()
    rates: dict[int, list[float]] = {1: [], 2: []}
    bare: dict[int, list[float]] = {1: [], 2: []}
    peaks: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch) / "images"
        count = options.images
        link_images(options.folder, images, count)
        graph = unpack(load_backbone(), Path(scratch) / "graph")
        for _ in range(options.repeats):
            for processes, found in bare.items():
                contender = Contender("bare", ("bare.py", "--processes", str(processes)))
                seconds = run(contender, images, Path(scratch) / "bare", graph, "f32")
                found.append(count / seconds["loop"])
            for workers, found in rates.items():
                rate, memory_used = measure(images, count, workers)
                found.append(rate)
                peaks |= memory_used
    table = Table("", "images/s", "x one", title=f"{count} images")
    for name, measured in (("bare processes", bare), ("workers", rates)):
        for number, found in measured.items():
            ratio = median(found) / median(measured[1])
            table.add_row(f"{number} {name}", f"{median(found):.1f}", f"{ratio:.2f}")
    console.print(table)
    used = Table("process", "peak MiB", title="Memory (PSS)")
    for name, size in sorted(peaks.items()):
        used.add_row(name, f"{size / MEBIBYTE:.0f}")
    console.print(used)
    if options.json:
        sizes = {"images": count, "repeats": options.repeats}
        result = facts | sizes | {"images_per_second": rates, "bare": bare, "peak_bytes": peaks}
        options.json.write_text(f"{json.dumps(result, indent=2)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
