"""What a run leaves to recognise by, and the two commands that use it, on the small orchard."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from helpers import features_of, go, verger
from verger.cli.main import app
from verger.errors import InputError, SetupError, UsageError
from verger.images.listing import list_input
from verger.output.layout import Output
from verger.progress import Progress
from verger.recognise import evaluate as evaluating
from verger.recognise.evaluate import Photographs, evaluate, read_photographs
from verger.recognise.photo import open_recogniser
from verger.recognise.recogniser import Recogniser, load_recogniser, read_record
from verger.reduce.discriminant import LEAST_DIMENSIONS
from verger.store.location import Location

pytestmark = pytest.mark.usefixtures("spark")


def output_at(folder: Path) -> Output:
    return Output(Location(str(folder)))


@pytest.fixture(scope="module")
def recogniser(sound: Path) -> Recogniser:
    return load_recogniser(output_at(sound))


@pytest.fixture(scope="module")
def trained(orchard: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The output of four photographs of each kind, and the folder of the two others."""
    folder = tmp_path_factory.mktemp("trained")
    for photo in orchard.rglob("*.jpg"):
        part = "new" if photo.stem in {"r_1_100", "r_4_100"} else "known"
        target = folder / part / photo.relative_to(orchard)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, target)
    go(folder / "known", folder / "out")
    return folder / "out", folder / "new"


def test_a_run_leaves_one_that_knows_all_classes(recogniser: Recogniser, orchard: Path) -> None:
    kinds = sorted(path.name for path in orchard.iterdir())
    assert list(recogniser.labels) == kinds
    assert recogniser.record.images == len(recogniser.paths) == 24
    assert recogniser.record.absent == ""
    assert recogniser.record.shrinkage in recogniser.record.shrinkages
    assert recogniser.references.shape == (24, LEAST_DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(recogniser.references, axis=1), 1, atol=1e-6)


