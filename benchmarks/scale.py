"""What a hundred million images would cost is worked out from these: measured per image, here.

    .venv/bin/python benchmarks/scale.py OUTPUT [--json FILE]

OUTPUT is what `verger run` made of some thousand images. docs/scaling.md does the arithmetic.
"""

import argparse
import csv
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import monotonic

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from verger.images.listing import list_images
from verger.reduce.moments import Moments
from verger.reduce.pca import solve
from verger.store.location import Location

FILES = 20_000  # that are listed
FOLDER = 1000  # of them in a folder
BATCH = 2048  # rows that Spark hands to a worker at once
REPEATS = 5


def seconds(work: Callable[[], object]) -> float:
    """The median time of some calls."""
    times = []
    for _ in range(REPEATS):
        started = monotonic()
        work()
        times.append(monotonic() - started)
    return median(times)


def measure_listing() -> float:
    """Files a second of a local disk, with their sizes and times."""
    with tempfile.TemporaryDirectory() as name:
        for index in range(FILES):
            file = Path(name) / f"{index // FOLDER:03}" / f"{index:06}.jpg"
            file.parent.mkdir(exist_ok=True)
            file.touch()
        place = Location.parse(name)
        return FILES / seconds(lambda: sum(1 for _ in list_images(place)))


def bytes_of(files: list[Path]) -> int:
    """What some files take together."""
    return sum(file.stat().st_size for file in files)


def main() -> None:
    """Measure, show, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    features = sorted(options.output.glob("files/outcome=featurized/*.parquet"))
    rows = np.stack(
        [
            row
            for file in features
            for row in pq.read_table(file, partitioning=None)["features"].to_numpy()
        ]
    )
    batch = np.resize(rows, (BATCH, rows.shape[1])).astype(np.float64)
    moments = Moments.of(rows.astype(np.float64))
    count = len(rows)
    with (options.output / "pca/matrix.csv").open(newline="") as matrix:
        columns = len(next(csv.reader(matrix)))
    found = {
        "images": count,
        "features": rows.shape[1],
        "components": columns - 2,
        "listed_per_second": measure_listing(),
        "moments_rows_per_second": BATCH / seconds(lambda: Moments.of(batch)),
        "merge_seconds": seconds(lambda: moments.merge(moments)),
        "moments_bytes": moments.scatter.nbytes + moments.mean.nbytes,
        "eigen_seconds": seconds(lambda: solve(moments, columns - 2)),
        "features_bytes_per_image": bytes_of(features) / count,
        "csv_bytes_per_image": (options.output / "pca/matrix.csv").stat().st_size / count,
        "parquet_bytes_per_image": bytes_of(list(options.output.glob("pca/parquet/*.parquet")))
        / count,
        "listing_bytes_per_image": bytes_of(list(options.output.glob("_run/**/*.parquet"))) / count,
    }
    Console().print(found)
    if options.json:
        options.json.write_text(f"{json.dumps(found, indent=2)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
