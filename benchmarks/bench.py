"""verger beside what a user would pick instead, on the same images, in turn.

    make bench [BENCH="FOLDER --images 4000 16000 --rounds 5 --json FILE"]

README.md says what each row measures. Every contender is a process of its own, timed from its start
to its end; each round runs all of them, beginning with another one.
"""

import argparse
import importlib.metadata
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from machine import machine
from photographs import enlarge_images, link_images
from rich.console import Console
from rich.table import Table

from verger.images.decoding import Picture, decode
from verger.images.views import to_views
from verger.networks.engines import engine_for
from verger.networks.graph import Backbone, Precision, load_backbone

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / ".cache/bench"
SLOW_IMAGES = 400
"""Of the peers that take tens of milliseconds an image."""

ALIKE = {"f32": 0.999, "bf16": 0.9}
"""The cosine that features of two contenders have at least: orders of sums differ, and rounding."""

MOST_CRASHES = 3

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


def environment() -> dict[str, str]:
    """What all are run in: the machine's own variables, but for those that slow numpy or Ray."""
    own = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    # Workers of Daft and of Spark import `common` too.
    return own | {
        "PYTHONPATH": str(HERE / "peers"),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def run(
    contender: Contender, images: Path, output: Path, graph: Path, precision: str
) -> dict[str, Any]:
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
    # Stages stand in their order; the features are committed when "extract" ends.
    stages = list(timings)
    after = sum(timings[stage] for stage in stages[stages.index("extract") + 1 :])
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
        picture = decode(data, to_views(224, 1))
        if not isinstance(picture, Picture):
            sys.exit(f"{row['path']} is no photograph: {picture.detail}")
        expected = engine.features(np.stack([picture.pixels]))[0]
        features = np.asarray(row["features"])
        cosine = features @ expected / np.linalg.norm(features) / np.linalg.norm(expected)
        if not cosine > ALIKE[backbone.precision]:
            sys.exit(f"{output.name}: features of {row['path']} have a cosine of {cosine:.4f}")


def unpack(backbone: Backbone, folder: Path) -> Path:
    """The graph as files, which every peer reads; the folder."""
    with zipfile.ZipFile(io.BytesIO(backbone.payload)) as archive:
        archive.extractall(folder)
    return folder


def measure(
    images: Path, scratch: Path, precision: Precision, rounds: int, chosen: Sequence[Contender]
) -> dict[str, list[dict[str, Any]]]:
    """Run contenders in turn, so many rounds; what each run took, of those with this precision."""
    backbone = load_backbone("bundled", "openvino", precision)
    graph = unpack(backbone, scratch / f"graph-{precision}")
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    contenders = [one for one in chosen if precision in one.precisions]
    for number in range(rounds if len(contenders) > 1 else 0):
        first = number % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            output = scratch / "out"
            seconds = run(contender, images, output, graph, precision)
            check(output, images, backbone)
            shutil.rmtree(output)
            found[contender.name].append(seconds)
            console.log(f"{number + 1}/{rounds} {contender.name}: {seconds['whole']:.1f} s")
    return dict(found)


def summarise(count: int, found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Medians of the rounds: a row for each contender and each part of what it took.

    Returns:
        `name`, `part` (see `run`; `start` for the bare loop with its start), `crashes`; `seconds`
        and `images_per_second`; `ratio`, `lowest` and `highest` of the bare loop's seconds in the
        same round to these, None where it was not measured.
    """
    bare = found.get(CONTENDERS[0].name)
    rows = []
    for name, runs in found.items():
        for part in ("loop", "extract", "features", "whole"):
            if part not in runs[0]:
                continue
            seconds = [one[part] for one in runs]
            ratios = [b["loop"] / s for b, s in zip(bare, seconds, strict=True)] if bare else []
            rows.append(
                {
                    "name": name,
                    "part": "start" if part == "whole" and "loop" in runs[0] else part,
                    "crashes": sum(one.get("crashes", 0) for one in runs),
                    "seconds": round(median(seconds), 2),
                    "images_per_second": round(count / median(seconds), 1),
                    "ratio": round(median(ratios), 3) if ratios else None,
                    "lowest": round(min(ratios), 3) if ratios else None,
                    "highest": round(max(ratios), 3) if ratios else None,
                }
            )
    return rows


PARTS = {"start": ", with its start", "extract": ", extract", "features": ", features"}


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print what was measured."""
    table = Table("", "seconds", "images/s", "x bare loop", "lowest", "highest", title=title)
    for row in rows:
        crashes = f" ({row['crashes']} crashes)" if row["crashes"] else ""
        numbers = (row[name] for name in ("seconds", "images_per_second"))
        ratios = (row[name] for name in ("ratio", "lowest", "highest"))
        table.add_row(
            f"{row['name']}{PARTS.get(row['part'], '')}{crashes}",
            *(f"{number:.1f}" for number in numbers),
            *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
        )
    console.print(table)


def keep(run: dict[str, Any], file: Path) -> None:
    """Add a run to a file, in the place of an earlier one of the same kind on such a machine."""
    kind = ("images", "wide", "precision", "model")
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"] if file.exists() else []
    kept = [one for one in runs if any(one[name] != run[name] for name in kind)]
    text = json.dumps({"runs": [*kept, run]}, indent=1)
    file.write_text(f"{text}\n", encoding="utf-8")


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
    parser.add_argument(
        "--json", type=Path, help="a file for the numbers; those of other sizes stay in it"
    )
    given = parser.parse_args()
    words = given.only or [""]
    # The bare loop runs with all; what is slow gets few images.
    sizes: dict[int, list[Contender]] = {}
    for count, one in itertools.product(given.images, CONTENDERS[1:]):
        if any(word in one.name for word in words):
            number = min(count, SLOW_IMAGES) if one.slow else count
            mine = sizes.setdefault(number, [CONTENDERS[0]])
            mine.extend([one] if one not in mine else [])
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        scratch = Path(name)
        for precision, (count, chosen) in itertools.product(given.precisions, sizes.items()):
            images = scratch / f"images-{count}"
            if not images.exists() and given.wide:
                enlarge_images(given.folder, images, count, given.wide)
            elif not images.exists():
                link_images(given.folder, images, count)
            facts = machine() | {"images": count, "wide": given.wide, "precision": precision}
            found = measure(images, scratch, precision, given.rounds, chosen)
            if not found:
                continue
            size = f" of {given.wide} x {given.wide * 3 // 4} pixels" if given.wide else ""
            rows = summarise(count, found)
            show(f"{count:,} images{size}, {precision}, {given.rounds} rounds", rows)
            facts |= {"load after": round(os.getloadavg()[0], 2)}
            console.print(*(f"{key} {value}" for key, value in facts.items()), sep=", ")
            if given.json:
                keep(facts | {"rounds": given.rounds, "rows": rows, "runs": found}, given.json)


if __name__ == "__main__":
    main()
