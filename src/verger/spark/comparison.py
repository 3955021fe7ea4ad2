"""What changed since the last run: the listing beside the table of files."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from verger.errors import DefectError
from verger.output.layout import FILES_SCHEMA, LISTING_SCHEMA, DataFile, Outcome, Output
from verger.output.table import Table
from verger.spark.reading import FILE, Reader, whole
from verger.spark.scan import Scan, collect

NEW, CHANGED, SAME, GONE = "new", "changed", "same", "gone"
"""A path is not in the table; is there as another file; as the same; or is no longer listed."""

EXTRACTED = (NEW, CHANGED)

FEW = 50_000
"""Listed files that the driver compares by itself; Spark takes seconds to begin with."""

_OLD = pa.schema([
    FILES_SCHEMA.field(name)
    for name in ("path", "size", "mtime_ns", "etag", "reason", "outcome")
] + [FILE])  # fmt: skip

_COMPARED = pa.schema(
    [
        *LISTING_SCHEMA,
        FILE,
        FILES_SCHEMA.field("outcome"),
        FILES_SCHEMA.field("reason"),
        pa.field("state", pa.string()),
    ]
)

_SAME = ("size", "mtime_ns", "etag")
"""Of two images at one path, these agree when they are the same."""


@dataclass(frozen=True)
class Comparison:
    """The listing beside the table.

    Attributes:
        rows: a row a path: as listed, the table's file that has it, its outcome there, and the
            state; in this process, or cached by Spark.
        counts: how many rows there are by state, outcome and reason.
    """

    rows: pa.Table | DataFrame
    counts: dict[tuple[str, str | None, str | None], int]

    def count(self, *states: str, outcome: Outcome | None = None) -> int:
        """How many rows have one of some states, and an outcome if it is given."""
        return sum(
            count
            for (state, its_outcome, _), count in self.counts.items()
            if state in states and outcome in (None, its_outcome)
        )

    def to_do(self, *, prune: bool) -> tuple[int, int]:
        """How many images are to be extracted, and how many rows of the table retired."""
        return self.count(*EXTRACTED), self.count(*stale(prune))

    def describe(self, listed: int, *, prune: bool) -> str:
        """What is to be done, in words."""
        count, retired = self.to_do(prune=prune)
        if not count and not retired:
            return f"Nothing new: all {listed:,} files are known."
        old = f", {retired:,} old ones retired" if retired else ""
        return f"{count:,} of {listed:,} files are new or changed{old}."

    def release(self) -> None:
        """Have Spark forget the rows."""
        if not isinstance(self.rows, pa.Table):
            # Whatever ended the run may have ended Java, or the session.
            with suppress(PySparkException, Py4JError, OSError):
                self.rows.unpersist()


def compare(
    spark: Callable[[], SparkSession],
    output: Output,
    listing: list[DataFile],
    table: Table,
    *,
    retry_rejected: bool = False,
) -> Comparison:
    """Compare what was listed with what the table has, on Spark where there are more than `FEW`.

    Args:
        spark: gives the session.
        output: where both are.
        listing: the files that `save_listing` wrote.
        table: of the output's files.
        retry_rejected: take rejected files for changed.

    Raises:
        DefectError: a path is in the table twice.
    """
    rows = max(sum(file.rows for file in listing), table.counts().total())
    if rows <= FEW:
        return _compare_here(output, listing, table, retry_rejected=retry_rejected)
    return _compare_on_spark(spark(), output, listing, table, retry_rejected=retry_rejected)


def _compare_here(
    output: Output, listing: list[DataFile], table: Table, *, retry_rejected: bool
) -> Comparison:
    """As `compare`, in this process."""
    new = Reader(output.work, LISTING_SCHEMA).table(whole(listing))
    old = Reader(table.location, _OLD, table.partition).table(whole(table.files()))
    old = old.rename_columns([f"old_{name}" if name in _SAME else name for name in _OLD.names])
    rows = new.join(old, "path", join_type="full outer")
    same = reduce(pc.and_, (_agree(rows[name], rows[f"old_{name}"]) for name in _SAME))
    if retry_rejected:
        same = pc.and_(same, pc.not_equal(rows["outcome"], str(Outcome.REJECTED)))
    state = pc.if_else(same, SAME, CHANGED)
    state = pc.if_else(pc.is_null(rows["size"]), GONE, state)
    state = pc.if_else(pc.is_null(rows[FILE.name]), NEW, state)
    rows = rows.append_column("state", state).select(_COMPARED.names)
    grouped = rows.group_by(["state", "outcome", "reason"]).aggregate([([], "count_all")])
    counts = {
        (row["state"], row["outcome"], row["reason"]): row["count_all"]
        for row in grouped.to_pylist()
    }
    gone = rows.filter(pc.equal(rows["state"], GONE))
    compared = Comparison(rows, counts)
    _check_single(compared, listing, pc.count_distinct(gone["path"]).as_py(), output)
    return compared


def _compare_on_spark(
    spark: SparkSession,
    output: Output,
    listing: list[DataFile],
    table: Table,
    *,
    retry_rejected: bool,
) -> Comparison:
    """As `compare`, by Spark."""
    new = Scan.of_files(spark, output.work, LISTING_SCHEMA, listing).rows().alias("new")
    old = Scan.of_table(spark, table, *_OLD.names).rows().alias("old")
    same = agree(*_SAME)
    if retry_rejected:
        same += f" and outcome != '{Outcome.REJECTED}'"
    state = (
        f"case when {FILE.name} is null then '{NEW}' when new.size is null then '{GONE}' "
        f"when {same} then '{SAME}' else '{CHANGED}' end as state"
    )
    names = [f"new.{name}" for name in LISTING_SCHEMA.names if name != "path"]
    rows = new.join(old, "path", "full_outer").selectExpr(
        "path", *names, FILE.name, "outcome", "reason", state
    )
    rows = rows.persist()
    grouped = collect(rows.groupBy("state", "outcome", "reason").count())
    compared = Comparison(
        rows, {(row["state"], row["outcome"], row["reason"]): row["count"] for row in grouped}
    )
    gone = rows.where(f"state = '{GONE}'").select("path").distinct().count()
    _check_single(compared, listing, gone, output)
    return compared


def _check_single(compared: Comparison, listing: list[DataFile], gone: int, output: Output) -> None:
    """Refuse a table that has a path twice: a join gives it twice too.

    Args:
        compared: the comparison.
        listing: whose paths are all different.
        gone: how many paths of the table are not listed.
        output: where both are.
    """
    doubled = compared.count(NEW, CHANGED, SAME) - sum(file.rows for file in listing)
    doubled += compared.count(GONE) - gone
    if doubled:
        raise DefectError(f"{output.location} does not reconcile: {doubled} files are there twice.")


def stale(prune: bool) -> tuple[str, ...]:
    """The states whose rows the table is to have no longer."""
    return (CHANGED, GONE) if prune else (CHANGED,)


def _agree(left: pa.ChunkedArray, right: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether values are equal, or both null."""
    neither = pc.and_(pc.is_null(left), pc.is_null(right))
    return pc.or_(pc.fill_null(pc.equal(left, right), False), neither)


def agree(*names: str) -> str:
    """Whether the columns of an old and a new image agree, in SQL."""
    return " and ".join(f"old.{name} <=> new.{name}" for name in names)
