"""Network and recogniser in one ONNX file, which takes a picture of any size."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verger.datasets.demo import KINDS, render
from verger.errors import DefectError, UsageError
from verger.images.views import SQUARES
from verger.networks.onnx_graph import IR_VERSION, OPSET, OnnxGraph, add_network, onnx_is_missing
from verger.recognise.photo import Photographer
from verger.recognise.recogniser import Recogniser
from verger.reduce.moments import Float64

TOLERANCE = 0.01
"""By how much cosines of the file may differ from those of the server: they range from -1 to 1."""

CHECKED, CHECKED_SIZE = 4, (320, 241)
"""How many rendered photographs are compared, and their width and height."""

A = -0.5
"""Of the bicubic filter, in Pillow."""

PICTURE = "picture"
OUTPUTS = PROBABILITIES, COSINES, SURE = "probabilities", "cosines", "sure"


def export_onnx(
    recogniser: Recogniser, photographer: Photographer, *, half: bool = False
) -> tuple[bytes, float]:
    """A file that takes a picture and gives the server's answer.

    Its input `picture` is uint8, (height, width, 3) in RGB, of any size. Its outputs are
    `probabilities` and `cosines`, float32 (classes,), and `sure`, a bool: whether the picture
    looks like any of the classes. Its metadata are `labels`, a list in JSON, and `recogniser`,
    the record in JSON with temperature and threshold.

    Args:
        recogniser: that answers.
        photographer: of the same output.
        half: keep the numbers in 16 bits: half the size.

    Returns:
        The file, and by how much its cosines differ at most from the server's, on rendered
        photographs.

    Raises:
        UsageError: the output is of TensorFlow or in bfloat16.
        SetupError: ONNX or its runtime is not installed.
        DefectError: the file does not answer as the server does.
    """
    backbone = photographer.backbone
    if backbone.engine != "openvino" or backbone.precision != "f32":
        raise UsageError(
            f"Only outputs of OpenVINO in f32 can be exported, not of {backbone.engine} in "
            f"{backbone.precision}.",
            "Run with --engine openvino --precision f32 into another output.",
        )
    data = _build(recogniser, photographer, half=half)
    return data, _compare(data, recogniser, photographer)


def _build(recogniser: Recogniser, photographer: Photographer, *, half: bool) -> bytes:
    graph = OnnxGraph(half=half)
    views = _add_views(graph, photographer.backbone.network.side, photographer.views)
    features = add_network(graph, photographer.backbone, views)
    if photographer.views > 1:
        features = graph.add("LpNormalization", features, axis=1, p=2)
    features = graph.add("ReduceMean", features, [0], keepdims=1)
    _add_answer(graph, recogniser, features)
    helper, types = graph.onnx.helper, graph.onnx.TensorProto
    describe, classes = helper.make_tensor_value_info, [len(recogniser.labels)]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "verger",
            [describe(PICTURE, types.UINT8, ["height", "width", 3])],
            [
                describe(PROBABILITIES, types.FLOAT, classes),
                describe(COSINES, types.FLOAT, classes),
                describe(SURE, types.BOOL, []),
            ],
            graph.arrays,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="verger",
    )
    record = recogniser.record.model_dump_json()
    helper.set_model_props(model, {"labels": json.dumps(recogniser.labels), "recogniser": record})
    graph.onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def _add_views(graph: OnnxGraph, side: int, views: int) -> str:
    """What `verger.images.views` cuts, uint8 (views, side, side, 3)."""
    picture = graph.add("Unsqueeze", graph.add("Transpose", PICTURE, perm=[2, 0, 1]), [0])
    like_pillow: dict[str, Any] = {"cubic_coeff_a": A, "antialias": 1, "exclude_outside": 1}
    whole = graph.add("Resize", picture, "", "", [1, 3, side, side], mode="cubic", **like_pillow)
    squares = [_add_square(graph, picture, side, share) for share in SQUARES[: (views - 1) // 2]]
    both = []
    for view in (whole, *squares):
        both += [view, graph.add("Slice", view, [-1], [-side - 1], [3], [-1])]
    stacked = graph.add("Concat", *both[:views], axis=0)
    return graph.add("Transpose", stacked, perm=[0, 2, 3, 1])


def _add_square(graph: OnnxGraph, picture: str, side: int, share: float) -> str:
    """The middle of a picture, of its shorter side a share, as Pillow's bicubic filter resizes it.

    ONNX's own operation would begin at a whole pixel. Pillow's: src/libImaging/Resample.c.
    """
    add = graph.add
    size = graph.cast(add("Shape", PICTURE, end=2), "FLOAT")
    part = add("Mul", add("ReduceMin", size, keepdims=1), share)
    left = add("Mul", add("Sub", size, part), 0.5)
    step = add("Div", part, float(side))
    stretch = add("Max", step, 1.0)
    reach = add("Mul", stretch, 2.0)
    start = add("Floor", add("Max", add("Sub", left, reach), 0.0))
    end = add("Min", add("Ceil", add("Sum", left, part, reach)), size)
    ends = [graph.cast(each, "INT64") for each in (start, end)]
    value = graph.cast(add("Slice", picture, *ends, [2, 3]), "FLOAT")
    middles = add("Mul", step, np.arange(side) + 0.5)
    for axis in (1, 0):
        first, last = (add("Gather", each, axis) for each in (start, end))
        pixels = add("Unsqueeze", add("Range", first, last, 1.0), [1])
        centres = add("Sub", add("Add", middles, add("Gather", left, axis)), 0.5)
        distances = add("Div", add("Abs", add("Sub", pixels, centres)), stretch)
        weights = _add_bicubic(graph, distances)
        shares = add("Div", weights, add("ReduceSum", weights, [0]))
        # Pillow rounds after each axis, too.
        value = add("Clip", add("Round", add("MatMul", value, shares)), 0.0, 255.0)
        value = add("Transpose", value, perm=[0, 1, 3, 2])
    return graph.cast(value, "UINT8")


def _add_bicubic(graph: OnnxGraph, distances: str) -> str:
    """Keys, "Cubic convolution interpolation", 1981: zero from a distance of 2 on."""
    near = _add_polynomial(graph, graph.add("Clip", distances, 0.0, 1.0), A + 2, -A - 3, 0.0, 1.0)
    far = _add_polynomial(graph, graph.add("Clip", distances, 1.0, 2.0), A, -5 * A, 8 * A, -4 * A)
    return graph.add("Add", near, far)


def _add_polynomial(graph: OnnxGraph, value: str, *coefficients: float) -> str:
    """By Horner's rule; the coefficient of the highest power comes first."""
    result: Any = coefficients[0]
    for coefficient in coefficients[1:]:
        result = graph.add("Add", graph.add("Mul", result, value), coefficient)
    return str(result)


