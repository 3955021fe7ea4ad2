"""The driver's side of extraction: what is left to do, cut into waves, each committed whole."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from threading import Event, Thread

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - the name that PySpark's users know

from verger import storage
from verger.errors import DefectError
from verger.images.listing import ListedImage
from verger.ledger import Ledger, Wave, images_of
from verger.progress import Progress
from verger.results import LISTING_SCHEMA, Output
from verger.spark.extraction import SPARK_SCHEMA, Extractor
from verger.spark.session import spark_path, spark_target

LISTING = "path string, label string, size long, mtime_ns long, etag string"
"""`LISTING_SCHEMA` in Spark's words."""
FEATURES = "path string, label string, features array<float>"

LISTING_BATCH = 50_000
"""Listed images that are held in memory before they are written."""

POLL_SECONDS = 0.25


def save_listing(images: Iterable[ListedImage], output: Output, progress: Progress) -> int:
    """Write the listing as Parquet to `_ledger/listing`; returns how many images there are."""
    folder = output.ledger.child("listing")
    storage.delete(folder)
    files = storage.file_system(folder.is_s3)
    files.create_dir(folder.path, recursive=True)
    remaining = iter(images)
    listed = 0
    while batch := list(islice(remaining, LISTING_BATCH)):
        table = pa.Table.from_pylist([vars(image) for image in batch], LISTING_SCHEMA)
        pq.write_table(table, folder.child(f"{listed:012}.parquet").path, filesystem=files)
        listed += len(batch)
        progress.update(listed)
    return listed


def read_listing(spark: SparkSession, output: Output) -> DataFrame:
    """The saved listing."""
    return _read(spark, LISTING, [output.ledger.child("listing")])


def committed_images(spark: SparkSession, output: Output, ledger: Ledger) -> DataFrame:
    """The fingerprints of the images of all committed waves."""
    return _read(spark, LISTING, [images_of(output, wave.number) for wave in ledger.waves])


def committed_features(spark: SparkSession, output: Output, ledger: Ledger) -> DataFrame:
    """The features of all committed waves: path, label, features."""
    folders = [output.features_of(wave.number) for wave in ledger.waves if wave.featurized]
    return _read(spark, FEATURES, folders)


def plan_waves(
    pending: DataFrame, count: int, output: Output, first: int, wave_size: int
) -> dict[int, int]:
    """Cut `count` images into waves of about `wave_size`, kept in `_ledger/images/wave=N`.

    An image's wave is chosen by a hash of its path, so that each wave is a sample of all classes.

    Returns:
        How many images each wave has, by its number; the numbers start at `first`.
    """
    if not count:
        return {}
    waves = -(-count // wave_size)
    number = F.pmod(F.xxhash64("path"), F.lit(waves)).cast("int") + F.lit(first)
    numbered = pending.withColumn("wave", number)
    # A shuffle is a stage more, and a single wave needs none.
    numbered = numbered.repartition("wave") if waves > 1 else numbered.coalesce(1)
    target = spark_target(output.ledger.child("images"))
    numbered.write.mode("append").partitionBy("wave").parquet(target)
    counts = {
        number: storage.count_rows(images_of(output, number))
        for number in range(first, first + waves)
    }
    return {number: count for number, count in counts.items() if count}


def run_wave(
    spark: SparkSession,
    output: Output,
    number: int,
    count: int,
    *,
    extractor: Extractor,
    task_size: int,
) -> Wave:
    """Extract the `count` images of a wave and write its features and its rejected files.

    Raises:
        DefectError: the rows that came back are not as many as the images.
    """
    files = spark.sparkContext.defaultParallelism
    images = _read(spark, LISTING, [images_of(output, number)])
    tasks = images.repartition(max(-(-count // task_size), min(count, 2 * files)))
    # Kept until both folders are written, so that no image goes through the network twice.
    rows = tasks.mapInArrow(extractor, SPARK_SCHEMA).persist()
    try:
        counts = {row["reason"]: row["count"] for row in rows.groupBy("reason").count().collect()}
        featurized = counts.pop(None, 0)
        if featurized + sum(counts.values()) != count:
            raise DefectError(f"Wave {number} has {count} images but gave {featurized} + {counts}.")
        if featurized:
            features = rows.where("reason is null").select("path", "label", "features")
            features.coalesce(files).write.parquet(spark_target(output.features_of(number)))
        if counts:
            rejected = rows.where("reason is not null").drop("features")
            rejected.coalesce(1).write.parquet(spark_target(output.rejected_of(number)))
    finally:
        rows.unpersist()
    return Wave(number=number, featurized=featurized, rejected=counts)


@contextmanager
def watched(extractor: Extractor, progress: Progress) -> Iterator[None]:
    """Tell `progress` how far the workers are, from a thread of its own."""
    stopped = Event()

    def watch() -> None:
        while not stopped.wait(POLL_SECONDS):
            progress.update(extractor.done.value, extractor.rejected.value)

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _read(spark: SparkSession, columns: str, folders: list[storage.Location]) -> DataFrame:
    # With the columns given, Spark opens no file to find them.
    if not folders:
        return spark.createDataFrame([], columns)
    return spark.read.schema(columns).parquet(*map(spark_path, folders))
