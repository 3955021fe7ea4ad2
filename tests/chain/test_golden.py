"""The features are those of the network that the bundled weights were trained for."""

from typing import Literal

import numpy as np
import pytest

from golden.make_golden import GOLDEN, digest, make_pixels
from verger.networks.engines import Features, Pixels, engine_for
from verger.networks.graph import load_backbone
from verger.networks.mobilenet_v2 import build_model
from verger.networks.weights import find_weights

TOLERANCE = 1e-3
"""What may lie between two engines, or two processors."""
EXACT = 1e-4
"""What lies between PyTorch and the Keras model: rounding, of features up to 4.6."""


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return make_pixels()


@pytest.fixture(scope="module")
def golden(pixels: Pixels) -> Features:
    with np.load(GOLDEN) as saved:
        assert str(saved["pixels_sha256"]) == digest(pixels)
        return saved["features"]


def largest_difference(ours: Features, golden: Features) -> float:
    assert ours.shape == golden.shape == (4, 1280)
    assert ours.dtype == np.float32
    return float(np.abs(ours - golden).max())


def test_the_golden_features_say_something(golden: Features) -> None:
    assert golden.min() == 0
    assert golden.max() > 1
    apart = np.abs(golden[:, None] - golden[None]).max(axis=-1)
    assert apart[np.triu_indices(4, 1)].min() > 100 * TOLERANCE


@pytest.mark.tensorflow
def test_the_keras_model_is_the_pytorch_network(pixels: Pixels, golden: Features) -> None:
    features = build_model(find_weights("bundled")).predict_on_batch(pixels)
    assert largest_difference(features, golden) < EXACT


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["openvino", "tensorflow"])
def test_each_engine_is_the_pytorch_network(
    name: Literal["openvino", "tensorflow"], pixels: Pixels, golden: Features
) -> None:
    features = engine_for(load_backbone(engine=name)).features(pixels)
    assert largest_difference(features, golden) < TOLERANCE


@pytest.mark.tensorflow
def test_the_engines_agree(pixels: Pixels) -> None:
    openvino = engine_for(load_backbone(engine="openvino")).features(pixels)
    tensorflow = engine_for(load_backbone(engine="tensorflow")).features(pixels)
    assert largest_difference(openvino, tensorflow) < TOLERANCE
