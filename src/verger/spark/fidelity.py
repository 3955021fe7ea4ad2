"""What bfloat16 costs: features of some images in both precisions, compared."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from verger.networks.graph import Backbone
from verger.output.layout import FILES_SCHEMA, LISTING_SCHEMA, Outcome, Output
from verger.output.manifest import Fidelity
from verger.output.table import Table
from verger.reduce.moments import Float64
from verger.spark.connect import processors, share
from verger.spark.extraction import Extractor
from verger.spark.reading import Reader, whole
from verger.spark.scan import Scan, map_rows, spark_schema
from verger.spark.tasks import cut, task_sizes
from verger.spark.writing import write_here
from verger.store import storage

IMAGES = 256
"""What is compared at most: a second or two on two processors."""


def measure_fidelity(
    spark: SparkSession, output: Output, table: Table, extractor: Extractor, backbone: Backbone
) -> Fidelity | None:
    """Compute some images of the table in float32 too, and compare their features.

    Args:
        spark: the session.
        output: whose `_run` is used meanwhile.
        table: of its files.
        extractor: of the run.
        backbone: the network of the run, in bfloat16.

    Returns:
        What was found, or None where no two images can be compared.
    """
    chosen = _sample(table)
    folder = output.work.child("fidelity")
    storage.delete(folder)
    listed = write_here(folder, chosen.select(LISTING_SCHEMA.names).to_batches())
    in_float32 = share(spark, replace(backbone, precision="f32"))
    step = replace(extractor, backbone=in_float32, ticks="")
    sizes = task_sizes(len(chosen), len(chosen), processors(spark))
    scan = Scan(spark, Reader(folder, LISTING_SCHEMA), cut(whole(listed), sizes))
    computed = map_rows(scan, step, spark_schema(FILES_SCHEMA))
    again = {row["path"]: row["features"] for row in computed}
    storage.delete(folder)
    # An image may have gone since.
    pairs = [
        (row["features"], again[row["path"]])
        for row in chosen.to_pylist()
        if again[row["path"]] is not None
    ]
    if len(pairs) < 2:  # noqa: PLR2004 - neighbours take two
        return None
    rounded, exact = np.array(pairs).swapaxes(0, 1)
    return compare_features(rounded, exact)


def compare_features(rounded: Float64, exact: Float64) -> Fidelity:
    """Compare features (n, d) of n >= 2 images with those that they are to equal."""
    rounded, exact = (
        rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny)
        for rows in (rounded, exact)
    )
    cosines = (rounded * exact).sum(axis=1)
    same = _nearest(rounded) == _nearest(exact)
    return Fidelity(
        images=len(exact),
        mean_cosine=float(cosines.mean()),
        least_cosine=float(cosines.min()),
        same_neighbour=float(same.mean()),
    )


def _nearest(rows: Float64) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    """For each of some unit vectors, which other one has the largest cosine with it."""
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -np.inf)
    nearest: np.ndarray[tuple[int], np.dtype[np.intp]] = cosines.argmax(axis=1)
    return nearest


def _sample(table: Table) -> pa.Table:
    """Some featurized rows, spread over all data files."""
    files = table.files(Outcome.FEATURIZED)
    total = sum(file.rows for file in files)
    step = max(total // IMAGES, 1)
    schema = pa.schema(
        [table.schema.field(name) for name in ("path", "features")]
        + [field for field in LISTING_SCHEMA if field.name != "path"]
    )
    reader = Reader(table.location, schema)
    rows: list[pa.Table] = []
    seen = 0
    for file in files:
        first = -seen % step
        seen += file.rows
        if first < file.rows:
            rows.append(reader.table(whole([file])).take(pa.array(range(first, file.rows, step))))
    return pa.concat_tables(rows)[:IMAGES] if rows else schema.empty_table()
