"""The moments of all features of a table, of which a run reads only the files that are new."""

from pyspark.sql import SparkSession

from verger.errors import InputError
from verger.output.layout import Outcome, Output
from verger.output.table import DataFile, Table
from verger.reduce.kept import Kept, subtract
from verger.reduce.moments import Moments
from verger.spark.reduce import compute_moments
from verger.spark.scan import Scan
from verger.store import storage


def take_moments(spark: SparkSession, output: Output, table: Table) -> Moments:
    """The moments of the features of a table; they are kept for the next run.

    Files that the table has since the last time are read and added. Those that it has no longer
    are read and subtracted, if they are still there and few.

    Raises:
        InputError: there is no row.
    """
    files = table.files(Outcome.FEATURIZED)
    kept = Kept.read(output.moments)
    if kept and set(kept.files) == set(files):
        return kept.moments
    moments = _update(kept, files, spark, table) if kept else None
    moments = moments or _of(files, spark, table)
    if moments is None:
        raise InputError("There are no features to reduce.")
    Kept(moments, tuple(files)).write(output.moments)
    return moments


def follow(output: Output, table: Table, before: list[DataFile]) -> None:
    """Have what is kept name the files into which the table merged those that it had before."""
    kept = Kept.read(output.moments)
    if kept and set(kept.files) == set(before):
        Kept(kept.moments, tuple(table.files(Outcome.FEATURIZED))).write(output.moments)


def _update(kept: Kept, files: list[DataFile], spark: SparkSession, table: Table) -> Moments | None:
    """What is kept, brought up to date; None where that is not cheaper, or not exact."""
    new, old = kept.lacking(files), kept.surplus(files)
    if sum(file.rows for file in (*new, *old)) >= sum(file.rows for file in files):
        return None
    if not all(storage.exists(table.location.child(file.name)) for file in old):
        return None
    added, removed = (_of(some, spark, table) for some in (new, old))
    moments = kept.moments.merge(added) if added else kept.moments
    return subtract(moments, removed) if removed else moments


def _of(files: list[DataFile], spark: SparkSession, table: Table) -> Moments | None:
    """The moments of the rows of some files; None where there is no file."""
    return compute_moments(Scan.of_table(spark, table, "features", files=files)) if files else None