def _add_answer(graph: OnnxGraph, recogniser: Recogniser, features: str) -> None:
    """Features, (1, d), to the outputs."""
    found, record = recogniser.discriminant, recogniser.record
    projected = graph.add("MatMul", graph.add("Sub", features, found.mean), found.directions)
    vector = graph.add("LpNormalization", projected, axis=1, p=2)
    products = graph.add("MatMul", vector, recogniser.means.T)
    cosines = graph.add("Squeeze", products, [0], name=COSINES)
    graph.add("Softmax", graph.add("Div", cosines, record.temperature), name=PROBABILITIES)
    best = graph.add("ReduceMax", cosines, keepdims=0)
    graph.add("GreaterOrEqual", best, record.threshold, name=SURE)


def _compare(data: bytes, recogniser: Recogniser, photographer: Photographer) -> float:
    apart = 0.0
    answer = open_onnx(data)
    for kind in KINDS[:CHECKED]:
        photograph = render(kind, 0, 1).resize(CHECKED_SIZE)
        views = np.asarray(photographer.resize(photograph))
        expected = recogniser.cosines(photographer.reduce(views)[None])[0]
        found = answer(np.asarray(photograph))[COSINES]
        apart = max(apart, difference(found, expected))
    return apart


def difference(found: NDArray[np.floating], expected: Float64) -> float:
    """By how much cosines of a file differ at most from the server's.

    Raises:
        DefectError: by more than `TOLERANCE`.
    """
    apart = float(np.abs(found - expected).max())
    if not apart <= TOLERANCE:  # nor may it be no number
        raise DefectError(f"The exported file differs from the server by {apart:.3f}.")
    return apart


def open_onnx(data: bytes) -> Callable[[NDArray[np.uint8]], dict[str, NDArray[Any]]]:
    """What gives the outputs of a file for a picture, by their names.

    Raises:
        SetupError: the runtime of ONNX is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise onnx_is_missing(error) from error
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return lambda picture: dict(zip(OUTPUTS, session.run(OUTPUTS, {PICTURE: picture}), strict=True))
