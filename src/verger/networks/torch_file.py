"""Weights that PyTorch wrote, read without PyTorch, and without running what a pickle may hold."""

import pickle
import struct
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from verger.networks.weights import Array


class UnreadableError(Exception):
    """The file is not a PyTorch state dictionary of plain tensors."""


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
