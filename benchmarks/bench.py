"""verger beside what a user would pick instead, on the same images, in turn.

    make bench [BENCH="FOLDER --images 4000 16000 --rounds 5 --json FILE"]

README.md says what each row measures. Every contender is a process of its own, timed from its start
to its end; each round runs all of them, beginning with another one.
"""

import argparse
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from machine import machine
from PIL import Image
from rich.console import Console
from rich.table import Table

from verger.images.decoding import decode, to_square
from verger.networks.engines import engine_for
from verger.networks.graph import Backbone, load_backbone

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / ".cache/bench"
SLOW_IMAGES = 400
"""Of the peers that take tens of milliseconds an image."""

ALIKE = {"f32": 0.999, "bf16": 0.9}
"""The cosine that features of two contenders have at least: orders of sums differ, and rounding."""

MOST_CRASHES = 3

ENLARGED = 20
"""Different photographs among the large ones."""

AFTER = ("account", "fit", "project", "write", "tidy", "report")
"""The stages of a run after its features are committed."""

console = Console()


@dataclass(frozen=True)
class Contender:
    """Something that is timed.

    Attributes:
        name: in the table.
        script: below `peers/`, with its last words; empty for verger itself.
        environment: of its own, or verger's.
        slow: it gets few images.
        precisions: that it is asked for.
    """

    name: str
    script: tuple[str, ...] = ()
    environment: str = ""
    slow: bool = False
    precisions: tuple[str, ...] = ("f32", "bf16")

    def python(self) -> Path:
        """Its interpreter."""
        own = ENVIRONMENTS / self.environment / "bin/python"
        return own if self.environment else Path(sys.executable)


CONTENDERS = (
    Contender("bare loop, a process a processor", ("bare.py",)),
    Contender("verger"),
    Contender("Ray Data, actors", ("ray_data.py",), "ray"),
    Contender("Daft, class UDF", ("daft_udf.py",), "daft"),
    Contender("loading in processes", ("loader.py",)),
    Contender("Spark, predict_batch_udf", ("spark_udf.py", "predict"), precisions=("f32",)),
    Contender("Spark, UDF by batch", ("spark_udf.py", "batch"), slow=True, precisions=("f32",)),
    Contender("Spark, UDF by image", ("spark_udf.py", "image"), slow=True, precisions=("f32",)),
)


def link_images(source: Path, target: Path, count: int) -> None:
    """Link photographs under new names, as many as wanted; each is in the page cache then."""
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    if not files:
        sys.exit(f"{source} holds no JPEG.")
    target.mkdir()
    for number in range(count):
        file = files[number * 7919 % len(files)]
        (target / f"{number:06}.jpg").symlink_to(file)
        file.read_bytes()


