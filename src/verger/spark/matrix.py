"""The matrix on disk: scores as a table and as CSV, the variance, and the model."""

import shutil
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import TaskContext
from pyspark.sql import SparkSession

from verger.output.layout import MATRIX_ROWS, ROW_GROUP, SCORES_SCHEMA, DataFile, Output
from verger.output.table import Table
from verger.reduce.moments import Float64
from verger.reduce.pca import Pca, Projection
from verger.spark.connect import share
from verger.spark.scan import Batches, Scan, Step, spark_schema
from verger.spark.statistics import to_matrix
from verger.spark.writing import check_rows, write, write_here
from verger.store import storage
from verger.store.location import Location


class Dialect(NamedTuple):
    """How a CSV is written."""

    separator: str = ","
    decimal: str = "."
    mark: str = ""
    """Before the header: what tells Excel that it is UTF-8."""
    guarded: bool = False
    """Names that a spreadsheet would take for formulas begin with an apostrophe."""


DIALECTS = {"standard": Dialect(), "excel-fr": Dialect(";", ",", "\ufeff", guarded=True)}
"""RFC 4180, which programs read, and what Excel opens by a double click in French."""

COPIED_BYTES = 8 * 2**20
"""Of a part that are read at once: from a store, each time is a request."""

FORMULA = "^[=+@\t\r-]"
"""How a formula begins: https://owasp.org/www-community/attacks/CSV_Injection."""


def remove_scores(output: Output) -> None:
    """Delete the matrix of an earlier run; its model and variance stay."""
    storage.delete(output.scores)
    remove_csv(output)


def remove_csv(output: Output) -> None:
    """Delete the matrix of an earlier run as CSV."""
    storage.delete(output.pca.child("csv"))
    storage.delete(output.matrix_csv)


def remove_variance(output: Output) -> None:
    """Delete the variance of an earlier run, whose PCA was another one."""
    for file in (output.variance, output.spectrum):
        storage.delete(file)


def scoring(projection: Callable[[], Projection]) -> Step:
    """The step from rows with path, label and features to `SCORES_SCHEMA`.

    Args:
        projection: gives it, where the step is done.
    """

    def score(batches: Batches) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                scores = projection().project(to_matrix(batch.column("features")))
                columns = [batch.column("path"), batch.column("label"), _to_lists(scores)]
                yield pa.RecordBatch.from_arrays(columns, schema=SCORES_SCHEMA)

    return score


def write_scores(features: Scan, projection: Projection, table: Table, *, keep: bool) -> None:
    """Project features, and add the scores to a table, in one commit.

    Args:
        features: path, label, features.
        projection: what they are projected through.
        table: of the scores.
        keep: those that it holds; otherwise they go in the same commit.
    """
    if features.is_short:
        files = write_here(table.location, scoring(lambda: projection)(features.read()))
    else:
        shared = share(features.spark, projection)
        files = write(features, scoring(lambda: shared.value), table.location)
    check_rows(files, features.count)
    if not keep:
        replace_scores(files, table)
    elif files:
        table.commit(files, [])


def replace_scores(files: list[DataFile], table: Table) -> None:
    """Have the table of scores hold some new files instead of what it holds."""
    if not table.exists:
        table.create({})
    table.commit(files, table.files())


def _to_lists(matrix: Float64) -> pa.ListArray:
    rows, length = matrix.shape
    offsets = np.arange(0, rows * length + 1, length, dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, matrix.ravel()).cast(SCORES_SCHEMA.field("pca").type)


def write_csv(
    spark: SparkSession, table: Table, output: Output, components: int, dialect: str = "standard"
) -> None:
    """Write `pca/csv`, sorted by path, from the scores, and `pca/matrix.csv` if not too long."""
    folder = output.pca.child("csv")
    spoken = DIALECTS[dialect]
    names = ["path", "label", *(f"pc_{n + 1}" for n in range(components))]
    header_line = f"{spoken.mark}{spoken.separator.join(names)}\n".encode()

    def write_part(batches: Batches) -> Iterator[pa.RecordBatch]:
        task = TaskContext.get()
        part = folder.child(f"part-{task.partitionId() if task else 0:05}.csv")
        _write_lines(part, header_line, batches, spoken)
        return iter(())

    scan = Scan.of_table(spark, table, *SCORES_SCHEMA.names)
    if scan.is_short:
        rows = pa.Table.from_batches(scan.read(), SCORES_SCHEMA).sort_by("path")
        # Numbers as text take several times their memory: a part of them at a time.
        list(write_part(rows.to_batches(ROW_GROUP)))
    else:
        ordered = scan.rows().orderBy("path")
        ordered.mapInArrow(write_part, spark_schema(SCORES_SCHEMA)).count()
    if table.counts().total() <= MATRIX_ROWS:
        _concatenate(folder, output.matrix_csv, header_line)


def write_variance(pca: Pca, output: Output) -> None:
    """Write `pca/variance.csv`, a row a component kept, and `pca/spectrum.csv`, of all."""
    ratios = pca.explained_variance_ratio
    columns = (pca.explained_variance, ratios, ratios.cumsum())
    values = zip(*(column.tolist() for column in columns), strict=True)
    lines = [",".join(map(str, (number, *row))) for number, row in enumerate(values, 1)]
    header = "component,explained_variance,explained_variance_ratio,cumulative_ratio"
    kept = lines[: pca.components.shape[1]]
    for file, some in ((output.variance, kept), (output.spectrum, lines)):
        storage.write_bytes(file, "\n".join([header, *some, ""]).encode())


def to_lines(batch: pa.RecordBatch, dialect: Dialect = DIALECTS["standard"]) -> str:
    """The rows of `SCORES_SCHEMA` as lines of CSV."""
    scores = batch.column("pca")
    numbers = pc.cast(scores.flatten(), pa.string())
    if dialect.decimal != ".":
        numbers = pc.replace_substring(numbers, ".", dialect.decimal)
    offsets = pa.array(range(0, len(numbers) + 1, len(scores[0])), pa.int32())
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, numbers), dialect.separator)
    names = [_quoted(batch.column(name), dialect) for name in ("path", "label")]
    lines = pc.binary_join_element_wise(*names, joined, dialect.separator)
    return "".join(f"{line}\n" for line in lines.to_pylist())


def _quoted(words: pa.Array, dialect: Dialect) -> pa.Array:
    if dialect.guarded:
        safe = pc.binary_join_element_wise("'", words, "")
        words = pc.if_else(pc.match_substring_regex(words, FORMULA), safe, words)
    inner = pc.replace_substring(words, '"', '""')
    quoted = pc.binary_join_element_wise('"', inner, '"', "")
    wanted = pc.match_substring_regex(words, f'["{dialect.separator}\\r\\n]')
    return pc.if_else(wanted, quoted, words)


def _write_lines(file: Location, header: bytes, batches: Batches, dialect: Dialect) -> None:
    """Write a part of the CSV; nothing where there is no row."""
    rows = (batch for batch in batches if batch.num_rows)
    first = next(rows, None)
    if first is None:
        return
    with storage.open_output(file) as stream:
        stream.write(header + to_lines(first, dialect).encode())
        for batch in rows:
            stream.write(to_lines(batch, dialect).encode())


def _concatenate(folder: Location, target: Location, header: bytes) -> None:
    """Join the parts, which are in order, under one header."""
    files = storage.file_system(folder)
    with storage.open_output(target) as joined:
        joined.write(header)
        for name in storage.names(folder):
            with files.open_input_stream(folder.child(name).path) as part:
                part.read(len(header))
                shutil.copyfileobj(part, joined, COPIED_BYTES)
