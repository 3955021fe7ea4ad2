"""The whole chain, on a small orchard with some rot in it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from PIL import Image
from pyspark.sql import SparkSession

from helpers import features_of, go, matrix_of, output_of, table_of
from verger.errors import InputError, TooManyRejectedError, UsageError
from verger.output.layout import FILES_SCHEMA
from verger.output.manifest import Manifest, read_manifest

ODD_NAMES = [
    "with space.jpg",
    "été.jpg",
    "🍐.jpg",
    "100%.jpg",
    "a#b.jpg",
    'quo"te.jpg',
    "com,ma.jpg",
    " lead and trail .jpg",
    "%20.jpg",
]


@pytest.fixture
def finished(sound: Path) -> tuple[Manifest, Path]:
    return read_manifest(output_of(sound)), sound


def test_spark_is_started_before_the_listing_where_a_cluster_waits_for_it(
    finished, orchard: Path, tmp_path: Path, monkeypatch
) -> None:
    assert list(finished[0].timings)[:3] == ["backbone", "list", "spark"]
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "1")
    manifest = go(orchard, tmp_path / "out", limit=2)
    assert list(manifest.timings)[:3] == ["backbone", "spark", "list"]


def test_the_output_is_the_one_that_is_promised(finished) -> None:
    manifest, output = finished
    assert manifest.status == "complete"
    assert manifest.counts.model_dump() == {
        "listed": 24, "featurized": 24, "reused": 0, "rejected": 0, "kept": 0,
    }  # fmt: skip
    assert json.loads((output / "manifest.json").read_text()) == manifest.model_dump(mode="json")
    features = features_of(output)
    assert list(features.columns) == ["path", "label", "features"]
    assert features.path.is_unique
    assert {len(row) for row in features.features} == {1280}
    matrix = pd.read_csv(output / "pca/matrix.csv")
    assert list(matrix.columns) == ["path", "label", *(f"pc_{n}" for n in range(1, 6))]
    assert list(matrix.path) == sorted(features.path)
    variance = pd.read_csv(output / "pca/variance.csv")
    assert list(variance.component) == [1, 2, 3, 4, 5]
    assert variance.cumulative_ratio.iloc[-1] == pytest.approx(manifest.explained_variance_ratio)


def test_matrix_csv_parts_and_parquet_hold_the_same_scores(finished) -> None:
    _, output = finished
    matrix = pd.read_csv(output / "pca/matrix.csv", float_precision="round_trip")
    files = sorted(output.glob("pca/csv/*.csv"))
    parts = pd.concat([pd.read_csv(file, float_precision="round_trip") for file in files])
    pd.testing.assert_frame_equal(matrix, parts.reset_index(drop=True))
    parquet = pd.concat(
        [pq.read_table(file).to_pandas() for file in output.glob("pca/parquet/*.parquet")]
    ).sort_values("path")
    np.testing.assert_array_equal(np.stack(parquet.pca), matrix.iloc[:, 2:].to_numpy())


def test_the_matrix_is_the_pca_of_the_features(finished) -> None:
    _, output = finished
    features = np.stack(features_of(output).features).astype(np.float64)
    from sklearn.decomposition import PCA

    expected = PCA(5, svd_solver="full").fit_transform(features)
    scores = pd.read_csv(output / "pca/matrix.csv").iloc[:, 2:].to_numpy()
    np.testing.assert_allclose(np.abs(scores), np.abs(expected), atol=1e-6)


def test_running_again_computes_nothing_and_gives_the_same(
    sound: Path, orchard: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(sound, tmp_path / "out")
    before = (output / "pca/matrix.csv").read_bytes()
    again = go(orchard, output, components=5)
    assert (again.counts.featurized, again.counts.reused) == (0, 24)
    assert (output / "pca/matrix.csv").read_bytes() == before


def test_waves_and_tasks_of_any_size_give_the_same_features(
    finished, orchard: Path, tmp_path: Path
) -> None:
    _, output = finished
    go(orchard, tmp_path / "out", wave_size=7, task_size=3)
    commits = DeltaTable(tmp_path / "out/files").history()
    assert sum("featurized" in commit for commit in commits) > 1
    pd.testing.assert_frame_equal(features_of(output), features_of(tmp_path / "out"))


def test_plain_spark_reads_what_the_output_says(
    finished, spark: SparkSession, tmp_path: Path
) -> None:
    place = shutil.copytree(finished[1], tmp_path / "out").as_uri()
    features = spark.read.parquet(f"{place}/files/outcome=featurized")
    assert features.count() == features.select("path").distinct().count() == 24
    assert len(features.first()["features"]) == 1280
    assert spark.read.parquet(f"{place}/pca/parquet").count() == 24


def test_the_tensorflow_engine_agrees(finished, orchard: Path, tmp_path: Path) -> None:
    _, output = finished
    go(orchard, tmp_path / "out", engine="tensorflow")
    ours, theirs = (np.stack(features_of(folder).features) for folder in (output, tmp_path / "out"))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_odd_names_survive_to_the_csv_and_bad_files_are_rejected(
    spark: SparkSession, orchard: Path, tmp_path: Path
) -> None:
    source = sorted(orchard.glob("*/*.jpg"))
    folder = tmp_path / "in" / 'a "class", é#1'
    folder.mkdir(parents=True)
    for name, file in zip(ODD_NAMES, source, strict=False):
        shutil.copy(file, folder / name)
    (folder / "notes.txt").write_text("no image")
    (folder / "empty.jpg").touch()
    (folder / "cut.jpg").write_bytes(source[0].read_bytes()[:1500])
    Image.new("L", (50, 40), 90).save(folder / "grey.png")
    manifest = go(tmp_path / "in", tmp_path / "out", max_rejected="20%")
    assert manifest.rejected_by_reason == {"not_an_image": 1, "empty": 1, "truncated": 1}
    matrix = pd.read_csv(tmp_path / "out/pca/matrix.csv")
    assert set(matrix.path) == {f"{folder.name}/{name}" for name in [*ODD_NAMES, "grey.png"]}
    assert set(matrix.label) == {folder.name}
    rejected = pq.read_table(next(tmp_path.glob("out/files/outcome=rejected/*.parquet")))
    assert set(rejected.column_names) == {*FILES_SCHEMA.names} - {"outcome"}
    # Over the limit, the features are kept and the matrix is removed.
    with pytest.raises(TooManyRejectedError, match="1 empty"):
        go(tmp_path / "in", tmp_path / "out", max_rejected="1%")
    assert not (tmp_path / "out/pca").exists()
    assert len(features_of(tmp_path / "out")) == len(ODD_NAMES) + 1
    status = json.loads((tmp_path / "out/manifest.json").read_text())["status"]
    assert status == "too_many_rejected"


def test_labels_may_be_left_out_or_taken_by_a_pattern(
    spark: SparkSession, orchard: Path, tmp_path: Path
) -> None:
    go(orchard, tmp_path / "none", label_from="none", limit=3)
    matrix = pd.read_csv(tmp_path / "none/pca/matrix.csv", keep_default_na=False)
    assert list(matrix.label) == ["", "", ""]
    go(orchard, tmp_path / "frame", label_from=r"r_(\d+)_", limit=3)
    assert list(pd.read_csv(tmp_path / "frame/pca/matrix.csv").label) == [0, 1, 2]


@pytest.mark.parametrize(
    "name", ["backbone", "weights_sha256", "precision", "label_from", "decoding"]
)
def test_rows_of_another_kind_in_the_output_are_refused_with_both_remedies(
    finished, orchard: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(finished[1], tmp_path / "out")
    table_of(tmp_path / "out").set_properties({name: "other"})
    with pytest.raises(UsageError, match=name) as raised:
        go(orchard, tmp_path / "out")
    assert "another output folder" in raised.value.hint
    assert "--fresh" in raised.value.hint


def test_fresh_starts_an_output_of_another_rule_over(
    spark: SparkSession, orchard: Path, tmp_path: Path
) -> None:
    go(orchard, tmp_path / "out", limit=3)
    again = go(orchard, tmp_path / "out", limit=4, label_from="none", fresh=True)
    assert (again.counts.featurized, again.counts.reused) == (4, 0)
    assert set(matrix_of(tmp_path / "out").label) == {""}


@pytest.mark.parametrize(
    ("files", "options", "error", "words"),
    [
        ({}, {}, InputError, "holds no file"),
        ({"a.txt": b"text", "b.pdf": b"%PDF-"}, {}, InputError, "None of the 2 files"),
        ({"a.jpg": 0}, {}, InputError, "only one image"),
        ({"a.jpg": 0, "b.jpg": 0, "c.jpg": 0}, {}, InputError, "no variance"),
        ({"a.jpg": 0, "b.jpg": 1}, {"components": 2}, UsageError, "at most 1"),
        ({"a.jpg": 0, "b.jpg": 1, "c": b"x"}, {"components": 2}, UsageError, "at most 1"),
    ],
)
def test_input_that_cannot_be_reduced_is_refused(
    spark: SparkSession, orchard: Path, tmp_path: Path, files, options, error, words
) -> None:
    source = sorted(orchard.glob("*/*.jpg"))
    (tmp_path / "in").mkdir()
    for name, content in files.items():
        data = source[content].read_bytes() if isinstance(content, int) else content
        (tmp_path / "in" / name).write_bytes(data)
    with pytest.raises(error, match=words):
        go(tmp_path / "in", tmp_path / "out", **options)
    assert not (tmp_path / "out/pca").exists()


def test_an_output_inside_the_input_is_refused_and_nothing_is_written(orchard: Path) -> None:
    with pytest.raises(UsageError, match="inside the input"):
        go(orchard, orchard / "out")
    assert not (orchard / "out").exists()
