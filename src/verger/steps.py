"""The chain in Python, a step at a time: list, extract, fit, transform, write; or `run` at once.

All of it is also an attribute of `verger`, and is loaded when it is first asked for. In the
examples `INPUT` is a folder of 24 photographs of 4 kinds of fruit, `OUTPUT` an empty one.

    import verger

    images = verger.list_images(INPUT)
    features, rejected = verger.extract(images, INPUT, OUTPUT)
    pca = verger.fit_pca(features, components=5)
    scores = verger.transform(features, pca)
    verger.write_matrix(scores, pca, OUTPUT)

The steps are for notebooks: they hold the listing in the driver, and start over when they are
called again. `run` is for work that is to go on after a failure and to grow.
"""

from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Row, SparkSession

from verger import chain
from verger.errors import InputError, UsageError
from verger.images.decoding import SCALED_COLOURS, rules_of, to_square
from verger.images.listing import at_least_one, list_input
from verger.images.loading import Loader
from verger.networks.graph import Backbone, load_backbone
from verger.networks.registry import MOBILENET_V2
from verger.output.files import Identity, open_files, open_scores
from verger.output.layout import (
    FILES_SCHEMA,
    LISTING_SCHEMA,
    SCORES_SCHEMA,
    ListedImage,
    Outcome,
    Output,
    Rejection,
    check_no_run,
)
from verger.output.manifest import Manifest
from verger.progress import Progress
from verger.recognise.fit import check_classes, fit
from verger.recognise.recogniser import Recogniser
from verger.reduce.pca import Pca, Projection
from verger.reduce.sample import SAMPLE_IMAGES, Draw
from verger.report import charts
from verger.report.charts import Drawing
from verger.settings import (
    MAX_FILE_BYTES,
    MAX_IMAGE_PIXELS,
    RunSettings,
    check_apart,
    make_settings,
)
from verger.spark import matrix, reduce, session
from verger.spark.connect import Shared, active_session, connect, processors, share
from verger.spark.extraction import Extractor
from verger.spark.java import runs_already
from verger.spark.model import load_projection, write_model
from verger.spark.sample import sample_images
from verger.spark.scan import Scan, spark_schema
from verger.spark.waves import task_sizes
from verger.spark.writing import write
from verger.store import storage
from verger.store.location import Location
from verger.version import VERSION

__all__ = [
    "Extraction",
    "draw_map",
    "draw_scree",
    "extract",
    "fit_pca",
    "fit_recogniser",
    "list_images",
    "load_backbone",
    "load_pca",
    "preprocess",
    "read_features",
    "run",
    "start_session",
    "transform",
    "write_matrix",
]


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
    if master is None and (active := active_session()):
        return active
    if master is None and runs_already():
        return SparkSession.builder.getOrCreate()
    locations = [Location.parse(place) for place in places]
    return session.start_session(master, options=session.worker_options(*locations))


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
    listed = at_least_one(list_input(place, label_from), place)
    rows = [tuple(vars(image).values()) for image in islice(listed, limit)]
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
    loader = Loader(place, to_square(side), MAX_FILE_BYTES, rules)
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
    _make_room(target, fresh=fresh)
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
    parts = len(task_sizes(images.count(), settings.task_size, processors(spark)))
    if extractor.packed:
        # A row group goes to one task, which reads it once.
        tasks = images.repartition(parts, "shard", "row_group")
        tasks = tasks.sortWithinPartitions("shard", "row_group", "row")
    else:
        tasks = images.repartition(parts)
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


def fit_pca(features: DataFrame, components: float | None = None) -> Pca:
    """Fit an exact PCA: one pass over the features on the executors, in float64.

    Args:
        features: has a column `features`, `array<float>` of one length.
        components: a count (50), a share of the variance (0.95), or None for 50 or fewer.

    Raises:
        InputError: there are fewer than two rows, or they are all equal.
        UsageError: more components than min(rows - 1, 1280).

    Examples:
        >>> pca = verger.fit_pca(features, components=5)
        >>> pca.components.shape
        (1280, 5)
        >>> 0 < pca.kept_ratio < 1
        True
    """
    rows = features.select("features").coalesce(max(1, processors(features.sparkSession)))
    return reduce.fit(rows, components)


def fit_recogniser(features: DataFrame, backbone: "Backbone | Shared[Backbone]") -> Recogniser:
    """Fit what tells classes apart, in closed form: two passes over the features on the executors.

    Args:
        features: path, label, features; rows with the label "" belong to no class.
        backbone: the network that made them.

    Raises:
        InputError: there are fewer than two classes, or no class has two images that differ.

    Examples:
        >>> recogniser = verger.fit_recogniser(features, verger.load_backbone())
        >>> row = features.first()
        >>> recogniser.answer(np.array(row.features)).guesses[0].label == row.label
        True
    """
    network = backbone if isinstance(backbone, Backbone) else backbone.value
    rows = features.coalesce(max(1, processors(features.sparkSession)))
    statistics = reduce.compute_statistics(rows.select("label", "features"))
    check_classes(statistics.classes)
    draw = Draw.of(statistics.classes, SAMPLE_IMAGES)
    sample = sample_images(rows.select("path", "label", "features"), draw)
    identity = Identity(
        backbone=network.network.name,
        weights_sha256=network.weights.sha256,
        precision=network.precision,
        label_from="parent",
        decoding=SCALED_COLOURS,
    )
    return fit(statistics, sample, identity)


