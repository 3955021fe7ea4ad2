"""What changed since the last run, and the account of all files: a join of listing and table."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc
from py4j.protocol import Py4JError
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - the name that PySpark's users know

from verger.errors import DefectError
from verger.output.layout import FILES_SCHEMA, FINGERPRINT, LISTING_SCHEMA, Outcome, Output
from verger.output.manifest import Counts
from verger.output.table import DataFile, Table
from verger.spark.scan import FILE, Batches, Reader, Scan, Slice, collect, write, write_here
from verger.spark.waves import PENDING, Wave, waves_of

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
        return self.count(*EXTRACTED), self.count(*_stale(prune))

    def frame(self, spark: SparkSession, output: Output) -> DataFrame:
        """The rows for Spark."""
        if isinstance(self.rows, DataFrame):
            return self.rows
        folder = output.work.child("compared")
        files = write_here(folder, self.rows.to_batches())
        return Scan.of_files(spark, folder, _COMPARED, files).rows()

    def release(self) -> None:
        """Have Spark forget the rows."""
        if isinstance(self.rows, DataFrame):
            with suppress(Py4JError, OSError):  # whatever ended the run may have ended Java
                self.rows.unpersist()


def compare_few(
    output: Output, listing: list[DataFile], table: Table, *, retry_rejected: bool = False
) -> Comparison:
    """As `compare`, in this process: for up to `FEW` files."""
    new = _read_all(Reader(output.work, LISTING_SCHEMA), listing)
    old = _read_all(Reader(table.location, _OLD, table.partition), table.files())
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
    found = Comparison(rows, counts)
    _check_single(found, listing, pc.count_distinct(gone["path"]).as_py(), output)
    return found


def compare(
    spark: SparkSession,
    output: Output,
    listing: list[DataFile],
    table: Table,
    *,
    retry_rejected: bool = False,
) -> Comparison:
    """Compare what was listed with what the table has.

    Args:
        spark: the session.
        output: where both are.
        listing: the files that `save_listing` wrote.
        table: of the output's files.
        retry_rejected: take rejected files for changed.

    Raises:
        DefectError: a path is in the table twice.
    """
    new = Scan.of_files(spark, output.work, LISTING_SCHEMA, listing).rows().alias("new")
    old = Scan.of_table(spark, table, *_OLD.names).rows().alias("old")
    same = _same(*_SAME)
    if retry_rejected:
        same &= F.col("outcome") != Outcome.REJECTED
    state = (
        F.when(F.col(FILE.name).isNull(), NEW)
        .when(F.col("new.size").isNull(), GONE)
        .when(same, SAME)
        .otherwise(CHANGED)
    )
    names = [F.col(f"new.{name}") for name in LISTING_SCHEMA.names if name != "path"]
    rows = new.join(old, "path", "full_outer").select(
        "path", *names, FILE.name, "outcome", "reason", state.alias("state")
    )
    rows = rows.persist()
    grouped = collect(rows.groupBy("state", "outcome", "reason").count())
    found = Comparison(
        rows, {(row["state"], row["outcome"], row["reason"]): row["count"] for row in grouped}
    )
    gone = rows.where(F.col("state") == GONE).select("path").distinct().count()
    _check_single(found, listing, gone, output)
    return found


def _check_single(found: Comparison, listing: list[DataFile], gone: int, output: Output) -> None:
    """Refuse a table that has a path twice: a join gives it twice too.

    Args:
        found: the comparison.
        listing: whose paths are all different.
        gone: how many paths of the table are not listed.
        output: where both are.
    """
    doubled = found.count(NEW, CHANGED, SAME) - sum(file.rows for file in listing)
    doubled += found.count(GONE) - gone
    if doubled:
        raise DefectError(f"{output.location} does not reconcile: {doubled} files are there twice.")


def _stale(prune: bool) -> tuple[str, ...]:
    """The states whose rows the table is to have no longer."""
    return (CHANGED, GONE) if prune else (CHANGED,)


def _read_all(reader: Reader, files: list[DataFile]) -> pa.Table:
    batches = reader.read(Slice(file, 0, file.rows) for file in files)
    return pa.Table.from_batches(batches, reader.schema)


def _agree(left: pa.ChunkedArray, right: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether values are equal, or both null."""
    neither = pc.and_(pc.is_null(left), pc.is_null(right))
    return pc.or_(pc.fill_null(pc.equal(left, right), False), neither)


