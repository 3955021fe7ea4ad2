"""The driver's side of extraction: what is left to do, cut into waves, each committed whole."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from threading import Event, Thread
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - the name that PySpark's users know

from verger import storage
from verger.errors import DefectError, SetupError
from verger.images.listing import ListedImage
from verger.ledger import Ledger, Wave, images_of
from verger.progress import Progress
from verger.results import LISTING_SCHEMA, Output, Reason
from verger.spark.extraction import SPARK_SCHEMA, Extractor
from verger.spark.failures import workers_died
from verger.spark.session import spark_path, spark_target

LISTING = (
    "path string, label string, size long, mtime_ns long, etag string, "
    "shard string, row_group int, row int"
)
"""`LISTING_SCHEMA` in Spark's words."""
FEATURES = "path string, label string, features array<float>"
REJECTED = "path string, label string, reason string, detail string"

LISTING_BATCH = 50_000
"""Listed images that are held in memory before they are written."""

POLL_SECONDS = 0.25

ALL_UNREADABLE = 20
"""Images of a wave that are not given up as unreadable when all of them are."""

MAX_LOST = 3
"""Times that a wave is done before lost rows end the run."""

MAX_CRASHED = 20
"""Images of a run that may be given up because workers die of them even alone."""


def save_listing(images: Iterable[ListedImage], output: Output, progress: Progress) -> int:
    """Write the listing as Parquet to `_ledger/listing`; returns how many images there are."""
    folder = output.listing
    storage.delete(folder)
    remaining = iter(images)
    listed = 0
    while batch := list(islice(remaining, LISTING_BATCH)):
        table = pa.Table.from_pylist([vars(image) for image in batch], LISTING_SCHEMA)
        storage.write_parquet(folder.child(f"{listed:012}.parquet"), table)
        listed += len(batch)
        progress.update(listed)
    return listed


def read_listing(spark: SparkSession, output: Output) -> DataFrame:
    """The saved listing."""
    return _read(spark, LISTING, [output.listing])


def committed_images(spark: SparkSession, output: Output, ledger: Ledger) -> DataFrame:
    """The fingerprints of the images of all committed waves, each with its column `wave`."""
    folders = [images_of(output, wave.images) for wave in ledger.waves]
    base = spark_target(output.images)
    return _read(spark, f"{LISTING}, wave int", folders, basePath=base)


def committed_features(spark: SparkSession, output: Output, ledger: Ledger) -> DataFrame:
    """The features of all committed waves: path, label, features."""
    folders = [output.features_of(wave.number) for wave in ledger.waves if wave.featurized]
    return _read(spark, FEATURES, folders)


def committed_rejections(spark: SparkSession, output: Output, ledger: Ledger) -> DataFrame:
    """The rejected files of all committed waves: path, label, reason, detail."""
    folders = [output.rejected_of(wave.number) for wave in ledger.waves if wave.rejected]
    return read_rejections(spark, folders)


def read_rejections(spark: SparkSession, folders: list[storage.Location]) -> DataFrame:
    """The rejected files in some folders."""
    return _read(spark, REJECTED, folders)


def count_by(rows: DataFrame, column: str) -> dict[Any, int]:
    """How many rows there are of each value."""
    return {row[column]: row["count"] for row in rows.groupBy(column).count().collect()}


