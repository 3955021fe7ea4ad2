"""What the recogniser is fitted on: class means of all images, and the features of a sample."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import reduce
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from verger.reduce.moments import ClassMeans
from verger.spark.reduce import to_matrix
from verger.spark.scan import Batches, Rows, gather

CLASS_MEANS = "label string, count long, mean binary"
"""Count and mean of a class as a row."""

SAMPLED = "path string, label string, features binary"
"""An image of a sample as a row; its features are float32, as in the table."""


class SampledImages(NamedTuple):
    """Some images, sorted by path: paths, labels, and features (n, d)."""

    paths: list[str]
    labels: list[str]
    features: NDArray[np.float32]


def compute_class_means(rows: Rows) -> ClassMeans:
    """Count and mean of each class: one pass over `label` and `features`, merged in the driver."""

    def of_task(batches: Batches) -> Iterator[pa.RecordBatch]:
        merged = _merged(
            ClassMeans.of(batch.column("label").to_pylist(), to_matrix(batch.column("features")))
            for batch in batches
            if batch.num_rows
        )
        if merged:
            means = [mean.tobytes() for mean in merged.means]
            columns = {"label": merged.labels, "count": merged.counts, "mean": means}
            yield pa.RecordBatch.from_pydict(columns)

    merged = _merged(
        ClassMeans((row["label"],), np.array([row["count"]]), np.frombuffer(row["mean"])[None])
        for row in gather(rows, of_task, CLASS_MEANS)
    )
    return merged or ClassMeans((), np.zeros(0, np.int64), np.zeros((0, 0)))


def sample_images(rows: Rows, classes: ClassMeans, most: int) -> SampledImages:
    """About `most` images, from each class about as many, or all where there are no more.

    Which ones follows from their paths, so that it does not depend on how rows are spread.

    Args:
        rows: with `path`, `label` and `features`; read once.
        classes: of the same rows.
        most: how many images are wanted.
    """
    a_class = most / len(classes.labels)
    everything = classes.counts.sum() <= most
    share = {
        label: 1.0 if everything else a_class / count
        for label, count in zip(classes.labels, classes.counts, strict=True)
    }

    def of_task(batches: Batches) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            paths, labels = (batch.column(name).to_pylist() for name in ("path", "label"))
            chosen = [n for n, path in enumerate(paths) if _draw(path) < share[labels[n]]]
            if chosen:
                features = to_matrix(batch.column("features").take(pa.array(chosen)))
                columns = {
                    "path": [paths[n] for n in chosen],
                    "label": [labels[n] for n in chosen],
                    "features": [row.tobytes() for row in features.astype(np.float32)],
                }
                yield pa.RecordBatch.from_pydict(columns)

    found = sorted(gather(rows, of_task, SAMPLED, large=True), key=lambda row: str(row["path"]))
    paths, labels = ([row[name] for row in found] for name in ("path", "label"))
    features = np.stack([np.frombuffer(row["features"], np.float32) for row in found])
    return SampledImages(paths, labels, features)


def _merged(parts: Iterable[ClassMeans]) -> ClassMeans | None:
    """Those of all parts together."""
    remaining = iter(parts)
    first = next(remaining, None)
    return first and reduce(ClassMeans.merge, remaining, first)


def _draw(path: str) -> float:
    """A number from 0 to 1 that a path always gets."""
    digest = hashlib.blake2b(path.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
