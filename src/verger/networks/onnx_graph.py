"""A network as ONNX: each operation of its OpenVINO graph as the one that ONNX has for it."""

import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from verger.errors import SetupError, UsageError
from verger.networks.graph import Backbone

OPSET, IR_VERSION = 20, 10
"""Of ONNX, of 2024: what reads it since then can run the graph."""

LEAST_HALVED = 1024
"""Smaller arrays are not worth two bytes a number."""


class OnnxGraph:
    """Nodes that are added one by one, each of which gives one value.

    Args:
        half: keep large arrays in 16 bits a number; it is computed with 32 all the same.

    Raises:
        SetupError: the package onnx is not installed.
    """

    def __init__(self, *, half: bool = False) -> None:
        try:
            import onnx
        except ImportError as error:
            raise onnx_is_missing(error) from error
        self.onnx: Any = onnx
        self.half = half
        self.nodes: list[Any] = []
        self.arrays: list[Any] = []

    def add(self, kind: str, *inputs: Any, name: str = "", **attributes: Any) -> str:
        """Add an operation.

        Args:
            kind: what ONNX calls it.
            inputs: names of values, or numbers: those with a fraction become float32, others int64.
            name: of its value; one is made if not given.
            attributes: of the operation.

        Returns:
            The name of its value.
        """
        value = name or f"{kind}_{len(self.nodes)}"
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        self.nodes.append(self.onnx.helper.make_node(kind, names, [value], **attributes))
        return value

    def cast(self, value: str, kind: str) -> str:
        """Add a change of type: to FLOAT, UINT8 or INT64."""
        return self.add("Cast", value, to=getattr(self.onnx.TensorProto, kind))

    def _constant(self, numbers: Any) -> str:
        array = np.array(numbers, order="C")
        array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        halved = self.half and array.dtype == np.float32 and array.size >= LEAST_HALVED
        name = f"array_{len(self.arrays)}"
        kept = array.astype(np.float16) if halved else array
        self.arrays.append(self.onnx.numpy_helper.from_array(kept, name))
        return self.cast(name, "FLOAT") if halved else name


def onnx_is_missing(error: ImportError) -> SetupError:
    """What to say where ONNX is needed and not installed."""
    return SetupError(f"This needs ONNX: {error}", 'Install it: pip install "verger[onnx]".')


def add_network(graph: OnnxGraph, backbone: Backbone, pixels: str) -> str:
    """Add a network.

    Args:
        graph: to which.
        backbone: for OpenVINO.
        pixels: the name of a value, uint8 (n, side, side, 3).

    Returns:
        The name of the features, float32 (n, width).

    Raises:
        UsageError: the network has an operation that is not known here.
    """
    import openvino

    with zipfile.ZipFile(io.BytesIO(backbone.payload)) as archive:
        model = openvino.Core().read_model(archive.read("graph.xml"), archive.read("graph.bin"))
    values: dict[str, str] = {}
    for operation in model.get_ordered_ops():
        kind, name = operation.get_type_name(), operation.get_friendly_name()
        sources = [source.get_node() for source in operation.input_values()]
        if kind == "Constant":
            continue  # added where it is used, in the form that is wanted there
        if kind == "Parameter":
            values[name] = pixels
        elif kind == "Result":
            return values[sources[0].get_friendly_name()]
        elif kind in _TRANSLATIONS:
            inputs = [
                source.data if source.get_type_name() == "Constant"
                else values[source.get_friendly_name()]
                for source in sources
            ]  # fmt: skip
            values[name] = _TRANSLATIONS[kind](graph, inputs, operation.get_attributes())
        else:
            raise UsageError(
                f"The network {backbone.network.name} has {kind}, which the export does not know.",
                "Export an output with the bundled weights.",
            )
    raise AssertionError("an OpenVINO model ends with a result")


Translation = Callable[[OnnxGraph, list[Any], dict[str, Any]], str]
"""Adds an operation from its inputs (names of values, or arrays) and OpenVINO's attributes."""


def _same(kind: str) -> Translation:
    """An operation without attributes, that both have."""
    return lambda graph, inputs, _: graph.add(kind, *inputs)


def _convolve(graph: OnnxGraph, inputs: list[Any], attributes: dict[str, Any]) -> str:
    value, kernel = inputs
    groups = 1
    if kernel.ndim == 5:  # noqa: PLR2004 - OpenVINO has an axis for groups, and ONNX has not
        groups = len(kernel)
        kernel = kernel.reshape(-1, *kernel.shape[2:])
    padding = (
        {"auto_pad": "SAME_UPPER"}
        if attributes["auto_pad"] == "same_upper"
        else {"pads": [*attributes["pads_begin"], *attributes["pads_end"]]}
    )
    given = {"strides": attributes["strides"], "dilations": attributes["dilations"], **padding}
    return graph.add("Conv", value, kernel, group=groups, **given)


def _resize(graph: OnnxGraph, inputs: list[Any], _: dict[str, Any]) -> str:
    """The one that `efficientnet_lite` builds: linear, of two axes, to a size."""
    value, sizes, axes = inputs
    return graph.add("Resize", value, "", "", sizes, mode="linear", antialias=1, axes=axes.tolist())


_TYPES = {"f32": "FLOAT", "u8": "UINT8"}

_TRANSLATIONS: dict[str, Translation] = {
    "Add": _same("Add"),
    "Clamp": lambda graph, inputs, of: graph.add("Clip", *inputs, of["min"], of["max"]),
    "Concat": lambda graph, inputs, of: graph.add("Concat", *inputs, axis=of["axis"]),
    "Convert": lambda graph, inputs, of: graph.cast(inputs[0], _TYPES[of["destination_type"]]),
    "Convolution": _convolve,
    "Divide": _same("Div"),
    "GroupConvolution": _convolve,
    "Interpolate": _resize,
    "Multiply": _same("Mul"),
    "NormalizeL2": lambda graph, inputs, _: graph.add("LpNormalization", inputs[0], axis=1, p=2),
    "ReduceMean": lambda graph, inputs, of: graph.add(
        "ReduceMean", *inputs, keepdims=int(of["keep_dims"])
    ),
    "Round": _same("Round"),
    "Subtract": _same("Sub"),
    "Transpose": lambda graph, inputs, _: graph.add(
        "Transpose", inputs[0], perm=inputs[1].tolist()
    ),
}
