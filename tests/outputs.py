"""Outputs made by hand, of any shape, where a run would take too long."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from verger.output.evaluation import (
    Bin,
    ClassScore,
    Confusion,
    Coverage,
    Evaluation,
    Mistake,
    write_evaluation,
)
from verger.output.layout import ListedImage, Output
from verger.output.manifest import BackboneRecord, Counts, EngineRecord, Manifest, SparkRecord
from verger.store.location import Location


def make_output(
    folder: Path, labels: Sequence[str], components: int = 4, pictures: bool = True
) -> Output:
    """An output of an image a label, of which each has a colour of its own, and random scores."""
    random = np.random.default_rng(0)
    centres = {label: random.normal(size=components) * 9 for label in sorted(set(labels))}
    paths = [f"{label}/{number}.png".lstrip("/") for number, label in enumerate(labels)]
    scores = [centres[label] + random.normal(size=components) for label in labels]
    table = pa.table({
        "path": paths,
        "label": list(labels),
        "pca": pa.array([list(row) for row in scores], pa.list_(pa.float64())),
    })  # fmt: skip
    output = Output(Location(str(folder / "out")))
    (folder / "out/pca/parquet").mkdir(parents=True)
    pq.write_table(table, folder / "out/pca/parquet/part-0.parquet")
    lines = [f"{n + 1},1,{1 / components},{(n + 1) / components}" for n in range(components)]
    header = "component,explained_variance,explained_variance_ratio,cumulative_ratio"
    for name in ("variance.csv", "spectrum.csv"):
        (folder / "out/pca" / name).write_text("\n".join([header, *lines]) + "\n")
    for number, path in enumerate(paths if pictures else ()):
        file = folder / "in" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), colour(number)).save(file)
    Manifest(
        status="complete",
        verger_version="0.1.0",
        started_at="2026-01-01T00:00:00+00:00",
        input=str(folder / "in"),
        output=str(output.location),
        settings={},
        counts=Counts(listed=len(paths), featurized=len(paths)),
        components=components,
        explained_variance_ratio=1.0,
        backbone=BackboneRecord(
            name="mobilenet_v2", weights="w", sha256="0", source="s", licence="MIT"
        ),
        engine=EngineRecord(name="openvino", version="1", precision="f32"),
        spark=SparkRecord(version="3.5", master="local"),
    ).write(output)
    return output


def colour(number: int) -> tuple[int, int, int]:
    """Of the picture of an image; far enough apart to be told after WebP."""
    return (number * 60) % 240, (number // 4 * 60) % 240, (number // 16 * 60) % 240


def measure(output: Output, folder: Path, mistakes: Sequence[tuple[str, str, str]]) -> Evaluation:
    """An evaluation by hand; of each mistake the class, the one that was named, and the nearest.

    The photographs lie in `folder`, and each has a colour of its own.
    """
    made = []
    for number, (label, taken_for, nearest) in enumerate(mistakes):
        path = f"{label}/{number}.png"
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), colour(number + 40)).save(folder / path)
        image = ListedImage(path, label, (folder / path).stat().st_size)
        made.append(Mistake(image=image, taken_for=taken_for, confidence=0.9, nearest=nearest))
    evaluation = Evaluation(
        input=str(folder),
        top1=0.75,
        top5=1.0,
        top1_interval=(0.5, 0.9),
        classes=3,
        images=20,
        ece=0.0312,
        answered=0.8,
        answered_accuracy=0.95,
        unknown_refused=0.6,
        foreign=4,
        foreign_refused=0.5,
        rejected={},
        by_class=[ClassScore(label=name, images=9, top1=0.5, top5=1) for name, _, _ in mistakes],
        confused=[
            Confusion(label=name, taken_for=other, images=1, examples=[])
            for name, other, _ in mistakes
        ],
        mistakes=made,
        calibration=[Bin(images=20, confidence=0.8, accuracy=0.75)],
        coverage=[Coverage(coverage=share, accuracy=1 - share / 4) for share in (1.0, 0.5)],
        images_per_second=30.0,
    )
    write_evaluation(evaluation, output)
    return evaluation
