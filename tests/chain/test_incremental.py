"""A bucket that grows every night: what is new, changed, gone, moved, rejected before."""

import json
import os
import shutil
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from PIL import Image

from helpers import (
    assert_same_features,
    features_of,
    go,
    matrix_of,
    output_of,
    rejected_of,
    table_of,
)
from verger.chain import ending, features
from verger.errors import (
    DeadlineReached,
    DefectError,
    InputError,
    SetupError,
    TooManyRejectedError,
    UsageError,
)
from verger.output import files
from verger.output.layout import FILES_SCHEMA
from verger.output.manifest import read_manifest
from verger.output.table import Table

pytestmark = pytest.mark.usefixtures("spark")


@pytest.fixture
def output(images: Path, orchard: Path, sound: Path, tmp_path: Path) -> Path:
    """What a run made of these images, as if it had been here."""
    output = shutil.copytree(sound, tmp_path / "out")
    for record in (output / "manifest.json", *output.glob("files/_delta_log/*.json")):
        record.write_text(record.read_text().replace(str(orchard), str(images)))
    return output


def photos(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.jpg"))


def counts_of(images: Path, output: Path, **options: object) -> dict[str, int]:
    return go(images, output, **options).counts.model_dump()


def test_new_images_are_added_and_the_rest_is_reused(
    images: Path, sound: Path, tmp_path: Path
) -> None:
    newcomer = photos(images)[7]
    shutil.move(newcomer, tmp_path / "later.jpg")
    go(images, tmp_path / "out", components=5)
    shutil.move(tmp_path / "later.jpg", newcomer)
    counts = counts_of(images, tmp_path / "out", components=5)
    assert counts == {"listed": 24, "featurized": 1, "reused": 23, "rejected": 0, "kept": 0}
    assert_same_features(tmp_path / "out", sound)
    np.testing.assert_allclose(
        matrix_of(tmp_path / "out").iloc[:, 2:], matrix_of(sound).iloc[:, 2:],
        atol=1e-9,
    )  # fmt: skip


def test_changed_images_are_replaced(images: Path, tmp_path: Path) -> None:
    go(images, tmp_path / "out", wave_size=8)
    changed, touched = photos(images)[0], photos(images)[20]
    changed.write_bytes(photos(images)[12].read_bytes())
    os.utime(touched, ns=(1, 1))
    counts = counts_of(images, tmp_path / "out", wave_size=8)
    assert counts == {"listed": 24, "featurized": 2, "reused": 22, "rejected": 0, "kept": 0}
    go(images, tmp_path / "whole")
    assert_same_features(tmp_path / "out", tmp_path / "whole")


def test_vanished_images_are_kept_until_they_are_pruned(images: Path, output: Path) -> None:
    gone = photos(images)[3]
    gone.unlink()
    counts = counts_of(images, output)
    assert counts == {"listed": 23, "featurized": 0, "reused": 23, "rejected": 0, "kept": 1}
    assert ", 1 kept" in (output / "report.html").read_text()
    name = str(gone.relative_to(images))
    assert name in set(matrix_of(output).path)
    counts = counts_of(images, output, prune=True)
    assert counts == {"listed": 23, "featurized": 0, "reused": 23, "rejected": 0, "kept": 0}
    assert name not in set(features_of(output).path)
    assert len(matrix_of(output)) == 23


def test_an_erased_image_is_in_no_byte_of_the_output(images: Path, output: Path) -> None:
    me = images / "Cherry/me-in-the-mirror.jpg"
    shutil.copy(photos(images)[3], me)
    bad = images / "Cherry/me-not-quite.jpg"
    bad.write_bytes(me.read_bytes()[:900])
    go(images, output, max_rejected=0.5)
    assert in_words(output, "in-the-mirror")
    assert in_words(output, "not-quite")
    me.unlink()
    bad.unlink()
    go(images, output, prune=True, retain=24, max_rejected=0.5)
    assert in_words(output, "in-the-mirror") == []
    assert in_words(output, "not-quite") == []


def in_words(folder: Path, word: str) -> list[Path]:
    """The files that have a word: in their bytes, or as Parquet in their values."""
    found = []
    for file in folder.rglob("*"):
        if file.is_file():
            values = pq.read_table(file, partitioning=None) if file.suffix == ".parquet" else ""
            if word.encode() in file.read_bytes() or word in str(values and values.to_pylist()):
                found.append(file)
    return found


def test_pruning_a_whole_wave_leaves_nothing_of_it(images: Path, tmp_path: Path) -> None:
    first = photos(images)[:6]
    go(images, tmp_path / "out", limit=6)
    for photo in first:
        photo.unlink()
    counts = counts_of(images, tmp_path / "out", prune=True)
    assert counts == {"listed": 18, "featurized": 18, "reused": 0, "rejected": 0, "kept": 0}
    assert len(features_of(tmp_path / "out")) == 18


def test_rejected_images_are_retried_when_they_changed_or_when_asked(
    images: Path, tmp_path: Path
) -> None:
    cut, sound = photos(images)[5], photos(images)[6].read_bytes()
    cut.write_bytes(sound[:1000])
    output, name = tmp_path / "out", str(cut.relative_to(images))
    options = {"max_rejected": 0.5}
    rejected = {"listed": 24, "featurized": 23, "reused": 0, "rejected": 1, "kept": 0}
    assert counts_of(images, output, **options) == rejected
    file = next((output / "files/outcome=rejected").iterdir())
    # Not retried: it is the rejection of the first run that is there.
    again = {"listed": 24, "featurized": 0, "reused": 23, "rejected": 1, "kept": 0}
    assert counts_of(images, output, **options) == again
    assert file.exists()
    assert counts_of(images, output, retry_rejected=True, **options) == again
    assert not file.exists()
    assert rejected_of(output) == {name: "truncated"}
    cut.write_bytes(sound)
    mended = {"listed": 24, "featurized": 1, "reused": 23, "rejected": 0, "kept": 0}
    assert counts_of(images, output, **options) == mended
    assert rejected_of(output) == {}


def test_a_rejected_image_that_has_gone_is_counted_no_more(images: Path, tmp_path: Path) -> None:
    cut = photos(images)[5]
    cut.write_bytes(b"")
    go(images, tmp_path / "out", max_rejected=0.5)
    cut.unlink()
    counts = counts_of(images, tmp_path / "out", max_rejected=0)
    assert counts == {"listed": 23, "featurized": 0, "reused": 23, "rejected": 0, "kept": 0}


def test_a_limit_takes_nothing_away(images: Path, output: Path) -> None:
    counts = counts_of(images, output, limit=10)
    assert counts == {"listed": 10, "featurized": 0, "reused": 10, "rejected": 0, "kept": 14}
    with pytest.raises(ValueError, match="--limit with --prune"):
        go(images, output, limit=10, prune=True)


def test_nothing_new_leaves_the_matrix_alone(images: Path, output: Path) -> None:
    first = read_manifest(output_of(output))
    assert first is not None
    before = (output / "pca/matrix.csv").stat().st_mtime_ns
    again = go(images, output, components=5)
    assert (output / "pca/matrix.csv").stat().st_mtime_ns == before
    assert again.explained_variance_ratio == first.explained_variance_ratio
    assert (again.status, again.components) == ("complete", 5)
    # The page says what is new about it.
    go(images, output, components=5, credit="Jane Doe")
    assert "Jane Doe" in (output / "report.html").read_text()
    # Other components are another matrix of the same features.
    assert go(images, output, components=4).components == 4
    assert matrix_of(output).shape == (24, 6)


def test_a_deadline_ends_a_run_between_waves_and_the_next_one_goes_on(
    images: Path, tmp_path: Path
) -> None:
    with pytest.raises(DeadlineReached, match="24 images are left"):
        go(images, tmp_path / "out", deadline=datetime.now(timezone.utc))
    assert read_manifest(output_of(tmp_path / "out")).status == "deadline"

    # The first wave may begin, and shows that the second would end too late.
    with pytest.raises(DeadlineReached, match="images are left, and the next wave would end"):
        run_until_pace_is_known(images, tmp_path / "out")
    done = len(features_of(tmp_path / "out"))
    assert 0 < done < 12, "a wave, whose size is about 4"
    manifest = go(images, tmp_path / "out", wave_size=4)
    assert (manifest.status, manifest.counts.reused) == ("complete", done)


def run_until_pace_is_known(images: Path, output: Path) -> None:
    """Waves of 4, and a deadline that the second would miss by its expected length."""
    from verger.spark import waves

    def check(settings, left: int, seconds_an_image: float) -> None:
        waves.check_deadline(settings, left, seconds_an_image and 1e6)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "check_deadline", check)
        go(images, output, wave_size=4, deadline=datetime.now(timezone.utc) + timedelta(hours=1))


