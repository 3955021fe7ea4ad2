"""Features on the executors: paths go out, rows of features or of rejections come back."""

import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
from pyspark import Accumulator, Broadcast, SparkContext, TaskContext
from pyspark.serializers import CloudPickleSerializer

from verger.images.ahead import read_ahead
from verger.images.guard import Guard
from verger.images.loading import Loader, Pixels
from verger.images.views import split, to_views
from verger.networks.engines import Engine, Features, engine_for, mean_of_views
from verger.networks.graph import Backbone
from verger.output.layout import FILES_SCHEMA, FINGERPRINT, ListedImage, Outcome, Reason, Rejection
from verger.settings import RunSettings
from verger.store import storage

T = TypeVar("T")

ROWS_A_BATCH = 64
"""Rows in a batch that goes back to Spark: a third of a megabyte of features."""


@dataclass(frozen=True)
class Row:
    """What became of an image: features (float32), or a rejection."""

    image: ListedImage
    outcome: Features | Rejection


@dataclass(frozen=True)
class Extractor:
    """What a task does; sent to the workers.

    Attributes:
        loader: reads and decodes.
        backbone: the broadcast network.
        read_ahead: threads that read.
        image_seconds: what an image may take.
        views: of each image, whose features are averaged.
        done: counts images as tasks end, for whoever watches.
        rejected: counts rejections, likewise.
        packed: the images are in shards.
        careful: load each image in a process that may die; so does any task that is tried again.
    """

    loader: Loader
    backbone: "Broadcast[Backbone]"
    read_ahead: int
    image_seconds: float
    done: "Accumulator[int]"
    rejected: "Accumulator[int]"
    views: int = 1
    packed: bool = False
    careful: bool = False

    @classmethod
    def of(
        cls,
        settings: RunSettings,
        backbone: "Broadcast[Backbone]",
        context: SparkContext,
        *,
        packed: bool,
        exact: bool,
    ) -> "Extractor":
        """The one that settings ask for; `exact` as for `--exact-decoding`."""
        side = backbone.value.network.side
        return cls(
            loader=Loader(
                settings.input,
                to_views(side, settings.views),
                settings.max_pixels,
                settings.max_bytes,
                least=None if exact else 2 * side,
            ),
            backbone=backbone,
            read_ahead=settings.read_ahead,
            image_seconds=settings.image_seconds,
            views=settings.views,
            packed=packed,
            done=context.accumulator(0),
            rejected=context.accumulator(0),
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

    def _load_ahead(
        self, images: Iterable[ListedImage]
    ) -> Iterator[tuple[ListedImage, Pixels | Rejection]]:
        # Once, before many threads would each make their own.
        storage.file_system(self.loader.folder)
        for image, data in read_ahead(images, self.loader.read, self.read_ahead):
            yield image, self.loader.decode(image, data)

    def _load_carefully(
        self, images: Iterable[ListedImage]
    ) -> Iterator[tuple[ListedImage, Pixels | Rejection]]:
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

    def _pack(self, rows: list[Row]) -> pa.RecordBatch:
        rejections = [row.outcome if isinstance(row.outcome, Rejection) else None for row in rows]
        self.done.add(len(rows))
        self.rejected.add(sum(rejection is not None for rejection in rejections))
        columns = {
            "path": [row.image.path for row in rows],
            "label": [row.image.label for row in rows],
            "features": [
                None if isinstance(row.outcome, Rejection) else row.outcome for row in rows
            ],
            "reason": [rejection and str(rejection.reason) for rejection in rejections],
            "detail": [rejection and rejection.detail for rejection in rejections],
            "outcome": [
                str(Outcome.REJECTED if rejection else Outcome.FEATURIZED)
                for rejection in rejections
            ],
        }
        for field in FINGERPRINT:
            columns[field.name] = [getattr(row.image, field.name) for row in rows]
        return pa.RecordBatch.from_pydict(columns, FILES_SCHEMA)


def extract(
    loaded: Iterable[tuple[ListedImage, Pixels | Rejection]], engine: Engine, views: int = 1
) -> Iterator[Row]:
    """Features or a rejection for each image, rejections ahead of their turn.

    Args:
        loaded: images with their views under one another, or with why they have none.
        engine: runs the network, on full batches whatever the number of views.
        views: of each image.
    """
    size, side = engine.batch_size, engine.network.side
    pixels = np.empty((size, side, side, 3), np.uint8)
    waiting: list[ListedImage] = []
    done: list[Features] = []
    filled = 0
    for image, outcome in loaded:
        if isinstance(outcome, Rejection):
            yield Row(image, outcome)
            continue
        waiting.append(image)
        for view in split(outcome):
            pixels[filled] = view
            filled += 1
            if filled == size:
                done.extend(engine.features(pixels))
                filled = 0
        while len(done) >= views:
            yield Row(waiting.pop(0), mean_of_views(done[:views]))
            del done[:views]
    if filled:
        done.extend(engine.features(pixels[:filled]))
    for number, image in enumerate(waiting):
        yield Row(image, mean_of_views(done[number * views : (number + 1) * views]))


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
