"""Exact PCA in one pass over the features, in float64: numpy in the workers, merged as a tree."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import Broadcast
from pyspark.sql import DataFrame

from verger.backbone.mobilenet_v2 import FEATURES
from verger.errors import InputError, UsageError
from verger.results import SCORES_SCHEMA
from verger.settings import DEFAULT_COMPONENTS
from verger.spark.scan import Batches, Rows, Step, collect, spark_schema

Float64 = NDArray[np.float64]

ZERO_VARIANCE = 1e-12
"""Total variance, relative to the squared length of the mean, that float32 features of identical
images cannot be told from: the square of their rounding error is below it."""


MOMENTS = "count long, mean binary, scatter binary"
"""The moments of some rows as a row: 13 MB where there are 1280 features."""

MERGED_HERE = 16
"""Parts that the driver merges by itself; more are merged by tasks first."""

GATHERED_ROWS = 1024
"""Rows whose moments are taken at once: merging a scatter matrix costs as much as some hundreds."""


@dataclass(frozen=True)
class Moments:
    """Count, mean (d,) and scatter (d, d) of some rows: the sum of centred outer products."""

    count: int
    mean: Float64
    scatter: Float64

    @classmethod
    def of(cls, rows: Float64) -> "Moments":
        """The moments of rows, (n, d) with n >= 1."""
        mean = rows.mean(axis=0)
        centred = rows - mean
        return cls(len(rows), mean, centred.T @ centred)

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both sets of rows together.

        Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
        Variances", 1979: it does not cancel as a sum of squares would.
        """
        count = self.count + other.count
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        between = np.outer(apart, apart) * (self.count * other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)


@dataclass(frozen=True)
class Projection:
    """What turns features into scores.

    Attributes:
        mean: (d,), subtracted before projecting.
        components: (d, k), unit columns by falling variance; in each, the entry of the largest
            magnitude is positive.
        explained_variance_ratio: shares of the total variance, of these components at least.
    """

    mean: Float64
    components: Float64
    explained_variance_ratio: Float64

    @property
    def kept_ratio(self) -> float:
        """The share of the variance in the components."""
        return float(self.explained_variance_ratio[: self.components.shape[1]].sum())

    def project(self, rows: Float64) -> Float64:
        """The scores of rows: (n, d) to (n, k)."""
        return (rows - self.mean) @ self.components


@dataclass(frozen=True)
class Pca(Projection):
    """A fitted PCA.

    Attributes:
        rows: how many it was fitted on.
        explained_variance: (min(rows - 1, d),), of all components, with n - 1 degrees of freedom;
            `explained_variance_ratio` is as long.
    """

    rows: int
    explained_variance: Float64


def fit(features: Rows, components: float | None, default: int = DEFAULT_COMPONENTS) -> Pca:
    """Fit a PCA on the column `features`, array<float> of one length.

    Args:
        features: rows with this column; read once.
        components: a count, or a share of the variance, or None for `default` or fewer.
        default: the count that is taken when none is asked for.

    Raises:
        InputError: there are fewer than two rows, or they are all equal.
        UsageError: more components than min(rows - 1, d).
    """
    return solve(compute_moments(features), components, default)


def compute_moments(features: Rows) -> Moments:
    """The moments of the column `features`: one pass, each task on its own, merged as a tree.

    Raises:
        InputError: there is no row.
    """

    def of_task(batches: Batches) -> Iterator[pa.RecordBatch]:
        return _packed(_merged(map(Moments.of, _gathered(batches))))

    def of_tasks(batches: Batches) -> Iterator[pa.RecordBatch]:
        rows = (row.values() for batch in batches for row in batch.to_pylist())
        return _packed(_merged(_unpacked(*row) for row in rows))

    parts = features.mapInArrow(of_task, MOMENTS)
    tasks = parts.rdd.getNumPartitions()
    if tasks > MERGED_HERE:
        parts = parts.repartition(math.isqrt(tasks)).mapInArrow(of_tasks, MOMENTS)
    moments = _merged(_unpacked(*row) for row in collect(parts))
    if moments is None:
        raise InputError("There are no features to reduce.")
    return moments


