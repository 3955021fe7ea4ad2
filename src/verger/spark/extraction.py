"""Features on the executors: paths go out, rows of features or of rejections come back."""

import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.serializers import CloudPickleSerializer
from pyspark.sql import SparkSession

from verger.images.ahead import read_ahead
from verger.images.decoding import Picture, rules_of
from verger.images.guard import Guard
from verger.images.loading import Loader
from verger.images.views import split, to_views
from verger.networks.engines import Engine, Features, engine_for, mean_of_views
from verger.networks.graph import Backbone
from verger.output.layout import (
    FILES_SCHEMA,
    SPECIAL,
    THUMBNAIL,
    DataFile,
    ListedImage,
    Outcome,
    Reason,
    Rejection,
)
from verger.settings import RunSettings
from verger.spark.connect import Counter, Shared, Tally, counter
from verger.store import storage

T = TypeVar("T")

READ_TOGETHER = 32
"""Files of a disk that a thread reads one after the other; those of S3 are waited for at once."""

ROWS_A_BATCH = 64
"""Rows in a batch that goes back to Spark: a third of a megabyte of features."""


@dataclass(frozen=True)
class Row:
    """What became of an image: features (float32) or a rejection, and how it was read."""

    image: ListedImage
    outcome: Features | Rejection
    special: str | None = None
    thumbnail: bytes | None = None

    def record(self) -> dict[str, Any]:
        """Its columns of `FILES_SCHEMA`; those that it leaves out are null."""
        known = {**vars(self.image), SPECIAL.name: self.special, THUMBNAIL.name: self.thumbnail}
        if isinstance(self.outcome, Rejection):
            known |= {"reason": str(self.outcome.reason), "detail": self.outcome.detail}
            return known | {"outcome": str(Outcome.REJECTED)}
        return known | {"features": self.outcome, "outcome": str(Outcome.FEATURIZED)}


