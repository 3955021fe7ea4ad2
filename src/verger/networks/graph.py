"""The backbone as it is broadcast: carried by verger, or made from a Keras model and cached."""

import contextlib
import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from verger.errors import SetupError, UsageError
from verger.networks.efficientnet_lite import build_both, build_graph
from verger.networks.keras_application import build_application
from verger.networks.mobilenet_v2 import build_model
from verger.networks.registry import BOTH, KERAS, MOBILENET_V2, NETWORKS, Network
from verger.networks.torch_file import read_torch_weights
from verger.networks.weights import (
    Weights,
    bundled_bytes,
    find_lite_weights,
    find_weights,
    no_such_file,
    sha256,
    tensorflow_is_missing,
)
from verger.output.manifest import BackboneRecord, EngineRecord
from verger.store.location import cache_folder

FORMAT = "2"
"""Part of every cache key: raise it when `build_model` changes what it computes."""

EngineName = Literal["openvino", "tensorflow"]
Precision = Literal["f32", "bf16"]


@dataclass(frozen=True)
class Backbone:
    """What a worker needs to build its engine; about 9 MB when pickled for the broadcast.

    Attributes:
        engine: `openvino` or `tensorflow`.
        precision: `f32` or `bf16`.
        weights: where the numbers come from.
        payload: for OpenVINO a zip of the graph (`graph.xml`, `graph.bin`); for TensorFlow a
            `.npz` of the arrays that `model_from_arrays` takes, in their order.
        network: which one it is.
    """

    engine: EngineName
    precision: Precision
    weights: Weights
    payload: bytes
    network: Network = MOBILENET_V2

    @property
    def record(self) -> BackboneRecord:
        """For the manifest."""
        weights = self.weights
        return BackboneRecord(
            name=self.network.name,
            width=self.network.width,
            weights=weights.name,
            sha256=weights.sha256,
            source=weights.source,
            licence=weights.licence,
        )

    @property
    def engine_record(self) -> EngineRecord:
        """For the manifest: what runs it."""
        return EngineRecord(
            name=self.engine, version=engine_version(self.engine), precision=self.precision
        )


def load_backbone(
    weights: str = "bundled",
    engine: EngineName = "openvino",
    precision: Precision = "f32",
    network: str = MOBILENET_V2.name,
) -> Backbone:
    """Find the weights and turn them into the payload of an engine.

    The bundled weights come with the payload of both engines. For others TensorFlow makes it, once:
    then it is cached. A file that `save_backbone` wrote has it.

    Raises:
        SetupError: the weights are missing or do not fit, or TensorFlow is needed and missing.
        UsageError: `weights` is neither a known name nor a file, or is for another engine
            or network.
    """
    if zipfile.is_zipfile(weights):
        return _open_backbone(Path(weights), engine, precision, network)
    if network.startswith(KERAS):
        return _load_application(network, weights, engine, precision)
    if network != MOBILENET_V2.name:
        return _load_lite(NETWORKS[network], weights, engine, precision)
    file = find_weights(weights)
    if file.name == "bundled":
        carried = bundled_bytes("graph.zip" if engine == "openvino" else "weights.npz")
        return Backbone(engine, precision, file, carried)

    def make() -> Backbone:
        return Backbone(engine, precision, file, payload_of(build_model(file), engine))

    return _kept((file.convention, file.sha256), engine, precision, network, make)


def _load_lite(
    network: Network, weights: str, engine: EngineName, precision: Precision
) -> Backbone:
    if engine != "openvino" or weights != "bundled":
        raise UsageError(
            f"--network {network.name} has weights of its own, and runs on OpenVINO alone.",
            "Leave out --weights and --engine.",
        )
    found = find_lite_weights()
    build = build_both if network is BOTH else build_graph
    payload = _zip_graph(build(read_torch_weights(found.path)))
    return Backbone(engine, precision, found, payload, network)


def _load_application(
    network: str, weights: str, engine: EngineName, precision: Precision
) -> Backbone:
    """An application of Keras', kept in the cache as `save_backbone` writes it."""
    file = Path(weights)
    if weights not in {"bundled", "keras"} and not file.is_file():
        raise no_such_file(weights)

    def make() -> Backbone:
        model, found, origin = build_application(network.removeprefix(KERAS), weights)
        return Backbone(engine, precision, origin, payload_of(model, engine), found)

    digest = sha256(file) if file.is_file() else "imagenet"
    return _kept((network, digest), engine, precision, network, make)