def test_an_output_goes_on_with_the_decoding_that_it_has(images: Path, tmp_path: Path) -> None:
    output, other = tmp_path / "out", tmp_path / "other"
    go(images, output, limit=8, exact_decoding=True)
    assert go(images, output).counts.reused == 8
    assert table_of(output).properties["decoding"] == "4"
    go(images, other, limit=8)
    assert table_of(other).properties["decoding"] == "3"
    with pytest.raises(UsageError, match="decoding"):
        go(images, other, exact_decoding=True)
    # A PCA wants features as it was fitted on.
    go(images, tmp_path / "projected", limit=8, model=str(output))
    assert table_of(tmp_path / "projected").properties["decoding"] == "4"
    # As earlier versions made outputs, colours are not what profiles say, and stay so.
    for version in ("1", "2"):
        table_of(other).set_properties({"decoding": version})
        assert go(images, other).counts.rows == 24
        assert table_of(other).properties["decoding"] == version


LATER = ["special", "thumbnail"]
"""Columns that the outputs of earlier versions lack."""


def test_an_output_without_the_later_columns_goes_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    narrow = pa.schema([field for field in FILES_SCHEMA if field.name not in LATER])
    with monkeypatch.context() as patch:
        patch.setattr(files, "FILES_SCHEMA", narrow)
        patch.setattr(Table, "add_columns", lambda _: None)
        patch.setattr(ending, "count_special", lambda _: {})
        go(images, output, limit=8)
    for path in output.glob("files/outcome=*/*.parquet"):
        pq.write_table(pq.read_table(path, partitioning=None).drop_columns(LATER), path)
    for log in output.glob("files/_delta_log/*.json"):
        actions = [json.loads(line) for line in log.read_text().splitlines()]
        for action in actions:
            if "add" in action:
                action["add"]["size"] = (output / "files" / action["add"]["path"]).stat().st_size
        log.write_text("\n".join(map(json.dumps, actions)))
    large = Image.effect_noise((900, 900), 90).convert("RGB")
    large.save(images / "zz-large.jpg")
    assert go(images, output).counts.reused == 8
    rows = DeltaTable(output / "files").to_pandas()
    assert rows.special.dropna().tolist() == ["scaled"]
    for column in LATER:
        assert rows[rows[column].notna()].path.tolist() == ["zz-large.jpg"]
    # And they are merged with those that have it.
    go(images, output, compact_files=1, retry_rejected=True)
    assert sorted(DeltaTable(output / "files").to_pandas().path) == sorted(rows.path)


