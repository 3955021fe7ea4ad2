"""The driver's side of extraction: waves of images, each of which is committed whole."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from tempfile import NamedTemporaryFile
from threading import Event, Thread

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from verger.errors import DeadlineReached, SetupError
from verger.output.layout import (
    FILES_SCHEMA,
    LISTING_SCHEMA,
    DataFile,
    ListedImage,
    Outcome,
    Output,
    Reason,
    Rejection,
)
from verger.progress import Progress, utc_now
from verger.settings import RunSettings
from verger.spark.connect import processors
from verger.spark.extraction import Extractor, Row
from verger.spark.failures import workers_died
from verger.spark.reading import Reader, Slice, whole
from verger.spark.scan import Scan
from verger.spark.tasks import count_images, cut, cut_packed, halve, task_sizes
from verger.spark.writing import check_rows, write, write_here
from verger.store import storage

PENDING = "pending"
"""The column that says which wave's file a row goes to, and the name of its folder in `_run`."""

LISTING_BATCH = 50_000
"""Listed images that are held in memory before they are written."""

POLL_SECONDS = 0.25

ALL_UNREADABLE = 20
"""Images of a wave that are not given up as unreadable when all of them are."""

MAX_CRASHED = 20
"""Images of a run that may be given up because workers die of them even alone."""


@dataclass(frozen=True)
class Wave:
    """What is committed together.

    Attributes:
        images: files below `_run` of images to extract, `LISTING_SCHEMA`.
        retired: likewise, of rows that the table is to have no longer: path and file.
    """

    images: tuple[DataFile, ...]
    retired: tuple[DataFile, ...] = ()

    @property
    def count(self) -> int:
        """How many images there are to extract."""
        return sum(file.rows for file in self.images)


def waves_of(files: Iterable[DataFile]) -> list[Wave]:
    """The waves that planned files make up, by the names of their parts."""
    parts: defaultdict[str, list[DataFile]] = defaultdict(list)
    for file in files:
        parts[file.part or ""].append(file)
    numbers = sorted({part.partition("-")[0] for part in parts})
    return [
        Wave(tuple(parts[f"{number}-images"]), tuple(parts[f"{number}-retired"]))
        for number in numbers
    ]


def save_listing(
    images: Iterable[ListedImage], output: Output, progress: Progress
) -> list[DataFile]:
    """Write the listing as Parquet to `_run/listing`; the files, by their names below `_run`."""
    storage.delete(output.listing)
    remaining = iter(images)
    files: list[DataFile] = []
    listed = 0
    while batch := list(islice(remaining, LISTING_BATCH)):
        rows = pa.RecordBatch.from_pylist([vars(image) for image in batch], LISTING_SCHEMA)
        (file,) = write_here(output.listing, [rows])
        files.append(replace(file, name=f"listing/{file.name}"))
        listed += len(batch)
        progress.update(listed)
    return files


def delete_pending(output: Output) -> None:
    """Delete what was planned."""
    for name in storage.names(output.work):
        if name.startswith(f"{PENDING}="):
            storage.delete(output.work.child(name))


def run_waves(
    spark: SparkSession, output: Output, waves: Iterable[Wave], extractor: Extractor, task_size: int
) -> Iterator[tuple[Wave, list[DataFile]]]:
    """Extract waves one after the other; each is to be committed before the next.

    Where workers die, the images are cut in two halves, which are extracted carefully, and so on
    down to the one image that is rejected as crashed.

    Yields:
        A wave, and the files of its rows below the table's folder.

    Raises:
        SetupError: workers die whatever the image, or nothing can be read.
    """
    crashed = 0
    for wave in waves:
        written: list[DataFile] = []
        left = [(whole(wave.images), extractor)]
        while left and wave.images:
            images, chosen = left.pop()
            try:
                written += extract_images(spark, output, images, chosen, task_size)
            except (PySparkException, Py4JError) as error:
                if not workers_died(error):
                    raise
                if count_images(images) > 1:
                    careful = replace(extractor, careful=True)
                    left += [(half, careful) for half in reversed(halve(images))]
                    continue
                crashed += 1
                if crashed > MAX_CRASHED:
                    raise SetupError(
                        f"Workers die whatever the image: {crashed} in this run.",
                        "Look at memory and at the log of --debug; the same command goes on, and "
                        "--retry-rejected tries again those that were given up.",
                    ) from error
                written += _reject_crashed(output, images)
        _check_readable(output, wave, written)
        yield wave, written


