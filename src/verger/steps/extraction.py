"""Images to features, a step at a time."""

from itertools import islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Row, SparkSession

from verger.errors import InputError, UsageError
from verger.images.decoding import SCALED_COLOURS, rules_of
from verger.images.listing import list_input
from verger.images.loading import Loader
from verger.images.views import to_views
from verger.networks.graph import Backbone, load_backbone
from verger.networks.registry import MOBILENET_V2
from verger.output.files import open_files
from verger.output.layout import (
    FILES_SCHEMA,
    LISTING_SCHEMA,
    ListedImage,
    Outcome,
    Output,
    Rejection,
    check_no_run,
)
from verger.settings import MAX_FILE_BYTES, MAX_IMAGE_PIXELS, RunSettings
from verger.spark import session
from verger.spark.connect import Shared, connect, processors, share
from verger.spark.extraction import Extractor
from verger.spark.scan import Scan, spark_schema
from verger.spark.tasks import task_sizes
from verger.spark.writing import write
from verger.store import storage
from verger.store.location import Location, check_apart


class Extraction(NamedTuple):
    """What became of the images, read back from disk.

    Attributes:
        features: path, label, features (`array<float>`, 1280 long), a row an image.
        rejected: path, label, reason, detail, a row a file that gave no features.
    """

    features: DataFrame
    rejected: DataFrame


def start_session(
    *places: str, master: str | None = None, remote: str | None = None
) -> SparkSession:
    """Take the Spark session that runs, as in a notebook of EMR or Databricks, or start one.

    Args:
        places: folders and `s3://` prefixes that will be read or written.
        master: Spark's master URL; None for all processors of this machine.
        remote: a server of Spark Connect (`sc://host:15002`) instead, which reads and writes the
            places itself, with its own settings of AWS.

    Raises:
        SetupError: Java or Spark does not start, or the server is not one to work with.
        InputError: a bucket cannot be reached.

    Examples:
        >>> verger.start_session(INPUT, OUTPUT).range(3).count()
        3
    """
    if remote:
        return connect(remote)
    return session.start_session(master, *map(Location.parse, places))


def list_images(folder: str, label_from: str = "parent", limit: int | None = None) -> DataFrame:
    """List the images of a folder, or of what `verger pack` made of one, without opening them.

    Args:
        folder: a folder or `s3://bucket/prefix`.
        label_from: `parent` for the name of the folder that holds the image, `none`, or a regular
            expression over the path whose one group is the label.
        limit: take the first so many, in the order of their paths.

    Returns:
        path (relative to the folder), label, size in bytes, and what tells that a file changed.

    Raises:
        InputError: the folder or bucket is missing, cannot be read, or holds nothing.

    Examples:
        >>> images = verger.list_images(INPUT)
        >>> images.groupBy("label").count().orderBy("label").first()
        Row(label='Apple Green', count=6)
    """
    place = Location.parse(folder)
    listed = islice(list_input(place, label_from), limit)
    rows = [tuple(vars(image).values()) for image in listed]
    return start_session(folder).createDataFrame(rows, spark_schema(LISTING_SCHEMA))


def preprocess(folder: str, image: Row) -> NDArray[np.uint8]:
    """Read and decode an image as the executors do: upright, on white, 224 x 224 by bicubic filter.

    Args:
        folder: the folder that was listed.
        image: a row of what `list_images` returned.

    Returns:
        (224, 224, 3) uint8 in RGB, what the network takes; it scales the values itself.

    Raises:
        InputError: it cannot be read or decoded.

    Examples:
        >>> pixels = verger.preprocess(INPUT, verger.list_images(INPUT).first())
        >>> pixels.shape, str(pixels.dtype)
        ((224, 224, 3), 'uint8')
    """
    place, listed = Location.parse(folder), ListedImage(**image.asDict())
    name = place.child(listed.path)
    side = MOBILENET_V2.side
    rules = rules_of(SCALED_COLOURS, side, MAX_IMAGE_PIXELS)
    loader = Loader(place, to_views(side, 1), MAX_FILE_BYTES, rules)
    try:
        data = loader.read_once(listed)
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error}.") from error
    picture = loader.decode(listed, data)
    if isinstance(picture, Rejection):
        raise InputError(f"{name} is no image to use: {picture.reason}.")
    return picture.pixels


