"""A year of nights: what each run costs, and how many files there are, as an output grows.

    .venv/bin/python benchmarks/nights.py FOLDER [--nights 365] [--images 40] [--store]
        [--json FILE]

Each night more of the photographs in FOLDER are linked into an input, and one run takes them in, as
`verger run INPUT OUTPUT --keep-pca` does. All nights share one session of Spark, so that a night's
time is that of its work; the start of Spark is measured by the first. No report is made: it costs
what its pictures do, up to 5,000 of them.
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

from machine import machine
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import pytest

from stores import aws_settings, make_bucket, seaweedfs
from verger.chain import ending, run
from verger.output import table
from verger.output.files import open_files, open_scores
from verger.output.layout import Output
from verger.settings import RunSettings, make_settings
from verger.store.location import Location
from verger.store.objects import list_objects

TOLD = (1, 30, 100, 365)
"""The nights that are shown."""
TABLE_STAGES = ("list", "plan", "waves", "account", "tidy")
"""What comparing, committing and tidying take; the other stages compute."""
STORE_RETENTION = "interval 60 seconds"
PHOTOGRAPHS = ("*.jpg", "*.jpeg", "*.png")

console = Console()


@contextmanager
def stored(folder: Path) -> Iterator[str]:
    """A bucket on a real S3 server of this machine."""
    with (
        pytest.MonkeyPatch.context() as patch,
        seaweedfs(folder / "weed") as port,
        aws_settings(port, patch),
    ):
        yield f"s3://{make_bucket(port, 'nights')}/out"


def sizes(output: Output) -> dict[str, int]:
    """How many files and rows there are, and what is in the logs of the tables."""
    place = output.location
    if place.is_s3:
        names = [found.key for found in list_objects(place.path)]
    else:
        names = [str(file) for file in Path(place.path).rglob("*") if file.is_file()]
    return {
        "rows": open_files(output).counts().total(),
        "files": len(names),
        "data_files": len(open_files(output).files()) + len(open_scores(output).files()),
        "log_files": sum("_delta_log" in name for name in names),
        "parquet_files": sum(name.endswith(".parquet") for name in names),
    }


def grow_older(output: Path) -> None:
    """Let a day pass for the logs of tables, which forget what is older than 30; not on S3."""
    for file in output.glob("**/_delta_log/*"):
        at = file.stat().st_mtime - 24 * 3600
        os.utime(file, (at, at))


def measure(
    folder: Path, target: str, photographs: Iterator[Path], given: argparse.Namespace
) -> list[dict[str, Any]]:
    """A record a night."""
    nights, images = given.nights, given.images
    records = []
    latest: deque[float] = deque(maxlen=10)
    output = Output(Location.parse(target))
    for night in range(1, nights + 1):
        for number, photograph in enumerate(itertools.islice(photographs, images)):
            kind = folder / f"kind-{number % 7}"
            kind.mkdir(parents=True, exist_ok=True)
            os.link(photograph, kind / f"{night:04}-{number:04}{photograph.suffix}")
        settings = make_settings(
            input=str(folder),
            output=target,
            keep_pca=night > 1,
            compact_files=given.compact_files,
        )
        started = monotonic()
        grow_older(Path(target))
        manifest = run(settings)
        seconds = monotonic() - started
        table = sum(manifest.timings.get(stage, 0) for stage in TABLE_STAGES)
        latest.append(seconds)
        records.append(
            {"night": night, "seconds": round(seconds, 2), "table_seconds": round(table, 2),
             # Some nights merge files: what the last ten took says more.
             "median_of_10": round(median(latest), 2), "most_of_10": round(max(latest), 2),
             "timings": manifest.timings, **sizes(output)}
        )  # fmt: skip
        if night in TOLD or night == nights:
            console.print(records[-1])
    return records


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nights", type=int, default=365)
    parser.add_argument("--images", type=int, default=40)
    kept = RunSettings.model_fields["compact_files"].default
    parser.add_argument("--compact-files", type=int, default=kept, help="as of `verger run`")
    parser.add_argument("--store", action="store_true", help="write to an S3 server")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    vars(ending)["write_report"] = lambda *_: None
    found = sorted(file for form in PHOTOGRAPHS for file in options.folder.rglob(form))
    with tempfile.TemporaryDirectory(dir=options.folder.parent) as scratch, ExitStack() as stack:
        place = Path(scratch)
        target = stack.enter_context(stored(place)) if options.store else str(place / "out")
        if options.store:
            # Objects cannot be made older: a log forgets what is older than about 30 nights.
            table.CONFIGURATION["delta.logRetentionDuration"] = STORE_RETENTION
        photographs = itertools.cycle(found)
        records = measure(place / "in", target, photographs, options)
        # The same images, all in one run.
        once = str(target) + "-once"
        run(make_settings(input=str(place / "in"), output=once))
        result = {
            "machine": machine(),
            "store": options.store,
            "images_a_night": options.images,
            "nights": [one for one in records if one["night"] in {*TOLD, options.nights}],
            "at_once": sizes(Output(Location.parse(once))),
        }
    console.print(result["at_once"])
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
