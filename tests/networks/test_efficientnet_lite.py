"""EfficientNet-Lite2 in OpenVINO's graph, block by block against TensorFlow; and both networks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golden.make_golden import make_pixels
from verger.errors import SetupError, UsageError
from verger.networks import weights
from verger.networks.efficientnet_lite import build_graph
from verger.networks.engines import engine_for
from verger.networks.graph import load_backbone, save_backbone
from verger.networks.registry import BOTH, NETWORKS
from verger.networks.torch_file import read_torch_weights
from verger.networks.weights import Array, find_lite_weights
from verger.settings import make_settings


@pytest.fixture(scope="module")
def tensors() -> dict[str, Array]:
    return read_torch_weights(find_lite_weights().path)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Four pictures of 260 pixels a side, from those of 224."""
    return np.pad(make_pixels()[:4], ((0, 0), (18, 18), (18, 18), (0, 0)), mode="reflect")


def by_tensorflow(tensors: dict[str, Array], pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What each block gives, by TensorFlow's own convolutions and batch normalisation."""
    import tensorflow as tf

    def normalised(value: Any, name: str) -> Any:
        gamma, beta, mean, variance = (
            tensors[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return tf.nn.batch_normalization(value, mean, variance, beta, gamma, 1e-3)

    def convolved(value: Any, name: str, stride: int = 1) -> Any:
        kernel, steps = tensors[f"{name}.weight"], [1, stride, stride, 1]
        if "depthwise" in name:
            return tf.nn.depthwise_conv2d(value, kernel.transpose(2, 3, 0, 1), steps, "SAME")
        return tf.nn.conv2d(value, kernel.transpose(2, 3, 1, 0), steps, "SAME")

    value = (pixels.astype(np.float32) - 127) / 128
    value = tf.nn.relu6(normalised(convolved(value, "_conv_stem", 2), "_bn0"))
    found = {}
    # As the published tables unroll for Lite2: stride 2 at these blocks, alone or first of a stage.
    for number in range(21):
        name, before = f"_blocks.{number}.", value
        if f"{name}_expand_conv.weight" in tensors:
            value = tf.nn.relu6(normalised(convolved(value, f"{name}_expand_conv"), f"{name}_bn0"))
        stride = 2 if number in {1, 4, 7, 15} else 1
        value = convolved(value, f"{name}_depthwise_conv", stride)
        value = tf.nn.relu6(normalised(value, f"{name}_bn1"))
        value = normalised(convolved(value, f"{name}_project_conv"), f"{name}_bn2")
        if value.shape == before.shape and number:
            value = value + before
        found[name] = value.numpy()
    value = tf.nn.relu6(normalised(convolved(value, "_conv_head"), "_bn1"))
    found["features"] = tf.reduce_mean(value, [1, 2]).numpy()
    return found


@pytest.mark.tensorflow
def test_every_block_gives_what_tensorflow_gives(
    tensors: dict[str, Array], pixels: np.ndarray
) -> None:
    import openvino

    expected = by_tensorflow(tensors, pixels[:1])
    graph = build_graph(tensors)
    blocks = [name for name in expected if name != "features"]
    nodes = {node.get_friendly_name(): node for node in graph.get_ops()}
    graph.add_outputs([nodes[name].output(0) for name in blocks])
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    outputs = openvino.Core().compile_model(graph, "CPU", options)([pixels[:1]])
    assert len(blocks) == 21
    for number, name in enumerate(["features", *blocks]):
        found, wanted = outputs[number], expected[name]
        if found.ndim == 4:
            found = found.transpose(0, 2, 3, 1)
        assert np.abs(found - wanted).max() < 1e-3 * np.abs(wanted).max(), name


def test_both_are_side_by_side_each_of_length_one(pixels: np.ndarray) -> None:
    both = engine_for(load_backbone(network=BOTH.name)).features(pixels)
    assert both.shape == (4, BOTH.width)
    first, second = both[:, :1280], both[:, 1280:]
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
    alone = engine_for(load_backbone(network="efficientnet_lite2")).features(pixels)
    alone /= np.linalg.norm(alone, axis=1, keepdims=True)
    np.testing.assert_allclose(second, alone, atol=1e-4)
    # MobileNetV2 sees the same pictures at 224 pixels, by another filter than Pillow's.
    from PIL import Image

    small = [np.asarray(Image.fromarray(picture).resize((224, 224), 3)) for picture in pixels]
    of_first = engine_for(load_backbone()).features(np.array(small))
    of_first /= np.linalg.norm(of_first, axis=1, keepdims=True)
    assert ((of_first * first).sum(axis=1) > 0.98).all()


def test_a_saved_one_remembers_its_network(tmp_path: Path) -> None:
    made = load_backbone(network="efficientnet_lite2")
    save_backbone(made, tmp_path / "saved.zip")
    opened = load_backbone(str(tmp_path / "saved.zip"), network="efficientnet_lite2")
    assert opened.network == made.network
    assert opened.payload == made.payload
    with pytest.raises(UsageError, match="--network efficientnet_lite2"):
        load_backbone(str(tmp_path / "saved.zip"))


def test_what_it_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="OpenVINO alone"):
        load_backbone("bundled", "tensorflow", network="efficientnet_lite2")
    monkeypatch.setattr(weights, "LITE_PACKAGE", "no_such_package")
    with pytest.raises(SetupError, match="not installed") as caught:
        load_backbone(network="efficientnet_lite2")
    assert "verger[efficientnet]" in caught.value.hint


def test_the_setting_names_all_networks() -> None:

    for name in (*NETWORKS, "keras:ResNet50"):
        assert make_settings(input="in", output="out", network=name).network == name
    for name in ("resnet50", "keras:", "keras:../x", "keras:a b"):
        with pytest.raises(UsageError, match=r"--network: mobilenet_v2, .* or keras:NAME"):
            make_settings(input="in", output="out", network=name)
