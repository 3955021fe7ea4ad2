"""Weights of the user's own, the cache of graphs, and what is asked of the engines."""

import json
import subprocess
import sys
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from verger.errors import SetupError, UsageError
from verger.networks import graph
from verger.networks.engines import engine_for
from verger.networks.weights import find_weights


@pytest.mark.tensorflow
@pytest.mark.slow
def test_a_keras_weights_file_gives_the_features_of_keras(tmp_path: Path, monkeypatch) -> None:
    import keras

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = keras.applications.MobileNetV2(include_top=False, pooling="avg", weights=None,
                                           input_shape=(224, 224, 3))  # fmt: skip
    # Trained numbers: random ones fade to nothing on their way through 53 layers.
    with np.load(find_weights("bundled").path) as arrays:
        model.set_weights(list(arrays.values()))
    model.save_weights(tmp_path / "own.weights.h5")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    scaled = keras.applications.mobilenet_v2.preprocess_input(pixels.astype(np.float32))
    expected = model.predict(scaled, verbose=0)
    backbone = graph.load_backbone(str(tmp_path / "own.weights.h5"))
    assert backbone.weights.convention == "keras"
    np.testing.assert_allclose(engine_for(backbone).features(pixels), expected, atol=1e-3)
    assert expected.std() > 1e-3


@pytest.mark.tensorflow
def test_weights_of_another_network_are_refused(tmp_path: Path, monkeypatch) -> None:
    import keras

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(SetupError, match="does not fit MobileNetV2"):
        graph.load_backbone(str(tmp_path / "other.weights.h5"))


def test_the_graph_is_made_once_and_a_damaged_cache_is_made_again(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = []

    def make(name: str, _: str) -> bytes:
        made.append(name)
        return b"a graph\nof two lines"

    monkeypatch.setattr(graph, "build_model", lambda weights: weights.name)
    monkeypatch.setattr(graph, "payload_of", make)
    (tmp_path / "own.h5").write_bytes(b"weights")
    own = str(tmp_path / "own.h5")
    first = graph.load_backbone(own)
    assert graph.load_backbone(own).payload == first.payload == b"a graph\nof two lines"
    assert made == ["own.h5"]
    cached = next((tmp_path / "verger").iterdir())
    cached.write_bytes(cached.read_bytes()[:-3])
    assert graph.load_backbone(own).payload == first.payload
    assert made == ["own.h5", "own.h5"]


def test_a_saved_backbone_needs_no_tensorflow_and_keeps_where_its_weights_come_from(
    tmp_path: Path,
) -> None:
    made = graph.load_backbone()
    graph.save_backbone(made, tmp_path / "backbone.zip")
    opened = graph.load_backbone(str(tmp_path / "backbone.zip"))
    assert opened == replace(made, weights=replace(made.weights, path=tmp_path / "backbone.zip"))
    with pytest.raises(UsageError, match="made for --engine openvino"):
        graph.load_backbone(str(tmp_path / "backbone.zip"), engine="tensorflow")


@pytest.mark.parametrize("missing", ["backbone.json", "payload", "digest"])
def test_a_saved_backbone_that_is_not_whole_is_refused(tmp_path: Path, missing: str) -> None:
    with zipfile.ZipFile(tmp_path / "backbone.zip", "w") as archive:
        if missing != "backbone.json":
            weights = asdict(find_weights("bundled")) | {"path": ""}
            about = {"engine": "openvino", "sha256": "0" * 64, "weights": weights}
            archive.writestr("backbone.json", json.dumps(about))
        if missing != "payload":
            archive.writestr("payload", b"a graph")
    with pytest.raises(SetupError, match=r"not a whole backbone|is damaged"):
        graph.load_backbone(str(tmp_path / "backbone.zip"))


@pytest.mark.tensorflow
@pytest.mark.slow
def test_a_graph_is_made_without_a_word_of_tensorflow() -> None:
    code = (
        "from verger.networks import graph\n"
        "from verger.networks.mobilenet_v2 import build_model\n"
        "from verger.networks.weights import find_weights\n"
        "with graph._quiet():\n"
        "    graph.payload_of(build_model(find_weights('bundled')), 'openvino')"
    )
    made = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout + made.stderr == ""


def test_where_tensorflow_is_missing_own_weights_say_what_to_install(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("keras", "tensorflow"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "own.h5").write_bytes(b"weights")
    with pytest.raises(SetupError, match="needs TensorFlow") as caught:
        graph.load_backbone(str(tmp_path / "own.h5"))
    assert "verger[tensorflow]" in caught.value.hint


def test_no_engine_pins_its_thread_which_all_workers_would_share() -> None:
    compiled = engine_for(graph.load_backbone()).compiled
    assert compiled.get_property("ENABLE_CPU_PINNING") is False
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
