"""How fast is verger, next to its engine alone and to the usual Spark jobs, on the same images?

README.md says what each row measures.
"""

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from math import nan
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from machine import machine
from numpy.typing import NDArray
from pyspark import Broadcast
from pyspark.sql.pandas.functions import pandas_udf
from rich.console import Console
from rich.table import Table

from verger.images.decoding import decode, to_square
from verger.images.listing import list_images
from verger.networks.engines import engine_for
from verger.networks.graph import Backbone, load_backbone
from verger.networks.mobilenet_v2 import model_from_arrays
from verger.networks.registry import MOBILENET_V2
from verger.networks.weights import find_weights
from verger.output.layout import Rejection
from verger.spark.session import start_session
from verger.store.location import Location

SMALL = 300  # images of the run that is subtracted from the long one
BATCHED_FACTOR = 5  # (d) takes so many times the images of (c)
TOLERANCE = 1e-3  # what features may lie apart

console = Console()
make_udf: Any = pandas_udf  # its stubs know no pandas
Shared = dict[str, Any]
"""What is broadcast to the usual jobs: `arrays`, and in a worker its `model`, once it is built."""
Job = Callable[["Broadcast[Shared]"], Any]


class Rate(NamedTuple):
    """A row of the result."""

    name: str
    images: int
    images_per_second: float


def to_pixels(data: bytes) -> NDArray[np.uint8]:
    """Decode and resize an image, as verger does, for all jobs alike."""
    picture = decode(data, to_square(MOBILENET_V2.side))
    if isinstance(picture, Rejection):
        raise ValueError(f"The benchmark takes sound images only: {picture}")  # noqa: TRY004
    return picture.pixels


def link_images(folder: Path, target: Path, count: int) -> list[Path]:
    """Link a random sample of the folder's files, the same each time, and read each file once."""
    location = Location.parse(str(folder))
    names = [image.path for image in list_images(location)]
    chosen = random.Random(0).sample(names, min(count, len(names)))  # noqa: S311 - a sample, no secret
    links = [target / f"{index:06}{Path(name).suffix}" for index, name in enumerate(chosen)]
    for link, name in zip(links, chosen, strict=True):
        link.symlink_to(location.child(name).path)
        link.read_bytes()  # from now on it is in the page cache, for every job alike
    return links


def bare_worker(paths: list[Path], backbone: Backbone, ready: Any) -> tuple[float, float]:
    """A process of the bare loop: when it started, all being ready, and when it ended."""
    engine = engine_for(backbone)
    batch = np.stack([to_pixels(paths[0].read_bytes())] * engine.batch_size)
    engine.features(batch)
    ready.wait(timeout=120)
    started = monotonic()
    for start in range(0, len(paths), engine.batch_size):
        part = paths[start : start + engine.batch_size]
        for index, path in enumerate(part):
            batch[index] = to_pixels(path.read_bytes())
        engine.features(batch[: len(part)])
    return started, monotonic()


