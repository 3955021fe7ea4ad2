"""Applications of Keras by name: as Keras computes them, from its own cache; what is refused."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import features_of, verger
from verger.errors import SetupError, UsageError
from verger.networks import keras_application
from verger.networks.engines import engine_for, new_engine
from verger.networks.graph import Backbone, load_backbone, payload_of, save_backbone
from verger.networks.registry import Network
from verger.networks.weights import find_weights

pytestmark = pytest.mark.tensorflow

MOBILENET = "keras:MobileNet"
FILE = "mobilenet_1_0_224_tf_no_top.h5"
"""What Keras looks for in its cache, and takes without a digest."""


@pytest.fixture(scope="module")
def model() -> Any:
    """MobileNet with random numbers that do not fade in its layers (He et al. 2015)."""
    import keras

    random = np.random.default_rng(0)
    made = keras.applications.MobileNet(
        include_top=False, pooling="avg", weights=None, input_shape=(224, 224, 3)
    )

    def filled(array: np.ndarray) -> np.ndarray:
        if array.ndim < 4:
            return array
        depthwise = array.shape[3] == 1
        inputs = np.prod(array.shape[: 2 if depthwise else 3])
        return random.normal(scale=np.sqrt(2 / inputs), size=array.shape)

    made.set_weights([filled(array) for array in made.get_weights()])
    return made


@pytest.fixture(scope="module")
def keras_home(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of Keras' with weights, as after a download."""
    folder = tmp_path_factory.mktemp("keras")
    (folder / "models").mkdir()
    model.save_weights(folder / "models" / "own.weights.h5")
    model.save(folder / "models" / FILE)
    return folder


@pytest.fixture
def cached(keras_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, for this process, with an empty cache of verger's own."""
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(keras_home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return keras_home


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)


def predicted(model: Any, pixels: np.ndarray) -> np.ndarray:
    import keras

    scaled = keras.applications.mobilenet.preprocess_input(pixels.astype(np.float32))
    expected = model.predict(scaled, verbose=0)
    assert expected.std() > 1e-2, "the numbers have not faded"
    return expected


@pytest.mark.parametrize("engine", ["openvino", "tensorflow"])
def test_it_computes_what_keras_does(cached: Path, model: Any, pixels: Any, engine: str) -> None:
    backbone = load_backbone("bundled", engine, network=MOBILENET)
    assert backbone.network == Network(MOBILENET, side=224, width=1024)
    assert backbone.record.weights == "keras"
    found = engine_for(backbone).features(pixels)
    np.testing.assert_allclose(found, predicted(model, pixels), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_weights_of_ones_own_are_taken_from_a_file(cached: Path, model: Any, pixels: Any) -> None:
    own = cached / "models" / "own.weights.h5"
    backbone = load_backbone(str(own), network=MOBILENET)
    assert backbone.record.weights == own.name
    found = engine_for(backbone).features(pixels)
    np.testing.assert_allclose(found, predicted(model, pixels), rtol=1e-3, atol=1e-3)
    with pytest.raises(SetupError, match="does not fit MobileNetV2 without its top"):
        load_backbone(str(own), network="keras:MobileNetV2")
    with pytest.raises(UsageError, match="no such file"):
        load_backbone("nowhere.weights.h5", network=MOBILENET)


def test_a_cluster_needs_neither_keras_nor_tensorflow(
    cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = load_backbone(network=MOBILENET)
    save_backbone(made, tmp_path / "backbone.zip")
    for name in ("keras", "tensorflow"):
        monkeypatch.setitem(sys.modules, name, None)
    opened = load_backbone(str(tmp_path / "backbone.zip"), network=MOBILENET)
    assert (opened.network, opened.payload) == (made.network, made.payload)
    assert load_backbone(network=MOBILENET).payload == made.payload, "it is in the cache"
    with pytest.raises(UsageError, match="is of --network keras:MobileNet"):
        load_backbone(str(tmp_path / "backbone.zip"), network="keras:ResNet50")


@pytest.mark.parametrize("name", ["MobileNet", "ResNet50", "DenseNet121", "EfficientNetB0"])
def test_pixels_are_scaled_as_each_application_wants_it(name: str) -> None:
    import keras

    _, preprocess = keras_application._find(name)
    layers = [keras.Input((32, 32, 3)), keras.layers.GlobalAveragePooling2D()]
    model = keras_application._with_preprocessing(keras.Sequential(layers), preprocess, 32)
    network = Network("means", 32, 3)
    payload = payload_of(model, "openvino")
    backbone = Backbone("openvino", "f32", find_weights("bundled"), payload, network)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    expected = preprocess(pixels.astype(np.float32)).mean(axis=(1, 2))
    np.testing.assert_allclose(new_engine(backbone).features(pixels), expected, atol=1e-3)


def test_what_cannot_be_had_is_said(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keras.src.applications import mobilenet

    with pytest.raises(UsageError, match="no such application") as caught:
        load_backbone(network="keras:AppleNet")
    assert "EfficientNetB0" in caught.value.hint
    with pytest.raises(UsageError, match="no such application"):
        load_backbone(network="keras:imagenet_utils")
    with monkeypatch.context() as patched:
        patched.setattr("keras.src.backend.config._KERAS_DIR", str(cached / "empty"))
        patched.setattr(mobilenet, "BASE_WEIGHT_PATH", "http://127.0.0.1:9/")
        with pytest.raises(SetupError, match="cannot get the ImageNet weights of MobileNet"):
            load_backbone(network=MOBILENET)
    with monkeypatch.context() as patched:
        patched.delattr(mobilenet, "preprocess_input")
        with pytest.raises(UsageError, match="does not say what it wants done to pixels"):
            load_backbone(network=MOBILENET)
    for module in ("keras", "tensorflow"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SetupError, match="needs TensorFlow"):
        load_backbone(network=MOBILENET)


@pytest.mark.slow
def test_the_whole_chain_takes_it(
    spark: object, keras_home: Path, orchard: Path, tmp_path: Path
) -> None:
    # Below a home of its own, so that Keras finds its cache there, as a newcomer's does.
    env = os.environ | {"KERAS_HOME": str(keras_home), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    output = tmp_path / "out"
    done = verger("run", orchard, output, "--network", MOBILENET, "--json", env=env)
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert manifest["backbone"]["name"] == MOBILENET
    assert manifest["backbone"]["width"] == 1024
    assert len(features_of(output).features[0]) == 1024
    assert "of 1,024 features" in (output / "report.html").read_text()
    photo = next(orchard.rglob("*.jpg"))
    answered = verger("classify", photo, "--in", output, "--json", env=env)
    assert json.loads(answered.stdout)["guesses"][0]["label"] == photo.parent.name
    other = verger("run", orchard, output, env=env)
    assert other.returncode == 2
    assert "keras:MobileNet" in other.stderr
    shutil.rmtree(tmp_path / "cache")
    gone = verger("classify", photo, "--in", output, env=env | {"KERAS_HOME": str(tmp_path)})
    assert gone.returncode == 5
    assert "cannot get the ImageNet weights" in gone.stderr