def solve(moments: Moments, components: float | None, default: int = DEFAULT_COMPONENTS) -> Pca:
    """The eigenvectors of the covariance matrix; arguments and errors as in `fit`."""
    rows, d = moments.count, len(moments.mean)
    most = min(rows - 1, d)
    if most < 1:
        raise InputError("There is only one image: PCA needs at least two that differ.")
    total = float(np.trace(moments.scatter))
    if total <= ZERO_VARIANCE * rows * float(moments.mean @ moments.mean):
        raise InputError(
            f"All {rows} images give the same features: there is no variance to reduce.",
            "Give images that differ.",
        )
    check_components(components, rows, d)
    eigenvalues, eigenvectors = np.linalg.eigh(moments.scatter)
    eigenvalues = np.maximum(eigenvalues[::-1][:most], 0.0)
    ratio = eigenvalues / total
    vectors = eigenvectors[:, ::-1][:, : _count(components, ratio, default)]
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.sign(vectors[largest, np.arange(vectors.shape[1])])
    return Pca(
        mean=moments.mean,
        components=np.ascontiguousarray(vectors * signs),
        explained_variance_ratio=ratio,
        rows=rows,
        explained_variance=eigenvalues / (rows - 1),
    )


def check_components(components: float | None, rows: int, d: int = FEATURES) -> None:
    """Refuse a count of components that `rows` rows of `d` numbers cannot have.

    Raises:
        UsageError: it is more than min(rows - 1, d).
    """
    most = min(rows - 1, d)
    if isinstance(components, int) and components > most:
        raise UsageError(
            f"--components {components} is more than {rows} images can have: at most {most}.",
            f"Ask for {most} or fewer, or for a share of the variance such as 0.95.",
        )


def project(features: DataFrame, projection: Projection) -> DataFrame:
    """The scores of all rows: columns path, label and pca (array<double>), unsorted."""
    rows = features.select("path", "label", "features")
    broadcast = features.sparkSession.sparkContext.broadcast(projection)
    return rows.mapInArrow(scoring(broadcast), spark_schema(SCORES_SCHEMA))


def scoring(projection: "Broadcast[Projection]") -> Step:
    """The step of a task from rows with path, label and features to `SCORES_SCHEMA`."""

    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                scores = projection.value.project(_to_matrix(batch.column("features")))
                columns = [batch.column("path"), batch.column("label"), _to_lists(scores)]
                yield pa.RecordBatch.from_arrays(columns, schema=SCORES_SCHEMA)

    return score


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[Float64]:
    """The features of batches, at least `GATHERED_ROWS` at once but for the last."""
    held: list[Float64] = []
    for batch in batches:
        if batch.num_rows:
            held.append(_to_matrix(batch.column("features")))
        if sum(map(len, held)) >= GATHERED_ROWS:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


def _count(components: float | None, ratio: Float64, default: int) -> int:
    if components is None:
        return min(default, len(ratio))
    if isinstance(components, int):
        return components
    # The first count whose share is reached, but for the rounding of the sum.
    return min(int(np.searchsorted(ratio.cumsum(), components - 1e-12)) + 1, len(ratio))


def _merged(parts: Iterable[Moments]) -> Moments | None:
    """The moments of all parts together, two of which are in memory at a time."""
    merged = None
    for part in parts:
        merged = merged.merge(part) if merged else part
    return merged


def _packed(moments: Moments | None) -> Iterator[pa.RecordBatch]:
    if moments:
        columns = {
            "count": [moments.count],
            "mean": [moments.mean.tobytes()],
            "scatter": [moments.scatter.tobytes()],
        }
        yield pa.RecordBatch.from_pydict(columns)


def _unpacked(count: int, mean: bytes, scatter: bytes) -> Moments:
    numbers = np.frombuffer(mean)
    return Moments(count, numbers, np.frombuffer(scatter).reshape(len(numbers), -1))


def _to_matrix(column: pa.ListArray) -> Float64:
    """A column of lists of one length as (rows, length) float64."""
    matrix: Float64 = column.flatten().to_numpy().reshape(len(column), -1).astype(np.float64)
    return matrix


def _to_lists(matrix: Float64) -> pa.ListArray:
    rows, length = matrix.shape
    offsets = np.arange(0, rows * length + 1, length, dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, matrix.ravel()).cast(SCORES_SCHEMA.field("pca").type)
