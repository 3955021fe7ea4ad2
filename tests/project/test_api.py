"""The functions of `import verger`: their examples run, and they give what the command gives."""

import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import verger
from helpers import features_of, matrix_of
from verger.datasets.packing import pack
from verger.errors import InputError, UsageError
from verger.steps import extraction, reduction
from verger.store.location import Location

HEAVY = {"pyspark", "tensorflow", "keras", "pyarrow", "openvino", "boto3", "numpy", "plotly"}


@pytest.fixture(scope="module")
def steps(orchard: Path, tmp_path_factory, spark) -> dict[str, object]:
    """The steps of the chain, gone through once."""
    output = str(tmp_path_factory.mktemp("steps"))
    images = verger.list_images(str(orchard))
    # With a column of somebody's own, which is no matter.
    marked = images.selectExpr("*", "'train' as part_of")
    features, rejected = verger.extract(marked, str(orchard), output)
    pca = verger.fit_pca(features, components=5)
    verger.write_matrix(verger.transform(features, pca), pca, output)
    return {"images": images, "features": features, "rejected": rejected, "pca": pca, "at": output}


@pytest.mark.parametrize(
    "example",
    [
        found
        for module in (verger.steps, extraction, reduction)
        for found in doctest.DocTestFinder().find(module)
        if found.examples
    ],
    ids=lambda example: example.name,
)
def test_examples_run(example, steps, orchard: Path, tmp_path: Path) -> None:
    shared = {name: steps[name] for name in ("images", "features", "pca")}
    example.globs |= {"verger": verger, "INPUT": str(orchard), "OUTPUT": str(tmp_path), **shared}
    said: list[str] = []
    assert doctest.DocTestRunner().run(example, out=said.append).failed == 0, "".join(said)


def test_steps_give_the_matrix_of_a_run(steps, sound: Path) -> None:
    ours = steps["features"].toPandas().sort_values("path").reset_index(drop=True)
    pd.testing.assert_frame_equal(ours, features_of(sound)[["path", "label", "features"]])
    ours, theirs = matrix_of(Path(str(steps["at"]))), matrix_of(sound)
    assert list(ours.columns) == list(theirs.columns)
    assert list(ours.path) == list(theirs.path)
    np.testing.assert_allclose(ours.iloc[:, 2:], theirs.iloc[:, 2:], atol=1e-9)


def test_no_image_gives_no_row(steps, orchard: Path, tmp_path: Path) -> None:
    none = steps["images"].limit(0)
    features, rejected = verger.extract(none, str(orchard), str(tmp_path / "out"))
    assert (features.count(), rejected.count()) == (0, 0)


def test_the_pca_is_found_again_in_its_output(steps) -> None:
    loaded = verger.load_pca(str(steps["at"]))
    np.testing.assert_allclose(loaded.components, steps["pca"].components)


def test_a_file_that_is_no_image_is_rejected_with_its_reason(orchard: Path, tmp_path, spark):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(next(orchard.glob("*/*.jpg")).read_bytes())
    (folder / "b.jpg").write_bytes(b"no image")
    images = verger.list_images(str(folder))
    features, rejected = verger.extract(images, str(folder), str(tmp_path / "out"))
    assert [row.path for row in features.collect()] == ["a.jpg"]
    assert [(row.path, row.reason) for row in rejected.collect()] == [("b.jpg", "corrupt")]


def test_nothing_is_replaced_unless_asked(steps, orchard: Path, tmp_path: Path) -> None:
    images = steps["images"].limit(2)
    verger.extract(images, str(orchard), str(tmp_path))
    with pytest.raises(UsageError, match="fresh"):
        verger.extract(images, str(orchard), str(tmp_path))
    features, _ = verger.extract(images.limit(1), str(orchard), str(tmp_path), fresh=True)
    assert features.count() == 1


def test_an_output_of_a_run_is_left_alone(steps, orchard: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    scores = verger.transform(steps["features"], steps["pca"])
    with pytest.raises(UsageError, match="output of `run`"):
        verger.write_matrix(scores, steps["pca"], str(tmp_path), fresh=True)


def test_a_wrong_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="wave-size"):
        verger.run(str(tmp_path), str(tmp_path / "out"), wave_size=0)


def test_a_map_takes_a_single_component_and_refuses_no_rows(steps) -> None:
    scores = verger.transform(steps["features"], verger.fit_pca(steps["features"], 1))
    assert verger.draw_map(scores).svg.count("<circle") == 24
    with pytest.raises(InputError, match="no scores"):
        verger.draw_map(scores.limit(0))


@pytest.mark.spark
def test_a_picture_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("no image")
    gone = verger.list_images(str(tmp_path)).first()
    (tmp_path / "notes.jpg").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        verger.preprocess(str(tmp_path), gone)
    (tmp_path / "notes.jpg").write_text("no image")
    with pytest.raises(InputError, match="corrupt"):
        verger.preprocess(str(tmp_path), verger.list_images(str(tmp_path)).first())


@pytest.mark.spark
def test_a_packed_picture_is_what_the_file_was(orchard: Path, tmp_path: Path) -> None:
    pack(Location(str(orchard)), Location(str(tmp_path)))
    kept = verger.list_images(str(tmp_path), limit=1).first()
    file = verger.list_images(str(orchard), limit=1).first()
    assert kept.path == file.path
    same = verger.preprocess(str(tmp_path), kept) == verger.preprocess(str(orchard), file)
    assert same.all()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no file"):
        verger.list_images(str(tmp_path))


def test_importing_loads_nothing_heavy() -> None:
    code = f"import sys, verger; dir(verger); print(*({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'prune'"):
        _ = verger.prune
    assert "extract" in dir(verger)
    assert set(verger.__all__) == set(verger.steps.__all__)
