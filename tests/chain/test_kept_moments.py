"""A fit reads what is new: moments kept from run to run are those of all rows."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from helpers import features_of, go, matrix_of, output_of, table_of
from verger.errors import UsageError
from verger.recognise.recogniser import load_recogniser
from verger.reduce.kept import Kept
from verger.reduce.moments import Moments
from verger.reduce.pca import solve
from verger.store.location import Location

pytestmark = pytest.mark.usefixtures("spark")


def kept_of(output: Path) -> Kept:
    kept = Kept.read(moments_file(output))
    assert kept is not None
    return kept


def moments_file(output: Path) -> Location:
    return output_of(output).moments


def assert_whole(output: Path) -> None:
    """What is kept is of the files that the table has, and equal to the moments of all rows."""
    kept = kept_of(output)
    assert set(kept.files) == set(table_of(output).files("featurized"))
    whole = Moments.of(np.stack(features_of(output).features).astype(np.float64))
    moments, classes = kept.statistics.moments, kept.statistics.classes
    assert moments.count == whole.count
    assert_allclose(moments.mean, whole.mean, rtol=1e-9, atol=1e-12)
    assert_allclose(moments.scatter, whole.scatter, atol=1e-9 * np.trace(whole.scatter))
    by_class = features_of(output).groupby("label").features
    assert dict(zip(classes.labels, classes.counts.tolist(), strict=True)) == dict(by_class.size())
    means = [np.stack(of_class).mean(axis=0, dtype=float) for _, of_class in by_class]
    assert_allclose(classes.means, means, rtol=1e-9, atol=1e-12)
    spectrum = pd.read_csv(output / "pca/spectrum.csv").explained_variance
    expected = solve(whole, 5).explained_variance
    assert_allclose(spectrum, expected, rtol=1e-9, atol=1e-9 * expected[0])


def test_they_follow_what_comes_changes_and_goes(images: Path, tmp_path: Path) -> None:
    output, photos = tmp_path / "out", sorted(images.glob("*/*.jpg"))
    later = [photos[1], photos[9]]
    for photo in later:
        shutil.move(photo, tmp_path / photo.name)
    go(images, output, components=5, wave_size=8)
    assert_whole(output)
    for photo in later:
        shutil.move(tmp_path / photo.name, photo)
    go(images, output, components=5, wave_size=8)
    assert_whole(output)
    os.utime(photos[20], ns=(1, 1))
    photos[4].unlink()
    go(images, output, components=5, prune=True)
    assert_whole(output)
    assert kept_of(output).statistics.moments.count == len(photos) - 1


def test_of_too_many_classes_no_means_are_kept_and_the_matrix_is_made(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, photos = tmp_path / "out", sorted(images.glob("*/*.jpg"))
    shutil.move(photos[1], tmp_path / "later.jpg")
    monkeypatch.setattr("verger.reduce.moments.MOST_CLASSES", 2)
    monkeypatch.setattr("verger.recognise.fit.MOST_CLASSES", 2)
    for count in (len(photos) - 1, len(photos)):
        go(images, output, components=5)
        statistics = kept_of(output).statistics
        assert (statistics.classes, statistics.moments.count) == (None, count)
        assert len(matrix_of(output)) == count
        with pytest.raises(UsageError, match="more than 2 classes"):
            load_recogniser(output_of(output))
        shutil.copy(tmp_path / "later.jpg", photos[1])
    photos[4].unlink()
    go(images, output, components=5, prune=True)
    assert kept_of(output).statistics.moments.count == len(photos) - 1


def test_rows_that_were_counted_are_not_read_again(images: Path, tmp_path: Path) -> None:
    output, photos = tmp_path / "out", sorted(images.glob("*/*.jpg"))
    shutil.move(photos[1], tmp_path / "later.jpg")
    go(images, output, components=5)
    kept = kept_of(output)
    # As if the features had been twice as far from their mean.
    wide = replace(kept.statistics.moments, scatter=4 * kept.statistics.moments.scatter)
    Kept(replace(kept.statistics, moments=wide), kept.files).write(moments_file(output))
    shutil.move(tmp_path / "later.jpg", photos[1])
    go(images, output, components=5)
    new = np.stack(features_of(output).set_index("path").features[
        [str(photos[1].relative_to(images))]
    ]).astype(np.float64)  # fmt: skip
    expected = wide.merge(Moments.of(new))
    scatter = kept_of(output).statistics.moments.scatter
    assert_allclose(scatter, expected.scatter, atol=1e-9)


def test_merging_files_keeps_them(images: Path, tmp_path: Path) -> None:
    output, photos = tmp_path / "out", sorted(images.glob("*/*.jpg"))
    shutil.move(photos[1], tmp_path / "later.jpg")
    go(images, output, components=5, wave_size=6)
    before = kept_of(output)
    shutil.move(tmp_path / "later.jpg", photos[1])
    go(images, output, components=5, compact_files=2)
    assert len(table_of(output).files("featurized")) < len(before.files)
    assert_whole(output)


@pytest.mark.parametrize("damage", ["absent", "cut", "nonsense"])
def test_without_them_all_rows_are_read(images: Path, tmp_path: Path, damage: str) -> None:
    output = tmp_path / "out"
    go(images, output, components=5)
    before, file = matrix_of(output), Path(moments_file(output).path)
    content = {"absent": None, "cut": file.read_bytes()[:1000], "nonsense": b"nothing"}[damage]
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    go(images, output, components=4)
    assert_whole(output)
    assert_allclose(matrix_of(output).iloc[:, 2:], before.iloc[:, 2:6], atol=1e-9)


def test_files_that_were_deleted_meanwhile_make_all_rows_be_read(
    images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    go(images, output, components=5)
    kept = kept_of(output)
    gone = replace(kept.files[0], name="outcome=featurized/gone.parquet", rows=1)
    Kept(kept.statistics, (*kept.files, gone)).write(moments_file(output))
    go(images, output, components=4)
    assert_whole(output)
