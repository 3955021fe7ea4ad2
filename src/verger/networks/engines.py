"""Two engines with one interface: pixels in, features out, on one thread of a worker process."""

import contextlib
import io
import os
import zipfile
from collections.abc import Sequence
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from verger.errors import SetupError
from verger.networks.graph import Backbone
from verger.networks.keras_application import application_from_arrays
from verger.networks.mobilenet_v2 import model_from_arrays
from verger.networks.registry import KERAS, Network

Pixels = NDArray[np.uint8]
Features = NDArray[np.float32]


class Engine(Protocol):
    """Runs the backbone.

    Attributes:
        batch_size: images a call.
        network: what it takes and gives.
    """

    batch_size: int
    network: Network

    def features(self, pixels: Pixels) -> Features:
        """Compute features: (n, side, side, 3) uint8 in RGB to (n, width) float32.

        n is at most `batch_size`.
        """


_first = Lock()

_engines: dict[tuple[str, ...], Engine] = {}


def engine_for(backbone: Backbone) -> Engine:
    """The engine of this process for this backbone, built at the first call only.

    Raises:
        SetupError: the engine is not installed, or the processor lacks the precision.
    """
    network, weights = backbone.network.name, backbone.weights.sha256
    key = (backbone.engine, backbone.precision, network, weights)
    if key not in _engines:
        _engines[key] = new_engine(backbone)
    return _engines[key]


def new_engine(backbone: Backbone) -> Engine:
    """An engine of its own, for one thread.

    Raises:
        SetupError: the engine is not installed, or the processor lacks the precision.
    """
    kind = OpenVinoEngine if backbone.engine == "openvino" else TensorFlowEngine
    return kind(backbone)


def check_runs_here(backbone: Backbone) -> None:
    """Refuse a precision that this processor lacks, before anything is done.

    Raises:
        SetupError: it does.
    """
    if backbone.precision != "f32":
        engine_for(backbone)


def mean_of_views(features: Sequence[Features]) -> Features:
    """The features of an image, (width,), from those of its views.

    Those of a single view stay as they are. Of several each counts the same: it is scaled to length
    one before the mean is taken.
    """
    if len(features) == 1:
        return features[0]
    lengths = [np.linalg.norm(view) or 1.0 for view in features]
    mean: Features = np.mean([view / n for view, n in zip(features, lengths, strict=True)], axis=0)
    return mean.astype(np.float32)


class OpenVinoEngine:
    """The graph, compiled by OpenVINO for this processor with a fixed batch."""

    batch_size = 4
    """2 to 8 images stay in the processor's cache, 32 do not."""

    def __init__(self, backbone: Backbone) -> None:
        import openvino

        core = openvino.Core()
        if backbone.precision == "bf16" and "BF16" not in core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise SetupError("This processor has no bfloat16.", "Use --precision f32.")
        with zipfile.ZipFile(io.BytesIO(backbone.payload)) as archive:
            graph = core.read_model(archive.read("graph.xml"), archive.read("graph.bin"))
        self.network = backbone.network
        shape = (self.batch_size, self.network.side, self.network.side, 3)
        graph.reshape([*shape])
        self.compiled: Any = core.compile_model(
            graph,
            "CPU",
            {
                # Not told, OpenVINO picks bfloat16 where the processor has it.
                "INFERENCE_PRECISION_HINT": backbone.precision,
                "INFERENCE_NUM_THREADS": 1,
                "NUM_STREAMS": 1,
                # Pinned, the one thread of every process of a machine goes to the same core.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._request = self.compiled.create_infer_request()
        self._batch = np.zeros(shape, np.uint8)
        # OpenVINO hangs now and then where two threads compute for the first time at once.
        with _first:
            self.features(self._batch)

    def features(self, pixels: Pixels) -> Features:
        """Compute features; a short batch is filled up with what the last one left."""
        self._batch[: len(pixels)] = pixels
        self._request.infer([self._batch], share_inputs=True)
        output: Features = self._request.get_output_tensor().data
        return np.array(output[: len(pixels)])


class TensorFlowEngine:
    """The Keras model, rebuilt from its broadcast weights."""

    batch_size = 4

    def __init__(self, backbone: Backbone) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        try:
            import tensorflow as tf
        except ImportError as error:
            raise SetupError(
                f"--engine tensorflow needs TensorFlow on every worker: {error}",
                'Install it there (pip install "verger[tensorflow]"), or use --engine openvino.',
            ) from error

        # TensorFlow takes no thread count once it has run, as in a driver that made the graph.
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        with np.load(io.BytesIO(backbone.payload)) as arrays:
            numbers = list(arrays.values())
        if backbone.network.name.startswith(KERAS):
            model = application_from_arrays(backbone.network, numbers)
        else:
            model = model_from_arrays(numbers, backbone.weights.convention)
        self.network = backbone.network
        side = self.network.side
        signature = tf.TensorSpec((None, side, side, 3), tf.uint8)
        self._call: Any = tf.function(
            lambda pixels: model(pixels, training=False), input_signature=[signature]
        )

    def features(self, pixels: Pixels) -> Features:
        """Compute features."""
        output: Features = self._call(pixels).numpy()
        return output.reshape(len(pixels), self.network.width)