def load_pca(output: str) -> Projection:
    """The PCA that `run` or `write_matrix` left in an output.

    Args:
        output: the folder, or the `model/` folder in it.

    Raises:
        UsageError: it holds none.
    """
    start_session(output)
    return load_projection(Location.parse(output))


def transform(features: DataFrame, projection: Projection) -> DataFrame:
    """Project features through a PCA.

    Args:
        features: path, label, features.
        projection: what `fit_pca` or `load_pca` returned.

    Returns:
        path, label, pca (`array<double>`, as long as there are components), in no order.

    Examples:
        >>> len(verger.transform(features, pca).first()["pca"])
        5
    """
    return reduce.project(features, projection)


def write_matrix(
    scores: DataFrame, projection: Projection, output: str, *, fresh: bool = False
) -> None:
    """Write scores as Parquet and CSV, the variance, and the PCA as a Spark ML model.

    The files are those of `run`: `pca/matrix.csv` (path, label, pc_1 ... pc_k, sorted by path),
    `pca/csv`, `pca/parquet`, `pca/variance.csv`, `pca/spectrum.csv` and `model/`.

    Args:
        scores: what `transform` returned.
        projection: what they were projected through.
        output: a folder or `s3://bucket/prefix`.
        fresh: replace the matrix and the model that are there.

    Raises:
        UsageError: the output holds a matrix already.

    Examples:
        >>> verger.write_matrix(verger.transform(features, pca), pca, OUTPUT)
        >>> spark = verger.start_session()
        >>> spark.read.csv(f"{OUTPUT}/pca/csv", header=True).columns[:3]
        ['path', 'label', 'pc_1']
    """
    place = Output(Location.parse(output))
    _make_room(place.pca, place.model, fresh=fresh)
    rows = scores.select(*SCORES_SCHEMA.names)
    table = open_scores(place, said={"verger_version": VERSION})
    matrix.replace_scores(write(rows, iter, place.scores), table)
    matrix.write_csv(scores.sparkSession, table, place, projection.components.shape[1])
    if isinstance(projection, Pca):
        matrix.write_variance(projection, place)
    write_model(projection, place.model)


def draw_scree(fitted: Pca, **words: str) -> Drawing:
    """The share of the variance of each component kept, and of all up to it.

    Args:
        fitted: what `fit_pca` returned.
        words: titles of the axes, and the decimal mark; see `verger.report.charts.scree`.

    Examples:
        >>> verger.draw_scree(pca).svg.startswith("<svg")
        True
    """
    components = fitted.components.shape[1]
    ratios = [float(ratio) for ratio in fitted.explained_variance_ratio[:components]]
    return charts.scree(ratios, **words)


def draw_map(scores: DataFrame, most: int = 3000) -> Drawing:
    """The images in the plane of the first two components, in the colours of their labels.

    Args:
        scores: what `transform` returned, or `pca/parquet`.
        most: of more rows, a random sample of about so many is drawn.

    Raises:
        InputError: there is nothing to draw.

    Examples:
        >>> drawn = verger.draw_map(verger.transform(features, pca))
        >>> drawn.svg.count("<circle")
        24
    """
    share = most / max(scores.count(), 1)
    shown = scores.sample(share, seed=0) if share < 1 else scores
    rows = shown.select("label", "pca").collect()
    if not rows:
        raise InputError("There are no scores to draw.")
    # A single component is drawn on a line.
    return charts.scatter([(row.pca[0], sum(row.pca[1:2]), row.label) for row in rows])


def run(source: str, output: str, *, progress: Progress | None = None, **options: Any) -> Manifest:
    """The whole chain, as `verger run`: it goes on where it stopped, and computes only what is new.

    Args:
        source: a folder of images, or `s3://bucket/prefix`.
        output: where results go.
        progress: who is told how far it is.
        options: those of the command, such as `components=0.95` or `limit=1000`; the fields of
            `verger.settings.RunSettings`.

    Returns:
        The manifest: status, counts, timings, share of the variance.

    Raises:
        VergerError: one of its children, by what went wrong; see `verger.errors`.

    Examples:
        >>> manifest = verger.run(INPUT, f"{OUTPUT}/run", components=5, limit=8)
        >>> manifest.status, manifest.counts.featurized
        ('complete', 8)
    """
    settings = make_settings(input=source, output=output, **options)
    return chain.run(settings, progress)


def _make_room(*folders: Location, fresh: bool) -> None:
    """Refuse to write where something is, or delete it."""
    for folder in folders:
        check_no_run(Output(folder.parent))
        if not fresh and storage.exists(folder):
            raise UsageError(
                f"{folder} is there already.", "Give another output, or fresh=True to replace it."
            )
    for folder in folders:
        storage.delete(folder)