def plan_waves(
    pending: DataFrame, count: int, output: Output, first: int, wave_size: int
) -> dict[int, int]:
    """Cut `count` images into waves of about `wave_size`, kept in `_ledger/images/wave=N`.

    An image's wave is chosen by a hash of its path, so that each wave is a sample of all classes;
    images of one row group stay together, since they are read together.

    Returns:
        How many images each wave has, by its number; the numbers start at `first`.
    """
    if not count:
        return {}
    waves = -(-count // wave_size)
    together = F.coalesce(F.concat("shard", F.lit("#"), "row_group"), "path")
    number = F.pmod(F.xxhash64(together), F.lit(waves)).cast("int") + F.lit(first)
    numbered = pending.withColumn("wave", number)
    # A shuffle is a stage more, and a single wave needs none.
    numbered = numbered.repartition("wave") if waves > 1 else numbered.coalesce(1)
    target = spark_target(output.images)
    numbered.write.mode("append").partitionBy("wave").parquet(target)
    counts = {
        number: storage.count_rows(images_of(output, number))
        for number in range(first, first + waves)
    }
    return {number: count for number, count in counts.items() if count}


def run_waves(
    spark: SparkSession,
    output: Output,
    planned: dict[int, int],
    extractor: Extractor,
    task_size: int,
) -> Iterator[Wave]:
    """Extract planned waves one after the other; each is to be committed before the next.

    A wave whose workers die is cut in two halves, which are extracted carefully, and so on down to
    the one image that is rejected as crashed.

    Raises:
        SetupError: workers die whatever the image, or what they write is lost each time.
    """
    queue = deque((number, count, extractor) for number, count in planned.items())
    crashed = 0
    lost: Counter[int] = Counter()
    while queue:
        number, count, chosen = queue.popleft()
        try:
            wave = run_wave(spark, output, number, count, extractor=chosen, task_size=task_size)
            _check_readable(wave, count)
            yield wave
        except LostRowsError as error:
            lost[number] += 1
            if lost[number] == MAX_LOST:
                raise SetupError(
                    f"What is written of wave {number} is not what was computed, {MAX_LOST} times.",
                    "Look whether all machines see the same output; the same command goes on.",
                ) from error
            queue.appendleft((number, count, chosen))
        except (PySparkException, Py4JError) as error:
            if not workers_died(error):
                raise
            for folder in output.wave_folders(number):
                storage.delete(folder)
            if count > 1:
                careful = replace(extractor, careful=True)
                first = max(planned) + 1
                halves = _halve(output, number, first)
                planned = planned | halves
                queue.extendleft((n, half, careful) for n, half in reversed(halves.items()))
                continue
            crashed += 1
            if crashed > MAX_CRASHED:
                raise SetupError(
                    f"Workers die whatever the image: {crashed} in this run.",
                    "Look at memory and at the log of --debug; the same command goes on, and "
                    "--retry-rejected tries again those that were given up.",
                ) from error
            yield _reject_crashed(output, number)


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
    tasks = cut_into_tasks(images, count, task_size, extractor.packed)
    # Kept until both folders are written, so that no image goes through the network twice.
    rows = tasks.mapInArrow(extractor, SPARK_SCHEMA).persist()
    try:
        counts = count_by(rows, "reason")
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
        with suppress(Py4JError, OSError):  # whatever ended the job may have ended Java
            rows.unpersist()
    written = [storage.count_rows(folder) for folder in output.wave_folders(number)]
    if written != [featurized, sum(counts.values())]:
        # Rows that were lost with a machine were computed again, and another outcome was written.
        for folder in output.wave_folders(number):
            storage.delete(folder)
        raise LostRowsError
    return Wave(number=number, images=number, featurized=featurized, rejected=counts)


def cut_into_tasks(images: DataFrame, count: int, task_size: int, packed: bool) -> DataFrame:
    """Spread `count` listed images over tasks of about `task_size`, two a processor at least."""
    files = images.sparkSession.sparkContext.defaultParallelism
    parts = max(-(-count // task_size), min(count, 2 * files))
    if not packed:
        return images.repartition(parts)
    # A row group goes to one task, which reads it once.
    tasks = images.repartition(parts, "shard", "row_group")
    return tasks.sortWithinPartitions("shard", "row_group", "row")


class LostRowsError(Exception):
    """What was written of a wave is not what was counted; the wave is to be done again."""


def _check_readable(wave: Wave, count: int) -> None:
    """Refuse to commit a wave of which nothing could be read: that is no fault of its images."""
    if count >= ALL_UNREADABLE and wave.rejected.get(Reason.UNREADABLE, 0) == count:
        raise SetupError(
            f"None of {count} images could be read.",
            "Look at the disk, or at the store and its credentials; the same command goes on.",
        )


def _halve(output: Output, number: int, first: int) -> dict[int, int]:
    """Cut a planned wave into two, numbered from `first`; returns their sizes."""
    folder = images_of(output, number)
    images = storage.read_parquet(folder)
    middle = images.num_rows // 2
    halves = {first: images.slice(0, middle), first + 1: images.slice(middle)}
    for half, rows in halves.items():
        storage.write_parquet(images_of(output, half).child("part.parquet"), rows)
    storage.delete(folder)
    return {half: rows.num_rows for half, rows in halves.items()}


def _reject_crashed(output: Output, number: int) -> Wave:
    """The wave of a single image that no worker survives."""
    images = storage.read_parquet(images_of(output, number)).select(["path", "label"])
    (row,) = images.to_pylist()
    rejection = {**row, "reason": str(Reason.CRASHED), "detail": "no worker survives this image"}
    rows = pa.Table.from_pylist([rejection])
    storage.write_parquet(output.rejected_of(number).child("part.parquet"), rows)
    return Wave(number=number, images=number, featurized=0, rejected={Reason.CRASHED: 1})


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


def _read(
    spark: SparkSession, columns: str, folders: list[storage.Location], **options: str
) -> DataFrame:
    # With the columns given, Spark opens no file to find them.
    if not folders:
        return spark.createDataFrame([], columns)
    reader = spark.read.schema(columns).options(**options)
    return reader.parquet(*map(spark_path, folders))
