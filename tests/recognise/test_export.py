"""The files for phones answer as the server does."""

import gzip
import hashlib
import json
import re
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from helpers import go, verger
from verger.errors import DefectError, SetupError, UsageError
from verger.images.decoding import Picture
from verger.images.views import split
from verger.networks.onnx_graph import OnnxGraph
from verger.networks.registry import BOTH
from verger.output.layout import ListedImage, Output
from verger.recognise.export_onnx import (
    COSINES,
    PROBABILITIES,
    SURE,
    TOLERANCE,
    export_onnx,
    open_onnx,
)
from verger.recognise.export_tflite import export_tflite, run_tflite
from verger.recognise.photo import open_recogniser
from verger.recognise.server.pages import FOLDER
from verger.store.location import Location

pytestmark = pytest.mark.usefixtures("spark")


@pytest.fixture(scope="module", params=["mobilenet_v2", "efficientnet_lite2", BOTH.name])
def network(request: pytest.FixtureRequest, orchard: Path, tmp_path_factory) -> Path:
    """The output of each network; the first has six views, so that all squares are cut."""
    folder = tmp_path_factory.mktemp("network") / "out"
    views = 6 if request.param == "mobilenet_v2" else 1
    go(orchard, folder, network=request.param, views=views)
    return folder


@pytest.mark.parametrize("half", [False, True])
def test_onnx_answers_as_the_server_does(
    network: Path, orchard: Path, tmp_path: Path, half: bool
) -> None:
    done = verger("export", network, tmp_path / "f.onnx", *(["--half"] * half))
    assert done.returncode == 0, done.stderr
    assert " MB, cosines within 0.00" in done.stdout
    recogniser, photographer = open_recogniser(Output(Location(str(network))))
    data = (tmp_path / "f.onnx").read_bytes()
    if half:
        assert len(data) < 0.52 * len(export_onnx(recogniser, photographer)[0])
    answer = open_onnx(data)
    for number, file in enumerate(sorted(orchard.rglob("*.jpg"))[::3]):
        # Of several sizes and shapes: squares in the middle begin between pixels.
        size = [(100, 100), (331, 250), (224, 224), (90, 301)][number % 4]
        photo = Image.open(file).resize(size)
        features = photographer.reduce(np.asarray(photographer.resize(photo)))
        cosines = recogniser.cosines(features[None])
        found = answer(np.asarray(photo))
        np.testing.assert_allclose(found[COSINES], cosines[0], atol=TOLERANCE)
        expected = recogniser.confidences(cosines)[0]
        np.testing.assert_allclose(found[PROBABILITIES], expected, atol=0.1 if half else 0.01)
        assert found[PROBABILITIES].argmax() == expected.argmax()
        assert found[SURE] == (cosines.max() >= recogniser.record.threshold)
    metadata = {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}
    assert json.loads(metadata["labels"]) == list(recogniser.labels)
    assert json.loads(metadata["recogniser"])["threshold"] == recogniser.record.threshold


def test_what_cannot_be_exported_is_said(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = verger("export", sound, tmp_path / "fruits.pb")
    assert refused.returncode == 2
    assert "neither .onnx nor .tflite" in refused.stderr
    refused = verger("export", sound, "/proc/nowhere/fruits.onnx")
    assert refused.returncode == 5
    assert "cannot be written" in refused.stderr
    recogniser, photographer = open_recogniser(Output(Location(str(sound))))
    narrow = replace(photographer, backbone=replace(photographer.backbone, precision="bf16"))
    with pytest.raises(UsageError, match="in bf16"):
        export_onnx(recogniser, narrow)
    other = replace(recogniser, means=-recogniser.means)
    data, _ = export_onnx(other, photographer)
    monkeypatch.setattr("verger.recognise.export_onnx._build", lambda *_, **__: data)
    with pytest.raises(DefectError, match="differs from the server"):
        export_onnx(recogniser, photographer)
    for missing in ("onnx", "onnxruntime"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, missing, None)
            with pytest.raises(SetupError, match="needs ONNX"):
                OnnxGraph() if missing == "onnx" else open_onnx(data)


def test_the_runtime_for_browsers_is_the_published_one() -> None:
    folder = FOLDER / "onnxruntime"
    readme = (folder / "README.md").read_text()
    script, program = re.findall(r"`([0-9a-f]{64})`", readme)
    assert hashlib.sha256((folder / "ort.mjs").read_bytes()).hexdigest() == script
    unpacked = gzip.decompress((folder / "ort.wasm.gz").read_bytes())
    assert hashlib.sha256(unpacked).hexdigest() == program


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("views", [1, 6])
def test_tflite_answers_as_the_server_does(orchard: Path, tmp_path: Path, views: int) -> None:
    import tensorflow as tf

    go(orchard, tmp_path / "out", views=views)
    done = verger("export", tmp_path / "out", tmp_path / "f.tflite", *(["--half"] * (views > 1)))
    assert done.returncode == 0, done.stderr
    assert " MB, cosines within 0.00" in done.stdout
    recogniser, photographer = open_recogniser(Output(Location(str(tmp_path / "out"))))
    data = (tmp_path / "f.tflite").read_bytes()
    loader = photographer.loader(Location(str(orchard)))
    for photo in sorted(orchard.rglob("*.jpg"))[::5]:
        image = ListedImage(str(photo.relative_to(orchard)), "", photo.stat().st_size)
        picture = loader(image)
        assert isinstance(picture, Picture)
        pixels = picture.pixels
        found = run_tflite(tf, data, split(pixels))
        expected = recogniser.cosines(photographer.reduce(pixels)[None])[0]
        np.testing.assert_allclose(found, expected, atol=0.01)
        assert recogniser.labels[found.argmax()] == photo.parent.name
    with zipfile.ZipFile(tmp_path / "f.tflite") as archive:
        assert archive.read("labels.txt").decode().splitlines() == list(recogniser.labels)


def test_tflite_takes_no_other_network(orchard: Path, tmp_path: Path) -> None:
    go(orchard, tmp_path / "out", network="efficientnet_lite2")
    recogniser, photographer = open_recogniser(Output(Location(str(tmp_path / "out"))))
    assert len(recogniser.discriminant.mean) == 1280
    with pytest.raises(UsageError, match="Only MobileNetV2"):
        export_tflite(recogniser, photographer)
