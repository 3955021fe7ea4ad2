"""An output of version 0.1, which had a ledger of waves and no table, is gone on with."""

import os
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from helpers import features_of, go, matrix_of, rejected_of, table_of
from verger.errors import SetupError, UsageError

pytestmark = pytest.mark.usefixtures("spark")
MADE = Path(__file__).parents[1] / "golden" / "output-0.1.zip"
"""8 photographs and a cut one, and what a run of version 0.1 made of them, in waves of about 4."""
SEEN_NS = 1_700_000_000_000_000_000


@pytest.fixture
def images(tmp_path: Path) -> Path:
    with zipfile.ZipFile(MADE) as made:
        made.extractall(tmp_path)
    for photo in tmp_path.glob("in/**/*.jpg"):
        os.utime(photo, ns=(SEEN_NS, SEEN_NS))
    for name in ("manifest.json", "_ledger/ledger.json"):
        record = tmp_path / "out" / name
        record.write_text(record.read_text().replace("/images", str(tmp_path / "in")))
    return tmp_path / "in"


def old_features(output: Path) -> pd.DataFrame:
    rows = pd.concat(map(pd.read_parquet, output.glob("features/wave-*/*.parquet")))
    return rows.sort_values("path").reset_index(drop=True)


def test_its_features_are_kept_and_nothing_is_computed_again(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    features, matrix = old_features(output), matrix_of(output)
    manifest = go(images, output, max_rejected=0.5, components=3)
    assert manifest.counts.model_dump() == {
        "listed": 9, "featurized": 0, "reused": 8, "rejected": 1, "kept": 0,
    }  # fmt: skip
    pd.testing.assert_frame_equal(features_of(output), features)
    pd.testing.assert_frame_equal(matrix_of(output), matrix, atol=1e-6)
    assert rejected_of(output) == {"cut.jpg": "truncated"}
    assert not {"features", "rejected", "_ledger"} & {file.name for file in output.iterdir()}
    # A changed photograph is one, from now on as before.
    os.utime(next(images.glob("*/*.jpg")), ns=(1, 1))
    assert go(images, output, max_rejected=0.5).counts.featurized == 1


def test_killed_before_and_after_the_commit_it_goes_on(
    images: Path, tmp_path: Path, monkeypatch
) -> None:
    from verger.chain import features as chain_features

    output = tmp_path / "out"
    features = old_features(output)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("take_over", "remove_old"):
        with monkeypatch.context() as patch:
            patch.setattr(chain_features, name, die)
            with pytest.raises(KeyboardInterrupt):
                go(images, output, max_rejected=0.5)
    assert (output / "_ledger").exists()
    assert go(images, output, max_rejected=0.5).counts.reused == 8
    pd.testing.assert_frame_equal(features_of(output), features)
    assert not (output / "_ledger").exists()


def test_another_precision_is_refused_and_a_pca_of_it_is_taken(
    images: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="label_from"):
        go(images, tmp_path / "out", label_from="none")
    assert (tmp_path / "out/_ledger").exists()
    manifest = go(images, tmp_path / "new", model=str(tmp_path / "out"), max_rejected=0.5)
    assert manifest.components == 3
    assert (tmp_path / "out/_ledger").exists()


def test_fresh_leaves_nothing_of_it_though_it_be_damaged(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    (output / "_ledger/ledger.json").write_text("{")
    with pytest.raises(SetupError, match="is damaged") as raised:
        go(images, output)
    assert "--fresh" in raised.value.hint
    assert go(images, output, fresh=True, max_rejected=0.5).counts.featurized == 8
    assert not {"features", "rejected", "_ledger"} & {file.name for file in output.iterdir()}
    assert table_of(output).counts() == {"featurized": 8, "rejected": 1}
