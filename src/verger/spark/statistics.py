"""The statistics of all features of a table, of which a run reads only the files that are new."""

from pyspark.sql import SparkSession

from verger.errors import InputError
from verger.output.layout import DataFile, Outcome, Output
from verger.output.table import Table
from verger.reduce.kept import Kept, subtract
from verger.reduce.moments import Statistics
from verger.spark.reduce import compute_statistics
from verger.spark.scan import Scan
from verger.store import storage


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
    new, old = kept.lacking(files), kept.surplus(files)
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