@dataclass(frozen=True)
class Extractor:
    """What a task does; sent to the workers.

    Attributes:
        loader: reads and decodes.
        backbone: the network, broadcast or carried along.
        read_ahead: threads that read.
        image_seconds: what an image may take.
        views: of each image, whose features are averaged.
        done: counts images as tasks end, for whoever watches.
        rejected: counts rejections, likewise.
        packed: the images are in shards.
        ticks: a file that gets a byte for each image as it is done, where it is on this machine.
        careful: load each image in a process that may die; so does any task that is tried again.
    """

    loader: Loader
    backbone: Shared[Backbone]
    read_ahead: int
    image_seconds: float
    done: Counter
    rejected: Counter
    views: int = 1
    packed: bool = False
    ticks: str = ""
    careful: bool = False

    @classmethod
    def of(
        cls,
        settings: RunSettings,
        backbone: Shared[Backbone],
        spark: SparkSession,
        *,
        packed: bool,
        decoding: str,
    ) -> "Extractor":
        """The one that settings ask for; `decoding` names the rules of the output's rows."""
        side = backbone.value.network.side
        rules = rules_of(
            decoding, side, settings.max_pixels, accept_truncated=settings.accept_truncated
        )
        return cls(
            loader=Loader(
                settings.input,
                to_views(side, settings.views),
                settings.max_bytes,
                replace(rules, thumbnails=True),
            ),
            backbone=backbone,
            read_ahead=settings.read_ahead,
            image_seconds=settings.image_seconds,
            views=settings.views,
            packed=packed,
            done=counter(spark),
            rejected=counter(spark),
        )

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Extract the images of a task: `LISTING_SCHEMA` to `FILES_SCHEMA`."""
        engine = engine_for(self.backbone.value)
        images = (ListedImage(**row) for batch in batches for row in batch.to_pylist())
        task = TaskContext.get()
        if self.careful or (task is not None and task.attemptNumber() > 0):
            loaded = self._load_carefully(images)
        else:
            loaded = limited(self._load_ahead(images), self.image_seconds)
        rows: list[Row] = []
        for row in extract(loaded, engine, self.views):
            rows.append(row)
            if len(rows) == ROWS_A_BATCH:
                yield self._pack(rows)
                rows = []
        if rows:
            yield self._pack(rows)

    def count(self, file: DataFile) -> None:
        """Count the rows that a task wrote, where the task cannot tell itself."""
        if isinstance(self.done, Tally):
            self.done.add(file.rows)
            self.rejected.add(file.rows if file.part == Outcome.REJECTED else 0)

    def _load_ahead(
        self, images: Iterable[ListedImage]
    ) -> Iterator[tuple[ListedImage, Picture | Rejection]]:
        # Once, before many threads would each make their own.
        storage.file_system(self.loader.folder)
        together = 1 if self.loader.folder.is_s3 else READ_TOGETHER
        for image, data in read_ahead(images, self.loader.read, self.read_ahead, together):
            yield image, self.loader.decode(image, data)

    def _load_carefully(
        self, images: Iterable[ListedImage]
    ) -> Iterator[tuple[ListedImage, Picture | Rejection]]:
        # Spark's own pickle also takes decoders that no module holds.
        loader: bytes = CloudPickleSerializer().dumps(self.loader)  # type: ignore[no-untyped-call]
        with Guard(loader, self.image_seconds) as guard:
            for image in images:
                outcome = guard(image)
                late = isinstance(outcome, Rejection) and outcome.reason is Reason.TIMEOUT
                if late and self.loader.folder.is_s3:
                    # It may be the store that hangs, or hung, and then no image is to blame.
                    self.loader.check_reachable(image)
                    outcome = guard(image)
                yield image, outcome

    def _tick(self, count: int) -> None:
        # An accumulator tells the driver of a task when it ends, which may take long.
        # There is none on another machine, and another user may not write to it.
        with suppress(OSError):
            ticks = os.open(self.ticks, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(ticks, b"." * count)
            finally:
                os.close(ticks)

    def _pack(self, rows: list[Row]) -> pa.RecordBatch:
        records = [row.record() for row in rows]
        self.done.add(len(rows))
        self._tick(len(rows))
        self.rejected.add(sum(record["outcome"] == Outcome.REJECTED for record in records))
        return pa.RecordBatch.from_pylist(records, FILES_SCHEMA)


def extract(
    loaded: Iterable[tuple[ListedImage, Picture | Rejection]], engine: Engine, views: int = 1
) -> Iterator[Row]:
    """Features or a rejection for each image, rejections ahead of their turn.

    Args:
        loaded: images with their views under one another, or with why they have none.
        engine: runs the network, on full batches whatever the number of views.
        views: of each image.
    """
    size, side = engine.batch_size, engine.network.side
    pixels = np.empty((size, side, side, 3), np.uint8)
    waiting: deque[tuple[ListedImage, str | None, bytes | None]] = deque()
    done: list[Features] = []
    filled = 0

    def rows() -> Iterator[Row]:
        while len(done) >= views:
            image, special, thumbnail = waiting.popleft()
            yield Row(image, mean_of_views(done[:views]), special, thumbnail)
            del done[:views]

    for image, outcome in loaded:
        if isinstance(outcome, Rejection):
            yield Row(image, outcome)
            continue
        special = "+".join(sorted(outcome.special)) or None
        waiting.append((image, special, outcome.thumbnail))
        for view in split(outcome.pixels):
            pixels[filled] = view
            filled += 1
            if filled == size:
                done.extend(engine.features(pixels))
                filled = 0
        yield from rows()
    if filled:
        done.extend(engine.features(pixels[:filled]))
    yield from rows()


def limited(items: Iterable[T], seconds: float) -> Iterator[T]:
    """The same items; the kernel ends this process when one of them takes longer.

    A signal that is not handled works where a thread would not: in a decoder that loops in C and
    never lets Python run.
    """
    iterator = iter(items)
    while True:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            item = next(iterator)
        except StopIteration:
            return
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        yield item
