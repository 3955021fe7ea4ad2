"""The statistics and the sample of all features: one pass in tasks, numpy there, merged as a tree.

Statistics are kept from run to run, of which each reads only the files that are new.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import starmap
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from verger.errors import InputError
from verger.output.layout import DataFile, Outcome, Output
from verger.output.table import Table
from verger.reduce.kept import Kept, subtract
from verger.reduce.moments import ClassMeans, Float64, Moments, Statistics
from verger.reduce.sample import Draw, Sample
from verger.spark.connect import partitions
from verger.spark.scan import Batches, Rows, Scan, collect, map_rows, spark_schema
from verger.store import storage

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

SAMPLED = "path string, label string, features binary"
"""An image of a sample as a row; its features are float32, as in the table."""


def take_statistics(spark: SparkSession, output: Output, table: Table) -> Statistics:
    """The statistics of the features of a table; they are kept for the next run.

    Files that the table has since the last time are read and added. Those that it has no longer
    are read and subtracted, if they are still there and few.

    Raises:
        InputError: there is no row.
    """
    files = table.files(Outcome.FEATURIZED)
    kept = Kept.read(output.moments)
    if kept and set(kept.files) == set(files):
        return kept.statistics
    statistics = _update(kept, files, spark, table) if kept else None
    statistics = statistics or _of(files, spark, table)
    if statistics is None:
        raise InputError("There are no features to reduce.")
    Kept(statistics, tuple(files)).write(output.moments)
    return statistics


def follow(output: Output, table: Table, before: list[DataFile]) -> None:
    """Have what is kept name the files into which the table merged those that it had before."""
    kept = Kept.read(output.moments)
    if kept and set(kept.files) == set(before):
        Kept(kept.statistics, tuple(table.files(Outcome.FEATURIZED))).write(output.moments)


def _update(
    kept: Kept, files: list[DataFile], spark: SparkSession, table: Table
) -> Statistics | None:
    """What is kept, brought up to date; None where that is not cheaper, or not exact."""
    known, wanted = set(kept.files), set(files)
    new = [file for file in files if file not in known]
    old = [file for file in kept.files if file not in wanted]
    if sum(file.rows for file in (*new, *old)) >= sum(file.rows for file in files):
        return None
    if not all(storage.exists(table.location.child(file.name)) for file in old):
        return None
    added, removed = (_of(some, spark, table) for some in (new, old))
    statistics = kept.statistics.merge(added) if added else kept.statistics
    return subtract(statistics, removed) if removed else statistics


def _of(files: list[DataFile], spark: SparkSession, table: Table) -> Statistics | None:
    """The statistics of the rows of some files; None where there is no file."""
    if not files:
        return None
    return compute_statistics(Scan.of_table(spark, table, "label", "features", files=files))


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


def sample_images(rows: Rows, draw: Draw) -> Sample:
    """The images of a sample.

    Args:
        rows: with `path`, `label` and `features`; read once.
        draw: which of them.
    """

    def of_task(batches: Batches) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            paths, labels = (batch.column(name).to_pylist() for name in ("path", "label"))
            chosen = [n for n, path in enumerate(paths) if draw.has(path, labels[n])]
            if chosen:
                features = to_matrix(batch.column("features").take(pa.array(chosen)))
                columns = {
                    "path": [paths[n] for n in chosen],
                    "label": [labels[n] for n in chosen],
                    "features": [row.tobytes() for row in features.astype(np.float32)],
                }
                yield pa.RecordBatch.from_pydict(columns)

    if isinstance(rows, Scan) and (rows.is_short or draw.is_all):
        # What comes to the driver anyway would only take longer through Java.
        found = [row for batch in of_task(rows.read()) for row in batch.to_pylist()]
    else:
        # SQL compresses features on their way through Java, an RDD does not.
        found = list(collect(rows.mapInArrow(of_task, SAMPLED)))
    found.sort(key=lambda row: str(row["path"]))
    paths, labels = ([row[name] for row in found] for name in ("path", "label"))
    width = len(found[0]["features"]) // np.float32().itemsize if found else 0
    features = np.empty((len(found), width), np.float32)
    for place, row in enumerate(found):
        # Each row's bytes go as they are copied: of 20,000 rows they are 100 MB.
        features[place] = np.frombuffer(row.pop("features"), np.float32)
    return Sample(paths, labels, features)


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
