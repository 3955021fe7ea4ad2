"""The PCA against scikit-learn, against Spark ML, and on odd shapes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pyspark.ml import feature
from pyspark.ml.functions import array_to_vector, vector_to_array
from pyspark.sql import DataFrame, SparkSession
from sklearn import decomposition

from verger.errors import InputError, UsageError
from verger.reduce.moments import Moments, Statistics
from verger.reduce.pca import solve
from verger.spark.model import write_model
from verger.spark.scan import spark_schema
from verger.spark.statistics import STATISTICS, _packed, _unpacked, compute_statistics
from verger.steps import fit_pca, transform
from verger.store.location import Location


def random_rows(rows: int, d: int, seed: int = 0) -> np.ndarray:
    """Rows with falling variances, of float32 like features."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, d)) * np.linspace(3, 0.1, d) + 5).astype(np.float32)


def to_frame(spark: SparkSession, rows: np.ndarray, partitions: int = 2) -> DataFrame:
    data = [(f"{index:04}", "", row.tolist()) for index, row in enumerate(rows)]
    columns = "path string, label string, features array<float>"
    return spark.createDataFrame(data, columns).repartition(partitions)


def scores_of(frame: DataFrame) -> np.ndarray:
    return np.array([row["pca"] for row in frame.orderBy("path").collect()])


def align(scores: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The scores with the signs of the reference: a component's direction is arbitrary."""
    return scores * np.sign((scores * reference).sum(axis=0))


def test_it_equals_scikit_learn(spark: SparkSession) -> None:
    rows = random_rows(200, 30)
    frame = to_frame(spark, rows)
    fitted = fit_pca(frame, 10)
    reference = decomposition.PCA(10, svd_solver="full").fit(rows.astype(np.float64))
    assert_allclose(
        fitted.explained_variance_ratio[:10], reference.explained_variance_ratio_, atol=1e-9
    )
    assert_allclose(fitted.explained_variance[:10], reference.explained_variance_, rtol=1e-9)
    expected = reference.transform(rows.astype(np.float64))
    assert_allclose(align(scores_of(transform(frame, fitted)), expected), expected, atol=1e-6)


def test_it_equals_spark_ml_but_for_the_mean(spark: SparkSession) -> None:
    frame = to_frame(spark, random_rows(120, 12))
    fitted = fit_pca(frame, 5)
    reference = feature.PCA(k=5, inputCol="features", outputCol="pca").fit(
        frame.select(array_to_vector("features").alias("features"))
    )
    components = reference.pc.toArray()
    assert_allclose(align(fitted.components, components), components, atol=1e-9)
    assert_allclose(
        fitted.explained_variance_ratio[:5], reference.explainedVariance.toArray(), atol=1e-12
    )


def test_the_saved_model_gives_the_matrix(spark: SparkSession, tmp_path) -> None:
    frame = to_frame(spark, random_rows(60, 20))
    fitted = fit_pca(frame, 7)
    write_model(fitted, Location(f"{tmp_path}/model"))
    from pyspark.ml import PipelineModel

    vectors = frame.withColumn("features", array_to_vector("features"))
    transformed = PipelineModel.load(f"file://{tmp_path}/model").transform(vectors)
    from_model = transformed.select("path", vector_to_array("pca").alias("pca"))
    expected = scores_of(transform(frame, fitted))
    assert_allclose(scores_of(from_model), expected, atol=1e-9)


@pytest.mark.parametrize("partitions", [1, 3, 7])
def test_partitioning_does_not_matter(spark: SparkSession, partitions: int) -> None:
    rows = random_rows(50, 8)
    whole = solve(Moments.of(rows.astype(np.float64)), 4)
    parted = solve(compute_statistics(to_frame(spark, rows, partitions)).moments, 4)
    assert_allclose(parted.components, whole.components, atol=1e-9)
    assert_allclose(parted.explained_variance, whole.explained_variance, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(2, 40),
    d=st.integers(1, 20),
    cut=st.integers(1, 39),
    seed=st.integers(0, 1000),
)
def test_merged_moments_equal_those_of_all_rows(rows: int, d: int, cut: int, seed: int) -> None:
    data = random_rows(rows, d, seed).astype(np.float64)
    cut = min(cut, rows - 1)
    merged = Moments.of(data[:cut]).merge(Moments.of(data[cut:]))
    whole = Moments.of(data)
    assert merged.count == rows
    assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    assert_allclose(merged.scatter, whole.scatter, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(2, 30), d=st.integers(1, 20), seed=st.integers(0, 1000))
def test_components_are_orthonormal_ordered_and_signed(rows: int, d: int, seed: int) -> None:
    most = min(rows - 1, d)
    fitted = solve(Moments.of(random_rows(rows, d, seed).astype(np.float64)), most)
    assert_allclose(fitted.components.T @ fitted.components, np.eye(most), atol=1e-9)
    assert (np.diff(fitted.explained_variance) <= 1e-9).all()
    largest = np.abs(fitted.components).argmax(axis=0)
    assert (fitted.components[largest, np.arange(most)] > 0).all()


@pytest.mark.parametrize(("share", "expected"), [(0.5, 1), (0.8, 2), (0.81, 3), (1.0, 3)])
def test_a_share_takes_the_fewest_components_that_reach_it(share: float, expected: int) -> None:
    # Variances 6, 2 and 2 on the axes: 0.6, 0.2, 0.2 of the total.
    axes = np.diag(np.sqrt([6.0, 2.0, 2.0]))
    moments = Moments.of(np.concatenate([axes, -axes]))
    assert solve(moments, share).components.shape == (3, expected)


def test_one_component_is_a_count_and_one_point_zero_a_share() -> None:
    moments = Moments.of(random_rows(10, 4).astype(np.float64))
    assert solve(moments, 1).components.shape == (4, 1)
    assert solve(moments, 1.0).components.shape == (4, 4)


def test_the_default_is_lowered_for_few_rows() -> None:
    moments = Moments.of(random_rows(10, 1280).astype(np.float64))
    assert solve(moments, None).components.shape == (1280, 9)


def test_more_components_than_rows_allow_are_refused() -> None:
    with pytest.raises(UsageError, match="at most 9"):
        solve(Moments.of(random_rows(10, 1280).astype(np.float64)), 10)


def test_a_single_row_and_equal_rows_are_refused() -> None:
    row = random_rows(1, 6).astype(np.float64)
    with pytest.raises(InputError, match="only one image"):
        solve(Moments.of(row), None)
    with pytest.raises(InputError, match="no variance"):
        solve(Moments.of(np.repeat(row, 5, axis=0)), None)


def test_no_row_is_refused(spark: SparkSession) -> None:
    with pytest.raises(InputError, match="no features"):
        fit_pca(to_frame(spark, np.empty((0, 3), np.float32)))


def test_statistics_pass_through_java_as_they_are(spark: SparkSession) -> None:
    rows = random_rows(30, 4).astype(np.float64)
    with_classes = Statistics.of(["a", "b", ""] * 10, rows)
    for statistics in (with_classes, replace(with_classes, classes=None)):
        schema = spark_schema(STATISTICS)
        (row,) = (
            spark.range(0, 1, 1, 1).mapInArrow(lambda _, s=statistics: _packed(s), schema).collect()
        )
        back = _unpacked(row.asDict())
        assert_array_equal(back.moments.scatter, statistics.moments.scatter)
        assert (back.classes is None) == (statistics.classes is None)
        if back.classes:
            assert back.classes.labels == ("", "a", "b")
            assert_array_equal(back.classes.means, statistics.classes.means)