def extract_images(
    spark: SparkSession, output: Output, images: list[Slice], extractor: Extractor, task_size: int
) -> list[DataFile]:
    """Extract listed images in one job, whose tasks write their rows; which files those are.

    Raises:
        DefectError: the rows that were written are not as many as the images.
        SetupError: what the tasks wrote is not seen from here.
    """
    count = count_images(images)
    sizes = task_sizes(count, task_size, processors(spark))
    reader = Reader(output.work, LISTING_SCHEMA)
    tasks = cut_packed(reader, images, sizes) if extractor.packed else cut(images, sizes)
    scan = Scan(spark, reader, tasks)
    written = write(scan, extractor, output.files, "outcome", tell=extractor.count)
    check_rows(written, count)
    shared = output.location.is_s3
    if not shared and not all(storage.exists(output.files.child(file.name)) for file in written):
        raise SetupError(
            f"What the workers wrote to {output.location} is not seen by the driver.",
            "Give an output that all machines share, such as a folder of S3.",
        )
    return written


def _reject_crashed(output: Output, images: list[Slice]) -> list[DataFile]:
    """The row of a single image that no worker survives."""
    (listed,) = Reader(output.work, LISTING_SCHEMA).table(images).to_pylist()
    rejection = Rejection(Reason.CRASHED, "no worker survives this image")
    row = Row(ListedImage(**listed), rejection)
    rows = pa.RecordBatch.from_pylist([row.record()], FILES_SCHEMA)
    return write_here(output.files, [rows], "outcome")


def _check_readable(output: Output, wave: Wave, written: list[DataFile]) -> None:
    """Refuse to commit a wave of which nothing could be read: that is no fault of its images."""
    rejected = whole(file for file in written if file.part == Outcome.REJECTED)
    if wave.count < ALL_UNREADABLE or count_images(rejected) < wave.count:
        return
    reader = Reader(output.files, pa.schema([FILES_SCHEMA.field("reason")]))
    reasons = {
        reason for batch in reader.read(rejected) for reason in batch.column(0).unique().to_pylist()
    }
    if reasons == {str(Reason.UNREADABLE)}:
        raise SetupError(
            f"None of {wave.count} images could be read.",
            "Look at the disk, or at the store and its credentials; the same command goes on.",
        )


@contextmanager
def watched(extractor: Extractor, images: int, progress: Progress) -> Iterator[Extractor]:
    """Tell `progress` how far the workers are, from a thread of its own.

    Yields:
        The extractor as it tells of itself.
    """
    stopped = Event()
    with NamedTemporaryFile(prefix="verger-") as ticks:

        def watch() -> None:
            while not stopped.wait(POLL_SECONDS):
                # Images of a task that is tried again tick twice.
                ticked = min(os.fstat(ticks.fileno()).st_size, images)
                progress.update(max(extractor.done.value, ticked), extractor.rejected.value)

        thread = Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield replace(extractor, ticks=ticks.name)
        finally:
            stopped.set()
            thread.join()


def check_deadline(settings: RunSettings, left: int, seconds_an_image: float) -> None:
    """Refuse to begin a wave that would end after the deadline.

    Args:
        settings: with the deadline, if there is one.
        left: images that are not done yet.
        seconds_an_image: as long as they took so far; 0 if that is not known.

    Raises:
        DeadlineReached: saying how many images are left.
    """
    if settings.deadline is None or not left:
        return
    wave = timedelta(seconds=min(left, settings.wave_size) * seconds_an_image)
    if utc_now() + wave > settings.deadline:
        raise DeadlineReached(
            f"{left:,} images are left, and the next wave would end after the deadline, "
            f"{settings.deadline.isoformat()}.",
            "What is done is kept; the same command with a later --deadline goes on from here.",
        )