def _kept(
    key: tuple[str, str],
    engine: EngineName,
    precision: Precision,
    network: str,
    make: Callable[[], Backbone],
) -> Backbone:
    """What `make` builds by TensorFlow, once: then it is in the cache, as by `save_backbone`."""
    words = "-".join((FORMAT, version("openvino"), engine, engine_version("keras"), *key))
    name = hashlib.sha256(words.encode()).hexdigest()[:32]
    cached = cache_folder() / f"backbone-{name}.zip"
    with contextlib.suppress(SetupError):
        return _open_backbone(cached, engine, precision, network)
    with _quiet():
        backbone = make()
    # A cache that cannot be written costs time on the next run, nothing else.
    with contextlib.suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as scratch:
            whole = Path(scratch, cached.name)
            save_backbone(backbone, whole)
            whole.replace(cached)
    return backbone


def save_backbone(backbone: Backbone, path: Path) -> None:
    """Write a file that `--weights` takes where there is no TensorFlow, as on a cluster.

    It is a zip of `payload` and `backbone.json`: the engine, the payload's digest and where the
    weights come from.
    """
    about = {
        "engine": backbone.engine,
        "network": asdict(backbone.network),
        "sha256": hashlib.sha256(backbone.payload).hexdigest(),
        "weights": asdict(backbone.weights) | {"path": ""},
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("backbone.json", json.dumps(about, indent=2))
        archive.writestr("payload", backbone.payload)


def _open_backbone(path: Path, engine: EngineName, precision: Precision, network: str) -> Backbone:
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read("backbone.json"))
            payload = archive.read("payload")
        weights = Weights(**about["weights"] | {"path": path})
        made_for, digest = about["engine"], about["sha256"]
        of_network = Network(**about["network"])
    except (KeyError, TypeError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise SetupError(
            f"{path} is a zip, but not a whole backbone: {error}.",
            "Give 'bundled', 'keras', a .weights.h5 file, or make the file again.",
        ) from error
    if digest != hashlib.sha256(payload).hexdigest():
        raise SetupError(f"{path} is damaged: its digest does not fit.", "Make the file again.")
    if made_for != engine:
        raise UsageError(f"{path} was made for --engine {made_for}.", "Say so, or make another.")
    if of_network.name != network:
        raise UsageError(f"{path} is of --network {of_network.name}.", "Say so, or make another.")
    return Backbone(engine, precision, weights, payload, of_network)


def engine_version(engine: str) -> str:
    """The version of an engine's package, without loading it; empty where it is not installed."""
    try:
        return version(engine)
    except PackageNotFoundError:
        # TensorFlow comes in packages of several names; looking through all of them takes a second.
        return next((version(name) for name in packages_distributions().get(engine, ())), "")


def payload_of(model: Any, engine: EngineName) -> bytes:
    """What an engine is built of, from a Keras model; see `Backbone`."""
    if engine == "tensorflow":
        buffer = io.BytesIO()
        np.savez(buffer, *model.get_weights())
        return buffer.getvalue()
    from openvino.tools.ovc import convert_model

    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model"
        model.export(str(saved), format="tf_saved_model", verbose=False)
        return _zip_graph(convert_model(saved))


def _zip_graph(graph: Any) -> bytes:
    """A zip of an `openvino.Model`, as the engine takes it."""
    import openvino

    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        # OpenVINO halves the weights to fp16 unless told not to.
        openvino.save_model(graph, Path(folder) / "graph.xml", compress_to_fp16=False)
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name in ("graph.xml", "graph.bin"):
                archive.write(Path(folder) / name, name)
    return buffer.getvalue()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Have TensorFlow say nothing, and say what to do where it is missing."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    # TensorFlow announces oneDNN on stderr whatever its log level, and building has no use for it.
    given = os.environ.get("TF_ENABLE_ONEDNN_OPTS")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        yield
    except ImportError as error:
        raise tensorflow_is_missing(error) from error
    finally:
        if given is None:  # workers inherit the environment, and compute with it
            del os.environ["TF_ENABLE_ONEDNN_OPTS"]