def plan_waves(
    spark: SparkSession,
    found: Comparison,
    output: Output,
    wave_size: int,
    *,
    prune: bool,
    packed: bool,
) -> list[Wave]:
    """Cut what is to be done into waves of about `wave_size`, written to `_run`.

    Rows of one file of the table are retired by one wave, which writes that file anew; new images
    are spread by a hash of their paths, so that each wave is a sample of all classes. Images of one
    row group stay together, since they are read together.

    Args:
        spark: the session.
        found: the comparison.
        output: where waves are written to.
        wave_size: images, or rows that are retired.
        prune: retire the rows of images that have gone.
        packed: images are in shards.
    """
    count = -(-max(found.to_do(prune=prune)) // wave_size)
    together = F.coalesce(FILE.name, F.concat("shard", F.lit("#"), "row_group"), "path")
    number = F.format_string("%06d", F.pmod(F.xxhash64(together), F.lit(count)))
    columns = [*LISTING_SCHEMA.names, FILE.name]
    frame = found.frame(spark, output)
    images, retired = (
        frame.where(F.col("state").isin(*states)).select(
            *columns, F.concat(number, F.lit(what)).alias(PENDING)
        )
        for states, what in ((EXTRACTED, "-images"), (_stale(prune), "-retired"))
    )
    rows = images.unionByName(retired)
    # A shuffle is a stage more, and a single wave needs none.
    rows = rows.repartition(PENDING) if count > 1 else rows.coalesce(1)
    if packed:
        rows = rows.sortWithinPartitions(PENDING, "shard", "row_group", "row")
    return waves_of(write(rows, iter, output.work, PENDING))


def retire(spark: SparkSession, output: Output, table: Table, wave: Wave) -> tuple[
    list[DataFile], list[DataFile]
]:  # fmt: skip
    """Write the files anew that hold rows which a wave retires, without these.

    Returns:
        The new files, and the old ones; neither is committed.
    """
    if not wave.retired:
        return [], []
    schema = pa.schema([LISTING_SCHEMA.field("path"), FILE])
    reader = Reader(output.work, schema)
    stale = pa.Table.from_batches(
        reader.read(Slice(file, 0, file.rows) for file in wave.retired), schema
    )
    names = set(stale[FILE.name].to_pylist())
    paths = stale["path"].combine_chunks()
    old = [file for file in table.files() if file.name in names]

    def without_stale(batches: Batches) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield batch.filter(pc.invert(pc.is_in(batch.column("path"), value_set=paths)))

    rows = Scan.of_table(spark, table, *table.schema.names, files=old)
    return write(rows, without_stale, table.location, table.partition), old


def rebase(
    spark: SparkSession, output: Output, listing: list[DataFile], table: Table
) -> list[DataFile]:
    """Write all files of the table anew, with the fingerprints of the listing where sizes agree.

    Returns:
        The new files, which are not committed yet.
    """
    names = [field.name for field in FINGERPRINT]
    new = Scan.of_files(spark, output.work, LISTING_SCHEMA, listing).rows().alias("new")
    old = Scan.of_table(spark, table, "path", *names, FILE.name).rows().alias("old")
    fingerprint = [
        F.when(_same("size"), F.col(f"new.{name}")).otherwise(F.col(f"old.{name}")).alias(name)
        for name in names
    ]
    joined = old.join(new, "path", "left").select("path", *fingerprint, FILE.name)
    files = {file.name: file for file in table.files()}
    reader = Reader(table.location, table.schema, table.partition)

    def refresh(batches: Batches) -> Iterator[pa.RecordBatch]:
        of_file: defaultdict[str, list[pa.RecordBatch]] = defaultdict(list)
        for batch in batches:
            column = batch.column(FILE.name)
            for name in column.unique().to_pylist():
                of_file[name].append(batch.filter(pc.equal(column, name)))
        for name, known in of_file.items():
            found = pa.Table.from_batches(known).combine_chunks()
            for rows in reader.read([Slice(files[name], 0, files[name].rows)]):
                order = pc.index_in(rows.column("path"), value_set=found["path"].chunk(0))
                columns = {column: rows.column(column) for column in rows.schema.names}
                columns |= {column: found[column].chunk(0).take(order) for column in names}
                yield pa.RecordBatch.from_pydict(columns, rows.schema)

    return write(joined.repartition(FILE.name), refresh, table.location, table.partition)


@dataclass(frozen=True)
class Account:
    """What became of every file: counts, and the rejected ones by reason."""

    counts: Counts
    rejected_by_reason: dict[str, int]


def take_account(found: Comparison, table: Table, new: int, output: Output) -> Account:
    """Count what became of every file.

    Args:
        found: the comparison of the listing with the table as it is on disk.
        table: the same.
        new: rows of features that this run committed.
        output: where they are.

    Raises:
        DefectError: a listed file is not in the table, or is there as it was not listed.
    """
    of_listed = found.count(SAME, outcome=Outcome.FEATURIZED)
    counts = Counts(
        featurized=new,
        reused=of_listed - new,
        rejected=found.count(SAME, outcome=Outcome.REJECTED),
        kept=found.count(GONE, outcome=Outcome.FEATURIZED),
    )
    counts.listed = counts.featurized + counts.reused + counts.rejected
    wrong = [f"{found.count(state)} {state}" for state in (NEW, CHANGED) if found.count(state)]
    if counts.reused < 0:
        wrong.append(f"{-counts.reused} featurized but lost")
    if counts.rows != table.counts()[Outcome.FEATURIZED]:
        wrong.append(f"{counts.rows} rows instead of {table.counts()[Outcome.FEATURIZED]}")
    if wrong:
        raise DefectError(f"{output.location} does not reconcile: {', '.join(wrong)}.")
    reasons = {
        str(reason): count
        for (state, outcome, reason), count in found.counts.items()
        if state == SAME and outcome == Outcome.REJECTED
    }
    by_count = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return Account(counts, dict(by_count))


def _same(*names: str) -> Column:
    """Whether the columns of an old and a new image agree."""
    return reduce(
        Column.__and__, (F.col(f"old.{name}").eqNullSafe(F.col(f"new.{name}")) for name in names)
    )
