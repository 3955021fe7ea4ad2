"""PCA on Spark: one pass over the features, numpy in the workers, merged as a tree."""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import starmap
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from verger.errors import InputError
from verger.output.layout import SCORES_SCHEMA
from verger.reduce.moments import ClassMeans, Float64, Moments, Statistics
from verger.reduce.pca import Pca, Projection, solve
from verger.spark.connect import partitions, share
from verger.spark.scan import Batches, Rows, Scan, Step, collect, map_rows, spark_schema

STATISTICS = pa.schema(
    [
        ("count", pa.int64()),
        ("mean", pa.binary()),
        ("scatter", pa.binary()),
        ("labels", pa.list_(pa.string())),
        ("counts", pa.list_(pa.int64())),
        ("means", pa.binary()),
    ]
)
"""Those of some rows as a row: 13 MB where there are 1280 features, and 10 KB a class."""

MERGED_HERE = 16
"""Parts that the driver merges by itself; more are merged by tasks first. Spark refuses answers of
more than 1 GB in all."""

GATHERED_ROWS = 1024
"""Rows whose statistics are taken at once: merging scatter matrices costs as much as hundreds."""


def fit(features: Rows, components: float | None) -> Pca:
    """Fit a PCA on the column `features`, array<float> of one length.

    Args:
        features: rows with this column; read once.
        components: a count, or a share of the variance, or None for `DEFAULT_COMPONENTS` or fewer.

    Raises:
        InputError: there are fewer than two rows, or they are all equal.
        UsageError: more components than min(rows - 1, d).
    """
    return solve(compute_statistics(features).moments, components)


def compute_statistics(rows: Rows) -> Statistics:
    """The statistics of the column `features`: one pass, each task on its own, merged as a tree.

    The driver does it alone where a scan is short.

    Args:
        rows: with `label` too, where class means are wanted; else all are of the class "".

    Raises:
        InputError: there is no row.
    """

    def of_task(batches: Batches) -> Iterator[pa.RecordBatch]:
        return _packed(_merged(starmap(Statistics.of, _gathered(batches))))

    def of_tasks(batches: Batches) -> Iterator[pa.RecordBatch]:
        parts = (row for batch in batches for row in batch.to_pylist())
        return _packed(_merged(map(_unpacked, parts)))

    def merged_in_tasks() -> Iterator[dict[str, Any]]:
        parts = rows.mapInArrow(of_task, schema)
        tasks = partitions(parts)
        if tasks > MERGED_HERE:
            merging = min(math.isqrt(tasks), MERGED_HERE)
            parts = parts.repartition(merging).mapInArrow(of_tasks, schema)
        return collect(parts)

    schema = spark_schema(STATISTICS)
    if isinstance(rows, Scan) and rows.is_short:
        statistics = _merged(starmap(Statistics.of, _gathered(rows.read())))
    else:
        few = isinstance(rows, Scan) and len(rows.tasks) <= MERGED_HERE
        parts = map_rows(rows, of_task, schema) if few else merged_in_tasks()
        statistics = _merged(map(_unpacked, parts))
    if statistics is None:
        raise InputError("There are no features to reduce.")
    return statistics


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


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[list[str], Float64]]:
    """Labels and features of batches, at least `GATHERED_ROWS` rows at once but for the last."""
    labels: list[str] = []
    held: list[Float64] = []
    for batch in batches:
        if batch.num_rows:
            labelled = "label" in batch.schema.names
            labels += batch.column("label").to_pylist() if labelled else [""] * batch.num_rows
            held.append(to_matrix(batch.column("features")))
        if len(labels) >= GATHERED_ROWS:
            yield labels, np.concatenate(held)
            labels, held = [], []
    if held:
        yield labels, np.concatenate(held)


def _merged(parts: Iterable[Statistics]) -> Statistics | None:
    """The statistics of all parts together, two of which are in memory at a time."""
    merged = None
    for part in parts:
        merged = merged.merge(part) if merged else part
    return merged


def _packed(statistics: Statistics | None) -> Iterator[pa.RecordBatch]:
    if statistics:
        moments, classes = statistics.moments, statistics.classes
        columns = {
            "count": [moments.count],
            "mean": [moments.mean.tobytes()],
            "scatter": [moments.scatter.tobytes()],
            "labels": [classes and classes.labels],
            "counts": [classes and classes.counts],
            "means": [classes and classes.means.tobytes()],
        }
        yield pa.RecordBatch.from_pydict(columns, STATISTICS)


def _unpacked(row: dict[str, Any]) -> Statistics:
    mean = np.frombuffer(row["mean"])
    scatter = np.frombuffer(row["scatter"]).reshape(len(mean), -1)
    classes = None
    if row["labels"]:
        means = np.frombuffer(row["means"]).reshape(-1, len(mean))
        classes = ClassMeans(tuple(row["labels"]), np.array(row["counts"]), means)
    return Statistics(Moments(row["count"], mean, scatter), classes)


def to_matrix(column: pa.ListArray) -> Float64:
    """A column of lists of one length as (rows, length) float64."""
    matrix: Float64 = column.flatten().to_numpy().reshape(len(column), -1).astype(np.float64)
    return matrix


def _to_lists(matrix: Float64) -> pa.ListArray:
    rows, length = matrix.shape
    offsets = np.arange(0, rows * length + 1, length, dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, matrix.ravel()).cast(SCORES_SCHEMA.field("pca").type)
