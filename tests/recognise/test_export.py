"""The file for phones answers as the server does."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from helpers import go, verger
from verger.errors import UsageError
from verger.images.decoding import Picture
from verger.images.views import split
from verger.output.layout import ListedImage, Output
from verger.recognise.export_tflite import export_tflite, run_tflite
from verger.recognise.photo import Photographer
from verger.recognise.recogniser import load_recogniser
from verger.store.location import Location

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("spark")]


@pytest.mark.parametrize("views", [1, 6])
def test_it_answers_as_the_server_does(orchard: Path, tmp_path: Path, views: int) -> None:
    import tensorflow as tf

    go(orchard, tmp_path / "out", views=views)
    done = verger("export", tmp_path / "out", tmp_path / "f.tflite", *(["--half"] * (views > 1)))
    assert done.returncode == 0, done.stderr
    assert " MB, cosines within 0.00" in done.stdout
    output = Output(Location(str(tmp_path / "out")))
    recogniser = load_recogniser(output)
    photographer = Photographer.of(output, recogniser.record)
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


def test_another_network_is_refused(orchard: Path, tmp_path: Path) -> None:
    go(orchard, tmp_path / "out", network="efficientnet_lite2")
    output = Output(Location(str(tmp_path / "out")))
    recogniser = load_recogniser(output)
    assert len(recogniser.discriminant.mean) == 1280
    photographer = Photographer.of(output, recogniser.record)
    with pytest.raises(UsageError, match="Only MobileNetV2"):
        export_tflite(recogniser, photographer)