def measure_bare(paths: list[Path], backbone: Backbone, processes: int) -> float:
    """Images/s of the engine without Spark, from all being ready to the last one's end."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager, ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        ready = manager.Barrier(processes)
        shares = [paths[n::processes] for n in range(processes)]
        futures = [pool.submit(bare_worker, share, backbone, ready) for share in shares]
        starts, ends = zip(*(future.result() for future in futures), strict=True)
    return len(paths) / float(max(ends) - min(starts))


def run_verger(images: Path, output: Path, limit: int) -> dict[str, float]:
    """Run the command as a user does, into an empty folder: seconds of each stage, and `whole`."""
    command = [str(Path(sys.executable).with_name("verger")), "run", str(images), str(output)]
    command += ["--fresh", "--limit", str(limit), "--json"]
    started = monotonic()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - verger itself
    return {"whole": round(monotonic() - started, 3), **json.loads(done.stdout)["timings"]}


def worker_model(shared: Shared) -> Any:
    """The Keras model of this worker; a broadcast value lives as long as its process."""
    if "model" not in shared:
        shared["model"] = model_from_arrays(shared["arrays"], "torch")
    return shared["model"]


def one_by_one(shared: "Broadcast[Shared]") -> Any:
    """The usual job: a pandas UDF that calls `model.predict` for each image."""

    def features(contents: pd.Series) -> pd.Series:
        model = worker_model(shared.value)
        return contents.map(lambda data: model.predict(to_pixels(data)[None], verbose=0)[0])

    return make_udf(features, "array<float>")


def batched(shared: "Broadcast[Shared]") -> Any:
    """The careful job: a scalar-iterator pandas UDF with `model.predict`."""

    def features(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        model = worker_model(shared.value)
        for contents in batches:
            yield pd.Series(list(model.predict(np.stack(contents.map(to_pixels)), verbose=0)))

    return make_udf(features, "array<float>")


def measure_job(job: Job, paths: list[Path], output: Path, backbone: Backbone) -> float:
    """Images/s of a usual job, with its workers started and their models built before."""
    processes = len(os.sched_getaffinity(0))
    spark = start_session(f"local[{processes}]")
    try:
        with np.load(find_weights("bundled").path) as bundled:
            arrays = list(bundled.values())
        featurize = job(spark.sparkContext.broadcast({"arrays": arrays}))

        def extract(some: list[Path], name: str) -> float:
            started = monotonic()
            images = spark.read.format("binaryFile").load([f"file://{path}" for path in some])
            features = featurize("content").alias("features")
            rows = images.repartition(processes).select("path", features)
            rows.write.parquet(f"file://{output / name}")
            return monotonic() - started

        extract(paths[: 4 * processes], "warm-up")
        speed = len(paths) / extract(paths, "features")
    finally:
        spark.stop()
    check_features(output / "features", len(paths), backbone)
    return speed


def check_features(folder: Path, count: int, backbone: Backbone) -> None:
    """Check that a job computes what the engine does, by the first of its rows."""
    rows = pq.read_table(folder)
    first = rows.slice(0, 1).to_pylist()[0]
    pixels = to_pixels(Path(first["path"].removeprefix("file:")).read_bytes())
    expected = engine_for(backbone).features(pixels[None])[0]
    difference = np.abs(np.asarray(first["features"]) - expected).max()
    if len(rows) != count or difference > TOLERANCE:
        raise ValueError(f"{len(rows)} rows instead of {count}, features {difference:.2g} apart")


def show(rates: list[Rate], facts: dict[str, Any], short_run: float) -> None:
    """Print the table; each ratio is to the job of that letter."""
    table = Table("", "images", "images/s", "x (a)", "x (c)", "x (d)", title="Extraction")
    for column in table.columns[1:]:
        column.justify = "right"
    bases = [rate.images_per_second for rate in rates if rate.name[:3] in {"(a)", "(c)", "(d)"}]
    for rate in rates:
        ratios = (f"{rate.images_per_second / base:.2f}" for base in bases)
        table.add_row(rate.name, f"{rate.images}", f"{rate.images_per_second:.1f}", *ratios)
    console.print(table)
    console.print(f"`verger run` on {SMALL} images, start-up and all: {short_run:.1f} s")
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()), highlight=False)


def main() -> None:
    """Measure all, show it, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder of sound images")
    parser.add_argument("--images", type=int, default=2000, help="of (a) and (b)")
    parser.add_argument("--slow-images", type=int, default=100, help="of (c); (d) takes five times")
    parser.add_argument("--repeats", type=int, default=5, help="of all, in turn; medians are shown")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    options = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    facts = machine() | {"slow_images": options.slow_images, "repeats": options.repeats}
    backbone = load_backbone()
    with tempfile.TemporaryDirectory() as name:
        (images := Path(name) / "images").mkdir()
        paths = link_images(options.folder, images, options.images)
        count = len(paths)
        if count < 2 * SMALL:
            parser.error(f"{count} images are too few: {2 * SMALL} are needed")
        bare: list[float] = []
        short, long = list[dict[str, float]](), list[dict[str, float]]()
        single, batches = list[float](), list[float]()
        few, more = paths[: options.slow_images], paths[: options.slow_images * BATCHED_FACTOR]
        for repeat in range(options.repeats):
            console.log(f"{repeat + 1} of {options.repeats}")
            bare.append(measure_bare(paths, backbone, facts["processors"]))
            for runs, limit in ((short, SMALL), (long, count))[:: -1 if repeat % 2 else 1]:
                runs.append(run_verger(images, Path(name) / f"{limit}", limit))
            output = Path(name) / f"usual-{repeat}"
            single.append(measure_job(one_by_one, few, output / "single", backbone))
            batches.append(measure_job(batched, more, output / "batches", backbone))
        extra = median(run["extract"] for run in long) - median(run["extract"] for run in short)
        steady = (count - SMALL) / extra if extra > 0 else nan
        rates = [
            Rate("(a) engine alone, no Spark", count, median(bare)),
            Rate("(b) verger run, extraction", count, steady),
            Rate("    verger run, all of it", count, count / median(run["whole"] for run in long)),
            Rate("(c) UDF, predict by image", len(few), median(single)),
            Rate("(d) UDF, predict by batch", len(more), median(batches)),
        ]
    show(rates, facts, median(run["whole"] for run in short))
    shown = [f"{run['extract']:.1f}" for run in (*short, *long)]
    console.print(f"Extraction of short and long runs, s: {', '.join(shown)}", highlight=False)
    if not steady <= median(bare):
        console.print("[bold red](b) above (a) is noise: the machine was not idle.[/]")
    if options.json:
        facts |= {"rates": [rate._asdict() for rate in rates], "bare": bare, "short": short}
        facts |= {"long": long, "single": single, "batches": batches}
        options.json.write_text(f"{json.dumps(facts, indent=2)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
