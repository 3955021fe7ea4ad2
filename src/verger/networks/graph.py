"""The backbone as it is broadcast: carried by verger, or made from a Keras model and cached."""

import contextlib
import hashlib
import io
import json
import os
import tempfile
import zipfile
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from verger.errors import SetupError, UsageError
from verger.networks.registry import BOTH, MOBILENET_V2, NETWORKS, Network
from verger.networks.weights import (
    Weights,
    bundled_bytes,
    find_lite_weights,
    find_weights,
    tensorflow_is_missing,
)
from verger.output.manifest import BackboneRecord, EngineRecord
from verger.store.cache import cache_folder

FORMAT = "1"
"""Part of every cache key: raise it when `build_model` changes what it computes."""


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

    engine: Literal["openvino", "tensorflow"]
    precision: Literal["f32", "bf16"]
    weights: Weights
    payload: bytes
    network: Network = MOBILENET_V2

    @property
    def record(self) -> BackboneRecord:
        """For the manifest."""
        weights = self.weights
        return BackboneRecord(
            name=self.network.name,
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
    engine: Literal["openvino", "tensorflow"] = "openvino",
    precision: Literal["f32", "bf16"] = "f32",
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
    if network != MOBILENET_V2.name:
        return _load_lite(NETWORKS[network], weights, engine, precision)
    file = find_weights(weights)
    if file.name == "bundled":
        carried = bundled_bytes("graph.zip" if engine == "openvino" else "weights.npz")
        return Backbone(engine, precision, file, carried)
    maker = export_openvino if engine == "openvino" else _export_arrays
    keras = engine_version("keras")
    key = "-".join((FORMAT, engine, version("openvino"), keras, file.convention, file.sha256))
    cached = cache_folder() / f"backbone-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
    payload = _read_cached(cached)
    if payload is None:
        payload = maker(file)
        _write_cached(cached, payload)
    return Backbone(engine, precision, file, payload)


def _load_lite(
    network: Network,
    weights: str,
    engine: Literal["openvino", "tensorflow"],
    precision: Literal["f32", "bf16"],
) -> Backbone:
    if engine != "openvino" or weights != "bundled":
        raise UsageError(
            f"--network {network.name} has weights of its own, and runs on OpenVINO alone.",
            "Leave out --weights and --engine.",
        )
    from verger.networks.efficientnet_lite import build_from_file

    found = find_lite_weights()
    payload = _zip_graph(build_from_file(found.path, both=network is BOTH))
    return Backbone(engine, precision, found, payload, network)


def save_backbone(backbone: Backbone, path: Path) -> None:
    """Write a file that `--weights` takes where there is no TensorFlow, as on a cluster.

    It is a zip of `payload` and `backbone.json`: the engine, the payload's digest and where the
    weights come from.
    """
    weights = asdict(backbone.weights) | {"path": ""}
    about = {
        "engine": backbone.engine,
        "network": backbone.network.name,
        "sha256": _digest(backbone.payload),
        "weights": weights,
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("backbone.json", json.dumps(about, indent=2))
        archive.writestr("payload", backbone.payload)


def _open_backbone(
    path: Path,
    engine: Literal["openvino", "tensorflow"],
    precision: Literal["f32", "bf16"],
    network: str,
) -> Backbone:
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read("backbone.json"))
            payload = archive.read("payload")
        weights = Weights(**about["weights"] | {"path": path})
        made_for, digest = about["engine"], about["sha256"]
        of_network = about.get("network", MOBILENET_V2.name)
    except (KeyError, TypeError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise SetupError(
            f"{path} is a zip, but not a whole backbone: {error}.",
            "Give 'bundled', 'keras', a .weights.h5 file, or make the file again.",
        ) from error
    if digest != _digest(payload):
        raise SetupError(f"{path} is damaged: its digest does not fit.", "Make the file again.")
    if made_for != engine:
        raise UsageError(f"{path} was made for --engine {made_for}.", "Say so, or make another.")
    if of_network != network:
        raise UsageError(f"{path} is of --network {of_network}.", "Say so, or make another.")
    return Backbone(engine, precision, weights, payload, NETWORKS[network])


def _digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def engine_version(engine: str) -> str:
    """The version of an engine's package, without loading it; empty where it is not installed."""
    try:
        return version(engine)
    except PackageNotFoundError:
        # TensorFlow comes in packages of several names; looking through all of them takes a second.
        return next((version(name) for name in packages_distributions().get(engine, ())), "")


def _read_cached(path: Path) -> bytes | None:
    """The payload, unless it is absent or is not what was written: its digest comes first."""
    try:
        digest, payload = path.read_bytes().split(b"\n", maxsplit=1)
    except (OSError, ValueError):
        return None
    return payload if _digest(payload).encode() == digest else None


def _write_cached(path: Path, payload: bytes) -> None:
    # A cache that cannot be written costs time on the next run, nothing else.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(_digest(payload).encode() + b"\n" + payload)
        Path(file.name).replace(path)


def export_openvino(weights: Weights) -> bytes:
    """A zip of the graph that OpenVINO makes of the Keras model; TensorFlow is needed."""
    import openvino

    model = _build_quietly(weights)
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model"
        model.export(str(saved), format="tf_saved_model", verbose=False)
        return _zip_graph(openvino.convert_model(saved))


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


def _export_arrays(weights: Weights) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, *_build_quietly(weights).get_weights())
    return buffer.getvalue()


def _build_quietly(weights: Weights) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    # TensorFlow announces oneDNN on stderr whatever its log level, and building has no use for it.
    given = os.environ.get("TF_ENABLE_ONEDNN_OPTS")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        from verger.networks.mobilenet_v2 import build_model

        return build_model(weights)
    except ImportError as error:
        raise tensorflow_is_missing(error) from error
    finally:
        if given is None:  # workers inherit the environment, and compute with it
            del os.environ["TF_ENABLE_ONEDNN_OPTS"]
