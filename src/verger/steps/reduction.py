"""Features to a matrix, a recogniser and drawings, a step at a time."""

from pyspark.sql import DataFrame

from verger.errors import InputError
from verger.images.decoding import SCALED_COLOURS
from verger.networks.graph import Backbone
from verger.output.files import Identity, open_scores
from verger.output.layout import SCORES_SCHEMA, Output
from verger.recognise.fit import check_classes, fit
from verger.recognise.recogniser import Recogniser
from verger.reduce.pca import Pca, Projection, solve
from verger.reduce.sample import SAMPLE_IMAGES, Draw
from verger.report import charts
from verger.report.charts import Drawing
from verger.spark import matrix
from verger.spark.connect import Shared, processors, share
from verger.spark.model import load_projection, write_model
from verger.spark.scan import spark_schema
from verger.spark.statistics import compute_statistics, sample_images
from verger.spark.writing import write
from verger.steps.extraction import make_room
from verger.store.location import Location
from verger.version import VERSION


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
    return solve(compute_statistics(rows).moments, components)


def fit_recogniser(features: DataFrame, backbone: "Backbone | Shared[Backbone]") -> Recogniser:
    """Fit what tells classes apart, in closed form: two passes over the features on the executors.

    Args:
        features: path, label, features; rows with the label "" belong to no class.
        backbone: the network that made them.

    Raises:
        InputError: there are fewer than two classes or too many, or no class has two images that
            differ.

    Examples:
        >>> recogniser = verger.fit_recogniser(features, verger.load_backbone())
        >>> import numpy as np
        >>> row = features.first()
        >>> recogniser.answer(np.array(row.features)).guesses[0].label == row.label
        True
    """
    network = backbone if isinstance(backbone, Backbone) else backbone.value
    rows = features.coalesce(max(1, processors(features.sparkSession)))
    statistics = compute_statistics(rows.select("label", "features"))
    draw = Draw.of(check_classes(statistics.classes), SAMPLE_IMAGES)
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
    shared = share(features.sparkSession, projection)
    rows = features.select("path", "label", "features")
    return rows.mapInArrow(matrix.scoring(lambda: shared.value), spark_schema(SCORES_SCHEMA))


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
    make_room(place.pca, place.model, fresh=fresh)
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
