"""Network and recogniser in one TFLite file, for phones; TensorFlow makes it."""

import contextlib
import io
import json
import os
import warnings
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verger.errors import UsageError
from verger.images.views import split
from verger.networks.graph import Backbone
from verger.networks.mobilenet_v2 import build_model
from verger.networks.registry import MOBILENET_V2
from verger.networks.weights import tensorflow_is_missing
from verger.recognise.export_onnx import difference
from verger.recognise.photo import Photographer
from verger.recognise.recogniser import Recogniser
from verger.reduce.moments import Float64


def export_tflite(
    recogniser: Recogniser, photographer: Photographer, *, half: bool = False
) -> tuple[bytes, float]:
    """A file that takes views and gives the cosines of the classes.

    Its input is uint8, (views, side, side, 3) in RGB, as `verger.images.views` cuts them; its
    output is float32, (1, classes). `labels.txt` and `recogniser.json`, with temperature and the
    threshold of "not sure", are in a zip at its end, where TFLite's tools look for such files.

    Args:
        recogniser: that answers.
        photographer: of the same output.
        half: keep the numbers in 16 bits: half the size.

    Returns:
        The file, and by how much its cosines differ at most from the server's, on a picture of
        noise.

    Raises:
        UsageError: the network is not MobileNetV2, or is in bfloat16.
        SetupError: there is no TensorFlow.
        DefectError: the file does not answer as the server does.
    """
    backbone = photographer.backbone
    if backbone.network != MOBILENET_V2 or backbone.precision != "f32":
        raise UsageError(
            f"Only MobileNetV2 in f32 can be exported, not {backbone.network.name} in "
            f"{backbone.precision}.",
            "Run with --network mobilenet_v2 into another output.",
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow as tf
    except ImportError as error:
        raise tensorflow_is_missing(error) from error
    data = _convert(tf, recogniser, backbone, photographer.views, half=half)
    side = backbone.network.side
    noise = np.random.default_rng(0).integers(
        0, 256, (photographer.views * side, side, 3), dtype=np.uint8
    )
    expected = recogniser.cosines(photographer.reduce(noise)[None])[0]
    apart = difference(run_tflite(tf, data, split(noise)), expected)
    file = io.BytesIO(data)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("labels.txt", "\n".join(recogniser.labels) + "\n")
        about = recogniser.record.model_dump(mode="json") | {"labels": recogniser.labels}
        archive.writestr("recogniser.json", json.dumps(about, indent=2))
    return file.getvalue(), apart


def _convert(
    tf: Any, recogniser: Recogniser, backbone: Backbone, views: int, *, half: bool
) -> bytes:
    import keras

    found, side = recogniser.discriminant, backbone.network.side
    mean, directions, means = (
        numbers.astype(np.float32) for numbers in (found.mean, found.directions, recogniser.means.T)
    )

    def answer(features: Any) -> Any:
        if views > 1:
            features = tf.math.l2_normalize(features, axis=1)
        features = tf.reduce_mean(features, axis=0, keepdims=True)
        vector = tf.math.l2_normalize(tf.matmul(features - mean, directions), axis=1)
        return tf.matmul(vector, means)

    pixels = keras.Input(batch_shape=(views, side, side, 3), dtype="uint8", name="pixels")
    shape = (len(recogniser.labels),)
    cosines = keras.layers.Lambda(answer, output_shape=shape)(build_model(backbone.weights)(pixels))
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(pixels, cosines))
    if half:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    # Keras prints what it saves on the way.
    with contextlib.redirect_stdout(io.StringIO()):
        data: bytes = converter.convert()
    return data


def run_tflite(tf: Any, data: bytes, views: NDArray[np.uint8]) -> Float64:
    """The cosines, (classes,), that a file gives for views, (views, side, side, 3)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the interpreter is to move to another package
        interpreter = tf.lite.Interpreter(model_content=data)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], views)
    interpreter.invoke()
    output = interpreter.get_output_details()[0]["index"]
    cosines: Float64 = interpreter.get_tensor(output)[0].astype(np.float64)
    return cosines