def test_classify_names_the_class_and_the_photograph_itself(sound: Path, orchard: Path) -> None:
    photo = sorted(orchard.rglob("*.jpg"))[7]
    done = verger("classify", photo, "--in", sound, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["photo"] == str(photo)
    assert answer["sure"] is True
    assert answer["guesses"][0]["label"] == photo.parent.name
    assert sum(guess["confidence"] for guess in answer["guesses"]) == pytest.approx(1)
    assert answer["similar"][0]["path"] == str(photo.relative_to(orchard))
    assert answer["similar"][0]["similarity"] == pytest.approx(1, abs=1e-3)


def test_a_bad_file_is_a_line_and_the_others_are_answered(
    sound: Path, orchard: Path, tmp_path: Path
) -> None:
    photo = next(orchard.rglob("*.jpg"))
    (tmp_path / "cut.jpg").write_bytes(photo.read_bytes()[:900])
    (tmp_path / "note.jpg").write_text("no image")
    names = [tmp_path / "cut.jpg", photo, tmp_path / "note.jpg", tmp_path / "gone.jpg"]
    done = verger("classify", *names, "--in", sound, "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("reason") for line in lines] == [
        "truncated", None, "not_an_image", "unreadable"
    ]  # fmt: skip
    shown = verger("classify", *names, "--in", sound)
    assert "note.jpg: not_an_image" in shown.stderr
    assert photo.parent.name in shown.stdout
    alone = verger("classify", names[0], "--in", sound)
    assert alone.returncode == InputError.exit_code
    assert "None of the files" in alone.stderr
    assert "HEIC" in alone.stderr


def test_evaluate_measures_what_was_not_fitted(trained: tuple[Path, Path], tmp_path: Path) -> None:
    output, new = trained
    foreign = tmp_path / "new"
    shutil.copytree(new, foreign)
    (foreign / "Brick").mkdir()
    Image.new("RGB", (90, 90), "firebrick").save(foreign / "Brick" / "1.png")
    (foreign / "notes.txt").write_text("no image")
    done = verger("evaluate", foreign, "--in", output, "--json")
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["images"] == 8
    assert measured["classes"] == 4
    assert measured["foreign"] == 1
    assert measured["rejected"] == {"not_an_image": 1}
    assert 0.5 < measured["top1"] <= measured["top5"] == 1
    assert 0 <= measured["ece"] < 0.6
    assert sum(score["images"] for score in measured["by_class"]) == 8
    assert sum(pair["images"] for pair in measured["confused"]) == round(8 * (1 - measured["top1"]))
    kept = json.loads((output / "recogniser/evaluation.json").read_text())
    assert kept == measured
    wrong = {(m["image"]["path"], m["image"]["label"]) for m in measured["mistakes"]}
    assert wrong == {(p, pair["label"]) for pair in measured["confused"] for p in pair["examples"]}
    assert measured["input"] == str(foreign)
    shown = verger("evaluate", foreign, "--in", output)
    assert "Hardest classes" in shown.stdout


def test_a_mistake_names_the_nearest_image_of_the_class_that_was_said(
    trained: tuple[Path, Path],
) -> None:
    output, new = trained
    recogniser, photographer = open_recogniser(output_at(output))
    folder = Location(str(new))
    read = read_photographs(folder, list_input(folder), photographer, Progress())
    labels = sorted(recogniser.labels)
    swapped = dict(zip(labels, labels[1:] + labels[:1], strict=True))
    images = [replace(image, label=swapped[image.label]) for image in read.images]
    measured = evaluate(recogniser, replace(read, images=images), 1.0)
    assert measured.top1 < 0.5
    assert measured.mistakes
    assert [m.confidence for m in measured.mistakes] == sorted(
        (m.confidence for m in measured.mistakes), reverse=True
    )
    for mistake in measured.mistakes:
        assert mistake.nearest.startswith(f"{mistake.taken_for}/")
        features = photographer.features((new / mistake.image.path).read_bytes())
        near = recogniser.similar(features, mistake.taken_for)
        assert mistake.nearest == near[0].path
        assert near == sorted(near, key=lambda s: -s.similarity)


def test_of_two_kinds_a_third_is_not_sure(orchard: Path, tmp_path: Path) -> None:
    kinds = sorted(path.name for path in orchard.iterdir())
    for kind in kinds[:2]:
        shutil.copytree(orchard / kind, tmp_path / "in" / kind)
    go(tmp_path / "in", tmp_path / "out")
    recogniser, photographer = open_recogniser(output_at(tmp_path / "out"))
    assert recogniser.discriminant.directions.shape == (1280, LEAST_DIMENSIONS)
    answers = {
        kind: [
            recogniser.answer(photographer.features(photo.read_bytes()))
            for photo in sorted((orchard / kind).iterdir())
        ]
        for kind in kinds
    }
    for kind in kinds[:2]:
        assert all(answer.guesses[0].label == kind for answer in answers[kind])
        assert sum(answer.sure for answer in answers[kind]) >= 5
    others = [answer.sure for kind in kinds[2:] for answer in answers[kind]]
    assert sum(others) < len(others) / 2


def test_what_fits_no_recogniser_is_said(
    orchard: Path, tmp_path: Path, trained: tuple[Path, Path]
) -> None:
    kind = next(path for path in orchard.iterdir())
    go(kind, tmp_path / "flat")
    with pytest.raises(UsageError, match="fewer than two classes"):
        load_recogniser(output_at(tmp_path / "flat"))
    with pytest.raises(InputError, match="not an output of verger"):
        load_recogniser(output_at(tmp_path / "nothing"))
    older = tmp_path / "older"
    shutil.copytree(trained[0], older)
    for name, left in (
        ("references.parquet", 100), ("discriminant.npz", 100), ("discriminant.npz", 0),
    ):  # fmt: skip
        file = older / "recogniser" / name
        whole = file.read_bytes()
        file.write_bytes(whole[:left])
        with pytest.raises(SetupError, match="damaged"):
            load_recogniser(output_at(older))
        file.write_bytes(whole)
    load_recogniser(output_at(older))
    shutil.rmtree(older / "recogniser")
    with pytest.raises(UsageError, match="was of another version"):
        load_recogniser(output_at(older))


def test_the_next_run_makes_one_where_an_older_version_made_none(
    orchard: Path, sound: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    go(orchard, output, components=3)
    before = load_recogniser(output_at(output))
    shutil.rmtree(output / "recogniser")
    manifest = go(orchard, output, components=3)
    assert manifest.counts.featurized == 0
    after = load_recogniser(output_at(output))
    np.testing.assert_allclose(after.references, before.references, atol=1e-5)
    assert after.record == before.record


def test_rows_that_are_deleted_leave_it_too(orchard: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(orchard, images)
    go(images, tmp_path / "out")
    gone = min(images.iterdir())
    shutil.rmtree(gone)
    go(images, tmp_path / "out", prune=True)
    recogniser = load_recogniser(output_at(tmp_path / "out"))
    assert gone.name not in recogniser.labels
    assert not [path for path in recogniser.paths if path.startswith(gone.name)]
    shutil.rmtree(min(images.iterdir()))
    shutil.rmtree(min(images.iterdir()))
    go(images, tmp_path / "out", prune=True)
    record = read_record(output_at(tmp_path / "out"))
    assert record is not None
    assert "fewer than two classes" in record.absent
    assert not (tmp_path / "out/recogniser/references.parquet").exists()


def test_views_are_averaged_the_same_way_by_run_and_by_answers(
    orchard: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    go(orchard, output, views=6)
    recogniser, photographer = open_recogniser(output_at(output))
    assert recogniser.record.identity.views == "6"
    rows = features_of(output)
    for path, features in zip(rows.path[::7], rows.features[::7], strict=True):
        found = photographer.features((orchard / path).read_bytes())
        np.testing.assert_allclose(found, features, atol=1e-6)
    assert 0.5 < np.linalg.norm(rows.features[0]) <= 1
    with pytest.raises(UsageError, match="views '6' instead of '1'"):
        go(orchard, output)


def test_calibrating_fits_confidence_to_other_photographs(trained: tuple[Path, Path]) -> None:
    output, new = trained
    before = load_recogniser(output_at(output)).record
    done = verger("evaluate", new, "--in", output, "--calibrate", "--json")
    assert done.returncode == 0, done.stderr
    after = load_recogniser(output_at(output)).record
    assert after.calibrated_on == 8
    changed = {"temperature": 0, "threshold": 0, "calibrated_on": 0}
    assert after.model_copy(update=changed) == before.model_copy(update=changed)


def test_what_a_run_replaced_meanwhile_is_not_measured(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, new = tmp_path / "out", trained[1]
    shutil.copytree(trained[0], output)
    record = output / "recogniser/recogniser.json"
    other = json.dumps(json.loads(record.read_text()) | {"images": 99})

    def read(*arguments: object) -> Photographs:
        record.write_text(other)
        return read_photographs(*arguments)

    monkeypatch.setattr(evaluating, "read_photographs", read)
    done = CliRunner().invoke(app, ["evaluate", str(new), "--in", str(output), "--calibrate"])
    assert done.exit_code == UsageError.exit_code
    assert "another recogniser by now" in done.stderr
    assert record.read_text() == other