def extract(
    images: DataFrame,
    folder: str,
    output: str,
    backbone: "Shared[Backbone] | Backbone | None" = None,
    *,
    fresh: bool = False,
) -> Extraction:
    """Compute the features of listed images on the executors, once, and keep them.

    Spark computes a DataFrame anew each time it is used; therefore the rows are written to
    `output/extraction` as Parquet, and what is returned reads them there.

    Args:
        images: what `list_images` returned, or some of its rows.
        folder: the folder that was listed.
        output: a folder or `s3://bucket/prefix`, not inside `folder`.
        backbone: the network from `load_backbone`, or a broadcast of it; None is the bundled one.
            Under Spark Connect, which has no broadcast, it travels in the tasks' function.
        fresh: replace what is in `output/extraction`.

    Raises:
        UsageError: the output is inside the input, or holds an extraction already.

    Examples:
        >>> features, rejected = verger.extract(images.limit(3), INPUT, OUTPUT)
        >>> len(features.first()["features"]), rejected.count()
        (1280, 0)
    """
    source, target = Location.parse(folder), Location.parse(output).child("extraction")
    check_apart(source, target)
    make_room(target, fresh=fresh)
    spark = images.sparkSession
    network = load_backbone() if backbone is None else backbone
    settings = RunSettings(input=source, output=target)
    extractor = Extractor.of(
        settings,
        share(spark, network) if isinstance(network, Backbone) else network,
        spark,
        packed=bool(images.where("shard is not null").head(1)),
        decoding=SCALED_COLOURS,
    )
    sizes = task_sizes(images.count(), settings.task_size, processors(spark))
    parts = max(len(sizes), 1)
    # Columns that somebody added are left out.
    tasks = images.select(*LISTING_SCHEMA.names)
    if extractor.packed:
        # A row group goes to one task, which reads it once.
        tasks = tasks.repartition(parts, "shard", "row_group")
        tasks = tasks.sortWithinPartitions("shard", "row_group", "row")
    else:
        tasks = tasks.repartition(parts)
    files = write(tasks, extractor, target, "outcome")

    def rows(outcome: Outcome, *columns: str) -> DataFrame:
        schema = pa.schema([FILES_SCHEMA.field(name) for name in columns])
        return Scan.of_files(
            spark, target, schema, [file for file in files if file.part == outcome]
        ).rows()

    return Extraction(
        rows(Outcome.FEATURIZED, "path", "label", "features"),
        rows(Outcome.REJECTED, "path", "label", "reason", "detail"),
    )


def read_features(output: str) -> DataFrame:
    """The features in an output of `run`, from a folder or from S3.

    Args:
        output: the folder, or `s3://bucket/prefix`.

    Returns:
        path, label, features (`array<float>`, 1280 long), a row an image.

    Raises:
        InputError: it has none.

    Examples:
        >>> manifest = verger.run(INPUT, f"{OUTPUT}/kept", components=5, limit=8)
        >>> verger.read_features(f"{OUTPUT}/kept").count()
        8
    """
    table = open_files(Output(Location.parse(output)))
    if not table.exists:
        raise InputError(f"{output} holds no features.", "Make some: verger run INPUT OUTPUT")
    columns = ("path", "label", "features")
    return Scan.of_table(start_session(output), table, *columns, part=Outcome.FEATURIZED).rows()


def make_room(*folders: Location, fresh: bool) -> None:
    """Refuse to write where something is, or delete it."""
    for folder in folders:
        check_no_run(Output(folder.parent))
        if not fresh and storage.exists(folder):
            raise UsageError(
                f"{folder} is there already.", "Give another output, or fresh=True to replace it."
            )
    for folder in folders:
        storage.delete(folder)
