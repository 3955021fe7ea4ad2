"""EfficientNet-Lite2 as a graph of OpenVINO's: no top, average-pooled, its preprocessing inside.

EfficientNet-B0 without squeeze-and-excitation and with ReLU6, scaled to 1.1 of the width, 1.2 of
the depth and 260 pixels; stem and head keep their size. Tan and Le, "EfficientNet", 2019,
arXiv:1905.11946; the Lite family: github.com/tensorflow/tpu, models/official/efficientnet/lite.
"""

import io
import math
import zipfile
from typing import Any

import numpy as np

from verger.networks.registry import BOTH, EFFICIENTNET_LITE2, MOBILENET_V2
from verger.networks.weights import Array, bundled_bytes

STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
"""Of each stage the blocks of B0 and the stride of the first; widths are in the weights."""

SHAPE = [1, EFFICIENTNET_LITE2.side, EFFICIENTNET_LITE2.side, 3]
DEPTH = 1.2
EPSILON = 1e-3
"""Of batch normalisation, in all EfficientNets."""


def build_graph(tensors: dict[str, Array]) -> Any:
    """An `openvino.Model` from uint8 pixels, (n, 260, 260, 3), to float32 features, (n, 1280)."""
    import openvino
    from openvino import opset13 as ops

    pixels = ops.parameter(SHAPE, np.uint8, name="pixels")
    return openvino.Model([_features(tensors, pixels)], [pixels], EFFICIENTNET_LITE2.name)


def _features(tensors: dict[str, Array], pixels: Any) -> Any:
    from openvino import opset13 as ops

    # An array: of a scalar the type would be guessed.
    scaled = (ops.convert(pixels, "f32") - np.array(127, np.float32)) / np.array(128, np.float32)
    value = ops.transpose(scaled, np.array([0, 3, 1, 2]))
    value = _convolve(tensors, value, "_conv_stem", "_bn0", stride=2)
    number = 0
    for stage, (blocks, stride) in enumerate(STAGES):
        first_or_last = stage in {0, len(STAGES) - 1}
        for repeat in range(blocks if first_or_last else math.ceil(blocks * DEPTH)):
            name = f"_blocks.{number}."
            before, number = value, number + 1
            if f"{name}_expand_conv.weight" in tensors:
                value = _convolve(tensors, value, f"{name}_expand_conv", f"{name}_bn0")
            step = 1 if repeat else stride
            value = _convolve(tensors, value, f"{name}_depthwise_conv", f"{name}_bn1", stride=step)
            value = _convolve(tensors, value, f"{name}_project_conv", f"{name}_bn2", linear=True)
            if repeat:
                value = value + before
            value.set_friendly_name(name)
    value = _convolve(tensors, value, "_conv_head", "_bn1")
    return ops.reduce_mean(value, np.array([2, 3]), keep_dims=False)


def _convolve(
    tensors: dict[str, Array],
    value: Any,
    name: str,
    normalisation: str,
    *,
    stride: int = 1,
    linear: bool = False,
) -> Any:
    """Convolution with TensorFlow's padding, batch normalisation folded into it, and ReLU6."""
    from openvino import opset13 as ops

    gamma, beta, mean, variance = (
        tensors[f"{normalisation}.{part}"]
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + EPSILON)
    kernel = tensors[f"{name}.weight"] * scale[:, None, None, None]
    convolve = ops.convolution
    if "depthwise" in name:
        convolve, kernel = ops.group_convolution, kernel[:, None]
    steps, kernel = [stride, stride], np.ascontiguousarray(kernel)
    value = convolve(value, kernel, steps, [0, 0], [0, 0], [1, 1], auto_pad="same_upper")
    value = value + (beta - mean * scale).reshape(1, -1, 1, 1)
    return value if linear else ops.clamp(value, 0.0, 6.0)


def build_both(tensors: dict[str, Array]) -> Any:
    """The same after the features of the bundled MobileNetV2, each scaled to length one: 2560.

    Raises:
        SetupError: the bundled MobileNetV2 is missing or altered.
    """
    import openvino
    from openvino import opset13 as ops

    with zipfile.ZipFile(io.BytesIO(bundled_bytes("graph.zip"))) as archive:
        first = openvino.Core().read_model(archive.read("graph.xml"), archive.read("graph.bin"))
    pixels = ops.parameter(SHAPE, np.uint8, name="pixels")
    side = MOBILENET_V2.side
    smaller = ops.interpolate(
        ops.convert(pixels, "f32"),
        np.array([side, side], np.int64),
        "linear",
        "sizes",
        coordinate_transformation_mode="half_pixel",
        antialias=True,
        axes=np.array([1, 2], np.int64),
    )
    (theirs,) = first.get_parameters()
    rounded = ops.convert(ops.round(smaller, "half_to_even"), "u8")
    theirs.output(0).replace(rounded.output(0))
    of_first = first.get_results()[0].input_value(0)
    sides = [of_first, _features(tensors, pixels).output(0)]
    scaled = [ops.normalize_l2(side, np.array([1]), 1e-12, "add") for side in sides]
    return openvino.Model([ops.concat(scaled, 1)], [pixels], BOTH.name)
