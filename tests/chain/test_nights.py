"""A night of few images with `--keep-pca`: matrix and recogniser grow by them, or are made anew."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from helpers import features_of, go, matrix_of, output_of
from verger.output.files import open_scores
from verger.recognise.recogniser import Recogniser, load_recogniser
from verger.spark.model import load_projection

pytestmark = pytest.mark.usefixtures("spark")


@pytest.fixture
def images(images: Path, tmp_path: Path) -> Path:
    """A copy of the orchard, two photographs of which come later."""
    for photo in (photos(images)[1], photos(images)[9]):
        shutil.move(photo, tmp_path / f"{photo.parent.name}-{photo.name}")
    return images


@pytest.fixture
def output(images: Path, tmp_path: Path) -> Path:
    go(images, tmp_path / "out", components=4)
    return tmp_path / "out"


def photos(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.jpg"))


def add(images: Path) -> list[str]:
    """Put the two photographs that were kept back where they belong."""
    added = []
    for photo in images.parent.glob("*.jpg"):
        kind, _, name = photo.name.partition("-")
        shutil.move(photo, images / kind / name)
        added.append(f"{kind}/{name}")
    return sorted(added)


def score_files(output: Path) -> set[str]:
    return {file.name for file in open_scores(output_of(output)).files()}


def recogniser_of(output: Path) -> Recogniser:
    return load_recogniser(output_of(output))


def assert_whole(output: Path) -> None:
    """Matrix and recogniser are of exactly the rows of features."""
    rows = features_of(output).sort_values("path")
    features = np.stack(rows.features).astype(float)
    matrix = matrix_of(output)
    assert matrix.path.tolist() == rows.path.tolist()
    expected = load_projection(output_of(output).model).project(features)
    assert_allclose(matrix.iloc[:, 2:], expected, atol=1e-9)
    recogniser = recogniser_of(output)
    assert recogniser.paths == rows.path.tolist()
    assert recogniser.path_labels == rows.label.tolist()
    assert recogniser.record.images == len(rows)
    project = recogniser.discriminant.project
    assert_allclose(recogniser.references, project(features), atol=1e-6)
    means = [features[(rows.label == label).to_numpy()].mean(axis=0) for label in recogniser.labels]
    assert_allclose(recogniser.means, project(np.stack(means)), atol=1e-9)


def test_new_rows_are_added_to_matrix_and_recogniser(images: Path, output: Path) -> None:
    before, scores = recogniser_of(output), score_files(output)
    added = add(images)
    go(images, output, keep_pca=True)
    assert_whole(output)
    assert scores < score_files(output)
    after = recogniser_of(output)
    assert set(after.paths) - set(before.paths) == set(added)
    assert (before.record.fitted_on, after.record.fitted_on, after.record.images) == (22, 22, 24)
    assert_array_equal(after.discriminant.directions, before.discriminant.directions)
    assert after.record.threshold == before.record.threshold


def test_what_photographs_calibrated_stays(images: Path, output: Path) -> None:
    record = recogniser_of(output).record
    file = output / "recogniser/recogniser.json"
    update = {"calibrated_on": 7, "threshold": 0.125}
    file.write_text(record.model_copy(update=update).model_dump_json())
    add(images)
    go(images, output, keep_pca=True)
    after = recogniser_of(output).record
    assert (after.calibrated_on, after.threshold, after.images) == (7, 0.125, 24)


@pytest.mark.parametrize("new_class", [True, False])
def test_a_new_class_or_many_images_make_the_recogniser_be_fitted(
    images: Path, output: Path, new_class: bool
) -> None:
    kind = images / "Quince" if new_class else photos(images)[0].parent
    kind.mkdir(exist_ok=True)
    for photo in photos(images)[:: 12 if new_class else 6]:
        shutil.copy(photo, kind / f"new-{photo.name}")
    scores = score_files(output)
    go(images, output, keep_pca=True)
    assert_whole(output)
    assert scores < score_files(output)
    record = recogniser_of(output).record
    assert record.fitted_on == record.images == len(photos(images))


def test_a_changed_or_pruned_row_makes_all_be_made_anew(images: Path, output: Path) -> None:
    add(images)
    os.utime(photos(images)[3], ns=(1, 1))
    photos(images)[4].unlink()
    scores = score_files(output)
    go(images, output, keep_pca=True, prune=True)
    assert_whole(output)
    assert not scores & score_files(output)
    assert recogniser_of(output).record.fitted_on == len(photos(images)) == 23


def test_after_a_run_that_did_not_end_all_is_made_anew(images: Path, output: Path) -> None:
    manifest = output / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete"', '"running"'))
    scores = score_files(output)
    add(images)
    go(images, output, keep_pca=True)
    assert_whole(output)
    assert not scores & score_files(output)


def test_scores_of_other_rows_are_not_added_to(images: Path, output: Path) -> None:
    table = open_scores(output_of(output))
    table.commit([], table.files())
    add(images)
    go(images, output, keep_pca=True)
    assert_whole(output)