def test_the_same_tree_elsewhere_needs_rebase_and_computes_nothing(
    images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    go(images, output, wave_size=8)
    shutil.copytree(images, tmp_path / "moved", copy_function=shutil.copy)  # other times
    with pytest.raises(UsageError, match="input") as raised:
        go(tmp_path / "moved", output)
    assert "--rebase" in raised.value.hint
    smaller = photos(tmp_path / "moved")[2]
    smaller.write_bytes(photos(images)[20].read_bytes() + b"\0")
    counts = counts_of(tmp_path / "moved", output, rebase=True)
    assert (counts["featurized"], counts["reused"]) == (1, 23)
    assert str(tmp_path / "moved") in (output / "report.html").read_text()
    # From now on the times of the new place count.
    assert counts_of(tmp_path / "moved", output)["reused"] == 24
    os.utime(photos(tmp_path / "moved")[9], ns=(1, 1))
    assert counts_of(tmp_path / "moved", output)["featurized"] == 1


def test_a_kept_pca_projects_new_images_where_the_model_stays(images: Path, tmp_path: Path) -> None:
    go(images, tmp_path / "out", limit=20, components=4)
    with pytest.raises(UsageError, match="no fitted PCA"):
        go(images, tmp_path / "none", keep_pca=True)
    before = matrix_of(tmp_path / "out")
    model = {file: file.read_bytes() for file in (tmp_path / "out/model").rglob("*.parquet")}
    manifest = go(images, tmp_path / "out", keep_pca=True)
    assert (manifest.components, manifest.counts.rows) == (4, 24)
    after = matrix_of(tmp_path / "out")
    assert len(after) == 24
    old = after[after.path.isin(before.path)].reset_index(drop=True)
    np.testing.assert_allclose(old.iloc[:, 2:], before.iloc[:, 2:], atol=1e-9)
    assert {file: file.read_bytes() for file in model} == model


def test_transform_projects_another_folder_through_a_fitted_pca(
    images: Path, output: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other/Apple Red"
    other.mkdir(parents=True)
    shutil.copy(photos(images)[10], other)
    manifest = go(other.parent, tmp_path / "new", model=str(output))
    fitted = matrix_of(output).iloc[10, 2:].astype(float)
    ours = matrix_of(tmp_path / "new").iloc[0, 2:].astype(float)
    np.testing.assert_allclose(ours, fitted, atol=1e-9)
    assert (manifest.components, manifest.counts.rows) == (5, 1)
    # The model went along, and may be used from there.
    go(other.parent, tmp_path / "newer", model=str(tmp_path / "new/model"))
    np.testing.assert_allclose(
        matrix_of(tmp_path / "newer").iloc[0, 2:].astype(float), fitted, atol=1e-9
    )


def test_a_pca_of_other_features_is_refused(images: Path, output: Path, tmp_path: Path) -> None:
    table_of(output).set_properties({"precision": "bf16"})
    with pytest.raises(UsageError, match="with precision 'bf16' instead of 'f32', views '1' inst"):
        go(images, tmp_path / "new", model=str(output), views=2)
    with pytest.raises(UsageError, match="holds no fitted PCA"):
        go(images, tmp_path / "new", model=str(images))


def test_files_that_no_commit_names_do_not_count_and_are_deleted(
    images: Path, output: Path
) -> None:
    folder = output / "files/outcome=featurized"
    shutil.copy(next(folder.glob("*.parquet")), folder / "of-a-killed-run.parquet")
    (folder / ".half.parquet.partial").write_bytes(b"PAR1")
    counts = counts_of(images, output, components=5)
    assert counts == {"listed": 24, "featurized": 0, "reused": 24, "rejected": 0, "kept": 0}
    assert len(features_of(output)) == 24
    assert {file.name for file in folder.iterdir()} == {
        Path(file.name).name for file in table_of(output).files("featurized")
    }


@pytest.mark.parametrize("gone", [False, True])
def test_a_path_that_is_there_twice_is_an_error(images: Path, output: Path, gone: bool) -> None:
    if gone:
        photos(images)[0].unlink()
    table = table_of(output)
    first = next(file for file in table.files("featurized"))
    again = replace(first, name="outcome=featurized/again.parquet")
    shutil.copy(output / "files" / first.name, output / "files" / again.name)
    table.commit([again], [])
    with pytest.raises(DefectError, match="there twice"):
        go(images, output)
    assert json.loads((output / "manifest.json").read_text())["status"] == "interrupted"


def test_rows_that_were_taken_out_of_the_table_are_made_again(images: Path, output: Path) -> None:
    table = table_of(output)
    some = table.files("featurized")[0]
    table.commit([], [some])
    assert counts_of(images, output)["featurized"] == some.rows
    assert len(features_of(output)) == 24


def test_a_file_that_somebody_deleted_is_said_with_its_remedy(images: Path, output: Path) -> None:
    gone = next((output / "files/outcome=featurized").glob("*.parquet"))
    gone.unlink()
    with pytest.raises(SetupError, match=f"{gone.name} has gone") as raised:
        go(images, output)
    assert "--fresh" in raised.value.hint
    assert go(images, output, fresh=True).counts.featurized == 24


def test_fresh_starts_over_a_table_whose_log_is_damaged(images: Path, output: Path) -> None:
    for log in output.rglob("_delta_log/*.json"):
        log.write_text("{")
    with pytest.raises(SetupError, match="cannot be used") as raised:
        go(images, output)
    assert "--fresh" in raised.value.hint
    assert go(images, output, fresh=True).counts.featurized == 24
    assert len(matrix_of(output)) == 24


def test_the_table_has_a_row_a_file_and_says_which_run_wrote_it(
    images: Path, tmp_path: Path
) -> None:
    (images / "notes.txt").write_text("no image")
    manifest = go(images, tmp_path / "out", wave_size=8)
    table = table_of(tmp_path / "out")
    assert table.counts() == {"featurized": 24, "rejected": 1}
    waves = [
        commit for commit in DeltaTable(tmp_path / "out/files").history() if "featurized" in commit
    ]
    assert len(waves) > 2
    assert {commit["run"] for commit in waves} == {manifest.started_at}
    assert sum(commit["featurized"] for commit in waves) == 24
    assert sum(commit.get("rejected", 0) for commit in waves) == 1


@pytest.mark.parametrize("name", ["files", "model", "pca"])
def test_folders_that_no_run_made_are_never_deleted(
    images: Path, tmp_path: Path, name: str
) -> None:
    own = tmp_path / "project" / name / "own.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(UsageError, match="no run of verger made them"):
        go(images, tmp_path / "project")
    with pytest.raises(UsageError, match="no run of verger made them"):
        go(images, tmp_path / "project", fresh=True)
    assert own.read_text() == "mine"


def test_a_file_under_the_name_of_a_folder_of_results_is_never_deleted(
    images: Path, tmp_path: Path
) -> None:
    own = tmp_path / "project/model"
    own.parent.mkdir()
    own.write_text("mine")
    with pytest.raises(UsageError, match="no run of verger made them"):
        go(images, tmp_path / "project")
    assert own.read_text() == "mine"


def test_an_input_where_results_go_is_refused(images: Path, tmp_path: Path) -> None:
    images.rename(tmp_path / "files")
    with pytest.raises(UsageError, match="where results go"):
        go(tmp_path / "files", tmp_path)
    assert len(photos(tmp_path / "files")) == 24


def test_what_is_refused_with_fresh_has_deleted_nothing(images: Path, output: Path) -> None:
    for wrong in ({"components": 24}, {"model": str(images)}, {"model": str(output)}):
        with pytest.raises(UsageError):
            go(images, output, fresh=True, **wrong)
    assert len(matrix_of(output)) == 24
    assert len(features_of(output)) == 24


def test_transform_follows_the_model_when_that_was_fitted_again(
    images: Path, tmp_path: Path
) -> None:
    model = str(tmp_path / "out")
    go(images, tmp_path / "out", components=4, limit=12)
    go(images, tmp_path / "new", model=model, limit=2)
    before = matrix_of(tmp_path / "new")
    go(images, tmp_path / "out", components=3)
    go(images, tmp_path / "new", model=model, limit=2)
    assert (before.shape, matrix_of(tmp_path / "new").shape) == ((2, 6), (2, 5))


def test_the_variance_of_a_pca_goes_when_another_one_is_taken(
    images: Path, output: Path, tmp_path: Path
) -> None:
    go(images, tmp_path / "other", components=3)
    go(images, output, model=str(tmp_path / "other"))
    assert matrix_of(output).shape == (24, 2 + 3)
    assert not list((output / "pca").glob("variance.csv"))
    assert not list((output / "pca").glob("spectrum.csv"))
    # Without --model it is fitted on these rows, though no image is new.
    assert go(images, output).components == 23
    assert len((output / "pca/variance.csv").read_text().splitlines()) == 1 + 23


def test_a_kept_pca_survives_a_run_with_too_many_rejected(images: Path, output: Path) -> None:
    photos(images)[0].write_bytes(b"")
    with pytest.raises(TooManyRejectedError):
        go(images, output, keep_pca=True, max_rejected=0)
    assert not (output / "pca/matrix.csv").exists()
    go(images, output, keep_pca=True, max_rejected=0.5)
    assert matrix_of(output).shape == (23, 2 + 5)
    # Without --keep-pca it is fitted again, though no image is new.
    go(images, output, max_rejected=0.5)
    assert matrix_of(output).shape == (23, 2 + 22)


def test_a_matrix_outlives_a_store_that_is_forbidden_for_a_night(
    images: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> int:
        raise InputError("The bucket may not be read.")

    monkeypatch.setattr("verger.chain.extract", forbidden)
    with pytest.raises(InputError, match="may not be read"):
        go(images, output)
    for name in ("pca/matrix.csv", "model", "recogniser", "report.html"):
        assert (output / name).exists()


@pytest.mark.parametrize(("left", "words"), [(1, "only one image"), (0, "None of the 1 files")])
def test_a_matrix_does_not_outlive_its_rows(
    images: Path, output: Path, left: int, words: str
) -> None:
    (images / "notes.txt").write_text("no image")
    for photo in photos(images)[left:]:
        photo.unlink()
    with pytest.raises(InputError, match=words):
        go(images, output, prune=True)
    of_all = ("pca", "model", "recogniser", "report.html", "_run/moments.npz")
    assert [name for name in of_all if (output / name).exists()] == []
    assert len(in_words(output, "r_5_100")) == 0
