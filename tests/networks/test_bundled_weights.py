"""The weights and the graph that come with verger are those of the published file."""

import io
import os
import pickle
from pathlib import Path

import bundle_weights
import numpy as np
import pytest
from bundle_weights import keras_arrays

from golden.make_golden import make_pixels
from verger.errors import SetupError
from verger.networks import weights
from verger.networks.engines import engine_for
from verger.networks.graph import load_backbone
from verger.networks.mobilenet_v2 import build_model
from verger.networks.torch_file import UnreadableError, read_torch_weights
from verger.networks.weights import Array, bundled_bytes, find_weights


@pytest.fixture(scope="module")
def tensors() -> dict[str, Array]:
    return read_torch_weights(bundle_weights.source())


def test_the_bundled_arrays_are_those_of_the_published_file(tensors: dict[str, Array]) -> None:
    with np.load(io.BytesIO(bundled_bytes("weights.npz")), allow_pickle=False) as bundled:
        carried = list(bundled.values())
    published = keras_arrays(tensors)
    assert len(carried) == len(published) == 260
    assert all(map(np.array_equal, carried, published))


@pytest.mark.tensorflow
def test_the_bundled_graph_computes_what_the_keras_model_does() -> None:
    pixels = make_pixels()
    expected = build_model(find_weights("bundled")).predict_on_batch(pixels)
    found = engine_for(load_backbone("bundled")).features(pixels)
    assert np.abs(found - expected).max() < 1e-4
    assert expected.std() > 0.1


@pytest.mark.parametrize("name", weights.BUNDLED_DIGESTS)
@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_damaged_bundled_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: str
) -> None:
    data = bytearray(bundled_bytes(name))
    data[len(data) // 2] ^= 1
    if damage == "altered":
        (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(weights, "BUNDLED", tmp_path)
    with pytest.raises(SetupError, match="missing or altered") as caught:
        load_backbone("bundled", "openvino" if name == "graph.zip" else "tensorflow")
    assert caught.value.exit_code == 5
    assert "pip install" in caught.value.hint


class Command:
    """Pickles to a call of os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("before", [0, 3], ids=["first", "as-the-state"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_with_a_command_is_refused_and_not_run(
    tmp_path: Path, before: int, protocol: int
) -> None:
    file, trace = tmp_path / "evil.pt", tmp_path / "executed"
    evil = pickle.dumps(Command(f"touch '{trace}'"), protocol)
    file.write_bytes(pickle.dumps(1) * before + evil)
    with pytest.raises(UnreadableError, match="not admitted"):
        read_torch_weights(file)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["builtins eval", "torch load", "collections Counter"])
def test_other_names_are_not_admitted(tmp_path: Path, name: str) -> None:
    file = tmp_path / "evil.pt"
    file.write_bytes(f"c{name.replace(' ', chr(10))}\n.".encode())
    with pytest.raises(UnreadableError, match="not admitted"):
        read_torch_weights(file)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.9999])
def test_a_cut_file_is_refused(tmp_path: Path, share: float) -> None:
    data = bundle_weights.source().read_bytes()
    file = tmp_path / "cut.pt"
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UnreadableError):
        read_torch_weights(file)


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(1) * 3 + pickle.dumps([]) + pickle.dumps([]),
        pickle.dumps(1) * 3 + pickle.dumps({"a": 1}) + pickle.dumps([]),
        b"\x80\x02K\x01Q.",
        b"\x80\x02ctorch\nFloatStorage\n)R.",
        b"\x80\x02}]a.",
    ],
    ids=[
        "list-as-state",
        "number-as-tensor",
        "bad-persistent-id",
        "call-of-dtype",
        "append-to-dict",
    ],
)
def test_pickles_that_are_no_state_dictionary_are_setup_errors(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "odd.pt"
    file.write_bytes(data)
    with pytest.raises(UnreadableError):
        read_torch_weights(file)
