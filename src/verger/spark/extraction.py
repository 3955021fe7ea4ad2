"""Features on the executors: paths go out, rows of features or of rejections come back."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Thread
from time import sleep

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import Accumulator, Broadcast
from pyspark.sql import SparkSession

from verger import storage
from verger.backbone.engines import BATCH_SIZE, Engine, Features, engine_for
from verger.backbone.graph import Backbone
from verger.images.decoding import IMAGE_SIDE, Rejection, decode
from verger.images.listing import ListedImage
from verger.images.reading import read_ahead
from verger.results import EXTRACTION_SCHEMA, Reason
from verger.storage import Location

SPARK_SCHEMA = "path string, label string, features array<float>, reason string, detail string"
"""`EXTRACTION_SCHEMA` in Spark's words."""

ROWS_A_BATCH = 64
"""Rows in a batch that goes back to Spark: a third of a megabyte of features."""

HEAD_BYTES = 64
"""What is read of a file that is too large, to tell an image from anything else."""


@dataclass(frozen=True)
class Row:
    """What became of an image: features (1280 float32), or a rejection."""

    image: ListedImage
    outcome: Features | Rejection


@dataclass(frozen=True)
class Extractor:
    """What a task does; sent to the workers.

    Attributes:
        folder: the input.
        backbone: the broadcast network.
        max_pixels: the largest image that is decoded, width x height.
        max_bytes: the largest file that is read whole.
        read_ahead: threads that read.
        done: counts images as tasks end, for whoever watches.
        rejected: counts rejections, likewise.
    """

    folder: Location
    backbone: "Broadcast[Backbone]"
    max_pixels: int
    max_bytes: int
    read_ahead: int
    done: "Accumulator[int]"
    rejected: "Accumulator[int]"

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Extract a partition for `mapInArrow`: `LISTING_SCHEMA` to `EXTRACTION_SCHEMA`."""
        engine = engine_for(self.backbone.value)
        images = (ListedImage(**row) for batch in batches for row in batch.to_pylist())
        rows: list[Row] = []
        for row in self.extract(images, engine):
            rows.append(row)
            if len(rows) == ROWS_A_BATCH:
                yield self._pack(rows)
                rows = []
        if rows:
            yield self._pack(rows)

    def extract(self, images: Iterable[ListedImage], engine: Engine) -> Iterator[Row]:
        """Features or a rejection for each image, rejections ahead of their turn."""
        pixels = np.empty((BATCH_SIZE, IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
        batch: list[ListedImage] = []
        for image, data in read_ahead(images, self._read, self.read_ahead):
            decoded = self._decode(image, data)
            if isinstance(decoded, Rejection):
                yield Row(image, decoded)
                continue
            pixels[len(batch)] = decoded
            batch.append(image)
            if len(batch) == BATCH_SIZE:
                yield from map(Row, batch, engine.features(pixels))
                batch = []
        if batch:
            yield from map(Row, batch, engine.features(pixels[: len(batch)]))

    def _read(self, image: ListedImage) -> bytes:
        limit = HEAD_BYTES if image.size > self.max_bytes else None
        return storage.read_bytes(self.folder.child(image.path), limit)

    def _decode(self, image: ListedImage, data: bytes | OSError) -> NDArray[np.uint8] | Rejection:
        if isinstance(data, OSError):
            return Rejection(Reason.UNREADABLE, f"{type(data).__name__}: {data.strerror or data}")
        decoded = decode(data, self.max_pixels)
        if image.size > self.max_bytes and not (
            isinstance(decoded, Rejection) and decoded.reason is Reason.NOT_AN_IMAGE
        ):
            return Rejection(
                Reason.TOO_LARGE, f"{image.size:,} bytes, more than {self.max_bytes:,}"
            )
        return decoded

    def _pack(self, rows: list[Row]) -> pa.RecordBatch:
        rejections = [row.outcome if isinstance(row.outcome, Rejection) else None for row in rows]
        self.done.add(len(rows))
        self.rejected.add(sum(rejection is not None for rejection in rejections))
        columns = [
            [row.image.path for row in rows],
            [row.image.label for row in rows],
            [None if isinstance(row.outcome, Rejection) else row.outcome for row in rows],
            [rejection and str(rejection.reason) for rejection in rejections],
            [rejection and rejection.detail for rejection in rejections],
        ]
        arrays = [
            pa.array(column, field.type)
            for column, field in zip(columns, EXTRACTION_SCHEMA, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=EXTRACTION_SCHEMA)


def warm_up(spark: SparkSession, backbone: "Broadcast[Backbone]") -> None:
    """Have the workers load their engines while the driver is busy elsewhere.

    A failure shows again in the first wave, where it is reported.
    """

    def load(_: object) -> None:
        engine_for(backbone.value)
        sleep(0.2)  # a worker that ended at once would be given the next task too

    workers = spark.sparkContext.defaultParallelism
    # No SQL: that starts slowly, and the driver starts it meanwhile.
    job = spark.sparkContext.parallelize(range(workers), workers)

    def run() -> None:
        with contextlib.suppress(Exception):
            job.foreach(load)

    Thread(target=run, daemon=True).start()
