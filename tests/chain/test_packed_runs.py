"""A run over shards is a run over the files that were packed."""

import json
import shutil
from pathlib import Path

import pytest

from helpers import assert_same_features, go, matrix_of, rejected_of
from verger.datasets.packing import pack
from verger.errors import InputError
from verger.store.location import Location

pytestmark = pytest.mark.usefixtures("spark")


@pytest.fixture
def images(images: Path) -> Path:
    (images / "notes.txt").write_text("no image")
    (images / "Cherry/empty.jpg").touch()
    return images


def packed(images: Path, folder: Path, **options: int) -> Path:
    pack(Location(str(images)), Location(str(folder)), **options)
    return folder


def test_shards_give_the_rows_of_the_files(images: Path, tmp_path: Path) -> None:
    shards = packed(images, tmp_path / "shards", shard_bytes=20_000)
    assert len(list(shards.glob("*.parquet"))) > 2
    ours = go(shards, tmp_path / "ours", max_rejected=0.1, wave_size=10)
    theirs = go(images, tmp_path / "theirs", max_rejected=0.1)
    assert ours.counts == theirs.counts
    assert_same_features(tmp_path / "ours", tmp_path / "theirs")
    assert rejected_of(tmp_path / "ours") == rejected_of(tmp_path / "theirs")
    assert list(matrix_of(tmp_path / "ours").label) == list(matrix_of(tmp_path / "theirs").label)


def test_a_pack_that_grew_is_taken_up_where_it_was(images: Path, tmp_path: Path) -> None:
    later = sorted(images.glob("*/r_*.jpg"))[7]
    shutil.move(later, tmp_path / "later.jpg")
    shards = packed(images, tmp_path / "shards")
    go(shards, tmp_path / "out", max_rejected=0.1)
    shutil.move(tmp_path / "later.jpg", later)
    packed(images, shards)
    counts = go(shards, tmp_path / "out", max_rejected=0.1).counts
    assert (counts.featurized, counts.reused) == (1, 23)


def test_labels_of_shards_follow_the_rule_of_the_run(images: Path, tmp_path: Path) -> None:
    shards = packed(images, tmp_path / "shards")
    go(shards, tmp_path / "out", label_from=r"r_(\d+)_", max_rejected=0.1)
    assert set(matrix_of(tmp_path / "out").label.astype(str)) == set("012345")


def test_shards_that_are_not_whole_are_refused(images: Path, tmp_path: Path) -> None:
    shards = packed(images, tmp_path / "shards")
    state = json.loads((shards / "pack.json").read_text())
    (shards / "pack.json").write_text(json.dumps(state | {"status": "incomplete"}))
    with pytest.raises(InputError, match="not finished"):
        go(shards, tmp_path / "out")
