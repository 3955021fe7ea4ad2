"""PCA on Spark: one pass over the features, numpy in the workers, merged as a tree."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from verger.errors import InputError
from verger.output.layout import SCORES_SCHEMA
from verger.reduce.moments import Float64, Moments
from verger.reduce.pca import Pca, Projection, solve
from verger.settings import DEFAULT_COMPONENTS
from verger.spark.connect import partitions, share
from verger.spark.scan import Batches, Rows, Scan, Step, collect, map_rows, spark_schema

MOMENTS = "count long, mean binary, scatter binary"
"""The moments of some rows as a row: 13 MB where there are 1280 features."""


MERGED_HERE = 16
"""Parts that the driver merges by itself; more are merged by tasks first."""


GATHERED_ROWS = 1024
"""Rows whose moments are taken at once: merging a scatter matrix costs as much as some hundreds."""


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

    The driver does it alone where a scan is short.

    Raises:
        InputError: there is no row.
    """

    def of_task(batches: Batches) -> Iterator[pa.RecordBatch]:
        return _packed(_merged(map(Moments.of, _gathered(batches))))

    def of_tasks(batches: Batches) -> Iterator[pa.RecordBatch]:
        rows = (row.values() for batch in batches for row in batch.to_pylist())
        return _packed(_merged(_unpacked(*row) for row in rows))

    def merged_in_tasks() -> Iterator[dict[str, Any]]:
        parts = features.mapInArrow(of_task, MOMENTS)
        tasks = partitions(parts)
        if tasks > MERGED_HERE:
            parts = parts.repartition(math.isqrt(tasks)).mapInArrow(of_tasks, MOMENTS)
        return collect(parts)

    if isinstance(features, Scan) and features.is_short:
        moments = _merged(map(Moments.of, _gathered(features.read())))
    else:
        few = isinstance(features, Scan) and len(features.tasks) <= MERGED_HERE
        rows = map_rows(features, of_task, MOMENTS) if few else merged_in_tasks()
        moments = _merged(_unpacked(**row) for row in rows)
    if moments is None:
        raise InputError("There are no features to reduce.")
    return moments


def project(features: DataFrame, projection: Projection) -> DataFrame:
    """The scores of all rows: columns path, label and pca (array<double>), unsorted."""
    rows = features.select("path", "label", "features")
    shared = share(features.sparkSession, projection)
    return rows.mapInArrow(scoring(lambda: shared.value), spark_schema(SCORES_SCHEMA))


def scoring(projection: Callable[[], Projection]) -> Step:
    """The step from rows with path, label and features to `SCORES_SCHEMA`.

    Args:
        projection: gives it, where the step is done.
    """

    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                scores = projection().project(to_matrix(batch.column("features")))
                columns = [batch.column("path"), batch.column("label"), _to_lists(scores)]
                yield pa.RecordBatch.from_arrays(columns, schema=SCORES_SCHEMA)

    return score


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[Float64]:
    """The features of batches, at least `GATHERED_ROWS` at once but for the last."""
    held: list[Float64] = []
    for batch in batches:
        if batch.num_rows:
            held.append(to_matrix(batch.column("features")))
        if sum(map(len, held)) >= GATHERED_ROWS:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


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


def to_matrix(column: pa.ListArray) -> Float64:
    """A column of lists of one length as (rows, length) float64."""
    matrix: Float64 = column.flatten().to_numpy().reshape(len(column), -1).astype(np.float64)
    return matrix


def _to_lists(matrix: Float64) -> pa.ListArray:
    rows, length = matrix.shape
    offsets = np.arange(0, rows * length + 1, length, dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, matrix.ravel()).cast(SCORES_SCHEMA.field("pca").type)
