"""What changed since the last run, and the account of all files: joins of what is on disk."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce

from py4j.protocol import Py4JError
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - the name that PySpark's users know

from verger import storage
from verger.errors import DefectError
from verger.ledger import Ledger, Wave, images_of
from verger.results import Counts, Output
from verger.spark import waves
from verger.spark.session import spark_target

FEW = 100_000
"""Rows of paths that one task counts as fast as many would."""


def find_stale(
    spark: SparkSession, output: Output, ledger: Ledger, *, prune: bool, retry_rejected: bool
) -> DataFrame:
    """The committed images whose rows no longer count: columns path and wave.

    An image is stale when it changed, with `prune` when it has gone from the listing, and with
    `retry_rejected` when it was rejected.
    """
    old = waves.committed_images(spark, output, ledger).alias("old")
    new = waves.read_listing(spark, output).alias("new")
    joined = old.join(new, F.col("old.path") == F.col("new.path"), "left")
    gone = F.col("new.path").isNull()
    stale = ~gone & ~_same("size", "mtime_ns", "etag")
    if prune:
        stale |= gone
    if retry_rejected:
        rejected = waves.committed_rejections(spark, output, ledger).select(
            F.col("path").alias("rejected_path")
        )
        joined = joined.join(rejected, F.col("old.path") == F.col("rejected_path"), "left")
        stale |= ~gone & F.col("rejected_path").isNotNull()
    return joined.where(stale).select("old.path", "old.wave")


def retire(
    spark: SparkSession, output: Output, ledger: Ledger, stale: DataFrame, number: int
) -> tuple[Ledger, int]:
    """Rewrite the waves of stale images without them, as one new wave.

    Args:
        spark: the session.
        output: where the waves are.
        ledger: which of them count.
        stale: as `find_stale` gives them.
        number: of the new wave.

    Returns:
        The ledger that should count next, not yet written, and how many images were stale.
    """
    stale = stale.persist()
    try:
        by_wave = waves.count_by(stale, "wave")
        if not by_wave:
            return ledger, 0
        affected = [wave for wave in ledger.waves if wave.images in by_wave]
        part = ledger.model_copy(update={"waves": tuple(affected)})
        paths = stale.select("path")
        for rows, target in (
            (waves.committed_features(spark, output, part), output.features_of(number)),
            (waves.committed_rejections(spark, output, part), output.rejected_of(number)),
            (
                waves.committed_images(spark, output, part).drop("wave"),
                images_of(output, number),
            ),
        ):
            left = rows.join(paths, "path", "left_anti")
            left.write.parquet(spark_target(target))
        rejected = waves.read_rejections(spark, [output.rejected_of(number)])
        merged = Wave(
            number=number,
            images=number,
            featurized=storage.count_rows(output.features_of(number)),
            rejected=waves.count_by(rejected, "reason"),
        )
        without = frozenset(wave.number for wave in affected)
        is_empty = not (merged.featurized or merged.rejected)
        added = () if is_empty else (merged,)
        return ledger.with_waves(*added, without=without), sum(by_wave.values())
    finally:
        with suppress(Py4JError, OSError):  # whatever ended the job may have ended Java
            stale.unpersist()


def rebase(spark: SparkSession, output: Output, ledger: Ledger, number: int) -> Ledger:
    """Give the images of all waves the fingerprints of the listing, where sizes agree.

    The new fingerprints go to folders numbered from `number`; the ledger that is returned, and not
    yet written, names them.
    """
    old = waves.committed_images(spark, output, ledger).alias("old")
    new = waves.read_listing(spark, output).alias("new")
    joined = old.join(new, F.col("old.path") == F.col("new.path"), "left")
    fingerprint = [
        F.when(_same("size"), F.col(f"new.{name}")).otherwise(F.col(f"old.{name}")).alias(name)
        for name in ("mtime_ns", "etag", "shard", "row_group", "row")
    ]
    offset = number - min((wave.images for wave in ledger.waves), default=0)
    kept = [F.col(f"old.{name}") for name in ("path", "label", "size")]
    wave = (F.col("old.wave") + F.lit(offset)).alias("wave")
    renumbered = joined.select(*kept, *fingerprint, wave)
    target = spark_target(output.images)
    renumbered.repartition("wave").write.mode("append").partitionBy("wave").parquet(target)
    moved = [wave.model_copy(update={"images": wave.images + offset}) for wave in ledger.waves]
    return ledger.model_copy(update={"waves": tuple(moved)})


@dataclass(frozen=True)
class Account:
    """What became of every file: counts, and the rejected ones by reason."""

    counts: Counts
    rejected_by_reason: dict[str, int]


def take_account(
    spark: SparkSession, output: Output, ledger: Ledger, new: frozenset[int]
) -> Account:
    """Count from what is on disk what became of every file, by a join over its path.

    Args:
        spark: the session.
        output: where listing, features and rejections are.
        ledger: the waves that count.
        new: the numbers of the waves that this run committed.

    Raises:
        DefectError: a listed file is in neither features nor rejections, or one is there twice.
    """
    fresh = ledger.model_copy(update={"waves": tuple(w for w in ledger.waves if w.number in new)})
    older = ledger.with_waves(without=new)
    found = [
        _marked(waves.read_listing(spark, output), "listed"),
        _marked(waves.committed_features(spark, output, fresh), "featurized"),
        _marked(waves.committed_features(spark, output, older), "reused"),
        _marked(waves.committed_rejections(spark, output, ledger), "rejected", F.col("reason")),
    ]
    rows = reduce(DataFrame.unionByName, found)
    if ledger.files <= FEW:
        rows = rows.coalesce(1)  # two shuffles would take longer than the counting
    by_path = rows.groupBy("path").agg(
        F.concat_ws("+", F.sort_array(F.collect_list("place"))).alias("places"),
        F.max("reason").alias("reason"),
    )
    places: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for row in by_path.groupBy("places", "reason").count().collect():
        places[row["places"]] += row["count"]
        if row["places"] == "listed+rejected":
            reasons[row["reason"]] += row["count"]
    counts = Counts(
        featurized=places.pop("featurized+listed", 0),
        reused=places.pop("listed+reused", 0),
        rejected=places.pop("listed+rejected", 0),
        kept=places.pop("reused", 0),
    )
    counts.listed = counts.featurized + counts.reused + counts.rejected
    places.pop("rejected", 0)  # rejected once, and gone since
    if places:
        wrong = ", ".join(f"{count} {place}" for place, count in sorted(places.items()))
        raise DefectError(f"{output.location} does not reconcile: files that are {wrong}.")
    if counts.rows != ledger.featurized:
        raise DefectError(
            f"{output.location} does not reconcile: {counts.rows} rows of features, but "
            f"{ledger.featurized} in the ledger."
        )
    return Account(counts, dict(reasons.most_common()))


def _marked(rows: DataFrame, place: str, reason: Column | None = None) -> DataFrame:
    reason = F.lit(None).cast("string") if reason is None else reason
    return rows.select("path", F.lit(place).alias("place"), reason.alias("reason"))


def _same(*names: str) -> Column:
    """Whether the columns of an old and a new image agree."""
    return reduce(
        Column.__and__, (F.col(f"old.{name}").eqNullSafe(F.col(f"new.{name}")) for name in names)
    )
