"""Time and memory of `verger run` at 1, 2, 4, 8 and 16 times as many images.

    .venv/bin/python benchmarks/growth.py FOLDER [--images 4000] [--times 16] [--json FILE]

Each size is a run of its own, into an empty folder. Memory is PSS (shared pages are counted once)
of the largest process of a kind, sampled twice a second.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
from bench import environment
from machine import machine
from photographs import link_images
from rich.console import Console
from rich.table import Table
from workers import MEBIBYTE, memory

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers import VERGER, running

console = Console()


def measure(images: Path, output: Path) -> dict[str, Any]:
    """Run verger on a folder: seconds of all and of each stage, and peaks of memory in bytes."""
    peaks: Counter[str] = Counter()
    began = monotonic()
    command = [*VERGER, "run", images, output]
    with running(command, stdout=subprocess.DEVNULL, env=environment()) as verger:
        process = psutil.Process(verger.pid)
        while verger.poll() is None:
            peaks |= memory([process])
            time.sleep(0.5)
    whole = monotonic() - began
    if verger.returncode:
        sys.exit(f"verger ended with {verger.returncode}")
    manifest = json.loads((output / "manifest.json").read_text())
    return {
        "images": manifest["counts"]["featurized"],
        "whole": round(whole, 1),
        "timings": manifest["timings"],
        "peak_bytes": dict(peaks),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder of sound JPEGs")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--times", type=int, default=16)
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    options = parser.parse_args()
    facts = machine()
    sizes = []
    for power in range(options.times.bit_length()):
        with tempfile.TemporaryDirectory(prefix="growth-") as scratch:
            images = Path(scratch) / "images"
            link_images(options.folder, images, options.images * 2**power)
            sizes.append(measure(images, Path(scratch) / "out"))
            console.log(f"{sizes[-1]['images']:,} images: {sizes[-1]['whole']:.0f} s")
    kinds = sorted(sizes[0]["peak_bytes"])
    table = Table("images", "s", "extract", "images/s", *(f"{kind}, MiB" for kind in kinds))
    for size in sizes:
        extract = size["timings"]["extract"]
        table.add_row(
            f"{size['images']:,}", f"{size['whole']:.1f}", f"{extract:.1f}",
            f"{size['images'] / extract:.0f}",
            *(f"{size['peak_bytes'][kind] / MEBIBYTE:.0f}" for kind in kinds),
        )  # fmt: skip
    console.print(table)
    if options.json:
        options.json.write_text(f"{json.dumps(facts | {'sizes': sizes}, indent=1)}\n")


if __name__ == "__main__":
    main()
