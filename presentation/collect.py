"""Keep of a run what the slides show: counts, times, the spectrum, and a map with photographs.

    .venv/bin/python presentation/collect.py OUTPUT IMAGES
    .venv/bin/python presentation/collect.py --evaluation NAME OUTPUT [--slide WORDS]

OUTPUT is what `verger run IMAGES OUTPUT` made, IMAGES a folder of Fruits-360. With --evaluation,
what `verger evaluate` has measured with the recogniser of OUTPUT is kept under a name; with --slide
it is on the slides too, in these words.
"""

import argparse
import base64
import csv
import io
import json
import random
from pathlib import Path

from PIL import Image

from verger.networks.graph import load_backbone

DATA = Path(__file__).parent / "data"
MAP_WIDTH, MAP_HEIGHT = 1740, 760
THUMBNAIL = 64  # pixels; nearer than that no two photographs are shown
APART = 50
SHOWN = 10  # photographs in their own size


def jpeg(path: Path, side: int) -> str:
    """A photograph as a small JPEG in base 64."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").resize((side, side)).save(buffer, "JPEG", quality=75)
    return base64.b64encode(buffer.getvalue()).decode()


def read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def choose(rows: list[dict[str, str]]) -> list[tuple[int, int, str]]:
    """Images of the map that do not hide one another: their places in pixels, and their paths."""
    xs, ys = ([float(row[name]) for row in rows] for name in ("pc_1", "pc_2"))
    placed: list[tuple[int, int, str]] = []
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)  # noqa: S311 - a picture, no secret
    for index in order:
        x = round((xs[index] - min(xs)) / (max(xs) - min(xs)) * (MAP_WIDTH - THUMBNAIL))
        y = round((max(ys) - ys[index]) / (max(ys) - min(ys)) * (MAP_HEIGHT - THUMBNAIL))
        if all(abs(x - a) > APART or abs(y - b) > APART for a, b, _ in placed):
            placed.append((x, y, rows[index]["path"]))
    return placed


def keep_evaluation(name: str, output: Path, slide: str) -> None:
    """Put an evaluation into `data/recognising.json`, in the place of an older one of the name."""
    read = {
        part: json.loads((output / f"recogniser/{part}.json").read_text(encoding="utf-8"))
        for part in ("evaluation", "recogniser")
    }
    measures = ("top1", "top1_interval", "top5", "ece", "answered", "answered_accuracy")
    kept = ("classes", "images", *measures, "unknown_refused", "coverage")
    found = {"name": name, "slide": slide} | {key: read["evaluation"][key] for key in kept}
    found |= {"fitted": read["recogniser"]["images"], "left_out": read["recogniser"]["top1"]}
    file = DATA / "recognising.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"evaluations": []}
    names = [one["name"] for one in known["evaluations"]]
    place = names.index(name) if name in names else len(names)
    known["evaluations"][place : place + 1] = [found]
    file.write_text(f"{json.dumps(known, indent=1)}\n", encoding="utf-8")


def main() -> None:
    """Read the run and write `data/run.json`, or an evaluation into `data/recognising.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, nargs="?")
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--evaluation", nargs=2, metavar=("NAME", "OUTPUT"))
    parser.add_argument("--slide", default="")
    options = parser.parse_args()
    if options.evaluation:
        name, output = options.evaluation
        keep_evaluation(name, Path(output), options.slide)
        return
    manifest = json.loads((options.output / "manifest.json").read_text(encoding="utf-8"))
    rows = read_rows(options.output / "pca/matrix.csv")
    spectrum = read_rows(options.output / "pca/spectrum.csv")
    cumulative = [float(row["cumulative_ratio"]) for row in spectrum]
    labels = sorted({row["label"] for row in rows})
    first = {row["label"]: row["path"] for row in reversed(rows)}
    kept = ("counts", "components", "explained_variance_ratio", "backbone", "engine", "spark")
    found = {
        "command": "verger run FRUITS/Training OUTPUT",
        **{name: manifest[name] for name in kept},
        "date": manifest["started_at"][:10],
        "timings": manifest["timings"],
        "images_per_second": manifest["images_per_second"],
        "task_size": manifest["settings"]["task_size"],
        "broadcast_bytes": len(load_backbone().payload),
        "labels": len(labels),
        "bytes": sum((options.images / row["path"]).stat().st_size for row in rows),
        "spectrum": [float(row["explained_variance_ratio"]) for row in spectrum][:50],
        "components_for": {
            share: next(n for n, sum_ in enumerate(cumulative, 1) if sum_ >= float(share))
            for share in ("0.5", "0.9", "0.95")
        },
        "photographs": [
            {"label": label, "jpeg": jpeg(options.images / first[label], 100)}
            for label in labels[:: len(labels) // SHOWN][:SHOWN]
        ],
        "map": [
            {"x": x, "y": y, "jpeg": jpeg(options.images / path, THUMBNAIL)}
            for x, y, path in choose(rows)
        ],
    }
    DATA.mkdir(exist_ok=True)
    (DATA / "run.json").write_text(f"{json.dumps(found, indent=1)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