def enlarge_images(source: Path, target: Path, count: int, side: int) -> None:
    """Make photographs as large as a phone's of small ones: 3/4 as high as `side` wide, with noise.

    Few are made, and linked under many names: each is decoded anew.
    """
    link_images(source, target.with_name(f"{target.name}-small"), ENLARGED)
    made = target.with_name(f"{target.name}-made")
    made.mkdir()
    noise = np.random.default_rng(0)
    for file in sorted(target.with_name(f"{target.name}-small").iterdir()):
        with Image.open(file) as image:
            large = np.asarray(image.convert("RGB").resize((side, side * 3 // 4)), np.int16)
        grain = noise.normal(0, 6, large.shape).astype(np.int16)
        grainy = (large + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(grainy).save(made / file.name, quality=90)
    link_images(made, target, count)


def environment() -> dict[str, str]:
    """What all are run in: the machine's own variables, but for those that slow numpy or Ray."""
    own = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    # Workers of Daft and of Spark import `common` too.
    return own | {
        "PYTHONPATH": str(HERE / "peers"),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def run(contender: Contender, images: Path, output: Path, graph: Path, precision: str) -> dict:
    """Run one from its start to its end; seconds of what it did.

    Returns:
        `whole`, for verger also `features` (until they are committed) and `extract`, for the bare
        loop `loop`, without its start.
    """
    words: list[Any]
    if contender.script:
        script, *last = contender.script
        words = [HERE / "peers" / script, images, output, graph, "--precision", precision, *last]
    else:
        words = ["-m", "verger", "run", images, output, "--precision", precision, "--json"]
    crashes = -1
    returncode = -1
    # A peer that crashes is given another go, and the table says so.
    while returncode < 0 and crashes < MOST_CRASHES:
        crashes += 1
        shutil.rmtree(output, ignore_errors=True)
        began = monotonic()
        done = subprocess.run(  # noqa: S603 - our own scripts
            [str(contender.python()), *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            env=environment(),
        )
        whole = monotonic() - began
        returncode = done.returncode
    if returncode:
        sys.exit(f"{contender.name} ended with {returncode}:\n{done.stderr[-3000:]}")
    if contender.script:
        told = json.loads(done.stdout.splitlines()[-1])
        seconds = {"whole": whole, "crashes": crashes}
        if "seconds" in told:
            seconds["loop"] = told["seconds"]
        return seconds | {"versions": told["versions"]}
    timings = json.loads(done.stdout)["timings"]
    after = sum(timings[stage] for stage in AFTER)
    return {
        "whole": whole,
        "features": whole - after,
        "extract": timings["extract"],
        "timings": timings,
        "versions": {"verger": importlib.metadata.version("verger")},
    }


def check(output: Path, images: Path, backbone: Backbone) -> None:
    """See that all images have features, and that some are those that verger's engine gives."""
    folder = output / "files/outcome=featurized"
    files = sorted((folder if folder.exists() else output).rglob("*.parquet"))
    rows = pq.ParquetDataset(files, partitioning=None).read(["path", "features"])
    names = {Path(path.removeprefix("file:")).name for path in rows["path"].to_pylist()}
    wanted = {path.name for path in images.iterdir()}
    if names != wanted or len(rows) != len(wanted):
        sys.exit(f"{output.name}: {len(rows)} rows of {len(names)} images, wanted {len(wanted)}")
    engine = engine_for(backbone)
    for row in rows.slice(0, 3).to_pylist():
        data = (images / Path(row["path"].removeprefix("file:")).name).read_bytes()
        # Large ones are decoded in full by the peers, and at a fraction by verger: nearly the same.
        expected = engine.features(np.stack([decode(data, to_square(224)).pixels]))[0]
        features = np.asarray(row["features"])
        cosine = features @ expected / np.linalg.norm(features) / np.linalg.norm(expected)
        if not cosine > ALIKE[backbone.precision]:
            sys.exit(f"{output.name}: features of {row['path']} have a cosine of {cosine:.4f}")


def measure(
    images: Path, scratch: Path, precision: str, rounds: int, chosen: Callable[[Contender], bool]
) -> dict[str, list[dict[str, Any]]]:
    """Run all contenders in turn, so many rounds; what each run took."""
    backbone = load_backbone("bundled", "openvino", precision)
    graph = scratch / f"graph-{precision}"
    if not graph.exists():
        with zipfile.ZipFile(io.BytesIO(backbone.payload)) as archive:
            archive.extractall(graph)
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    contenders = [one for one in CONTENDERS if precision in one.precisions and chosen(one)]
    for number in range(rounds):
        first = number % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            output = scratch / "out"
            seconds = run(contender, images, output, graph, precision)
            check(output, images, backbone)
            shutil.rmtree(output)
            found[contender.name].append(seconds)
            console.log(f"{number + 1}/{rounds} {contender.name}: {seconds['whole']:.1f} s")
    return dict(found)


def show(title: str, count: int, found: dict[str, list[dict[str, Any]]]) -> None:
    """Print medians, rates, and ratios to the bare loop of the same round."""
    table = Table("", "seconds", "images/s", "x bare loop", "lowest", "highest", title=title)
    bare = found.get("bare loop, a process a processor")
    for name, runs in found.items():
        for what in ("loop", "extract", "features", "whole"):
            if what not in runs[0]:
                continue
            seconds = [one[what] for one in runs]
            label = name if what in {"whole", "loop"} else f"{name}, {what}"
            if crashes := sum(one.get("crashes", 0) for one in runs):
                label += f" ({crashes} crashes)"
            if what == "whole" and "loop" in runs[0]:
                label = f"{name}, with its start"
            ratios = [b["loop"] / s for b, s in zip(bare, seconds, strict=True)] if bare else [0.0]
            table.add_row(
                label, f"{median(seconds):.1f}", f"{count / median(seconds):.0f}",
                f"{median(ratios):.2f}", f"{min(ratios):.2f}", f"{max(ratios):.2f}",
            )  # fmt: skip
    console.print(table)


def main() -> None:
    """Measure all, show it, and write it where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder of sound JPEGs")
    parser.add_argument("--images", type=int, nargs="+", default=[4000])
    parser.add_argument(
        "--wide", type=int, help="enlarge them to so many pixels: 4000 are 12 megapixels"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precisions", nargs="+", default=["f32"], choices=["f32", "bf16"])
    parser.add_argument("--only", nargs="+", help="contenders whose names have one of these words")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    given = parser.parse_args()
    facts = machine() | {"rounds": given.rounds, "runs": []}
    words = given.only or [""]
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        scratch = Path(name)
        for precision in given.precisions:
            for count in given.images:
                for slow in (False, True):
                    number = min(count, SLOW_IMAGES) if slow else count

                    def chosen(one: Contender, slow: bool = slow) -> bool:
                        mine = one.slow == slow and any(word in one.name for word in words)
                        return mine or one is CONTENDERS[0]

                    if slow and not any(chosen(one) and one.slow for one in CONTENDERS):
                        continue
                    images = scratch / f"images-{number}"
                    if not images.exists() and given.wide:
                        enlarge_images(given.folder, images, number, given.wide)
                    elif not images.exists():
                        link_images(given.folder, images, number)
                    found = measure(images, scratch, precision, given.rounds, chosen)
                    size = f" of {given.wide} x {given.wide * 3 // 4} pixels" if given.wide else ""
                    title = f"{number:,} images{size}, {precision}"
                    show(title, number, found)
                    facts["runs"].append(
                        {
                            "images": number,
                            "wide": given.wide,
                            "precision": precision,
                            "contenders": found,
                        }
                    )
    facts["load after"] = round(os.getloadavg()[0], 2)
    shown = {name: value for name, value in facts.items() if name != "runs"}
    console.print(", ".join(f"{name} {value}" for name, value in shown.items()), highlight=False)
    if given.json:
        given.json.write_text(f"{json.dumps(facts, indent=1)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
