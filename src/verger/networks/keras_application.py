"""Any application of Keras by its name: no top, average-pooled, its preprocessing inside.

Names, sizes and licences: https://keras.io/api/applications/
"""

import contextlib
import hashlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from verger.errors import SetupError, UsageError
from verger.networks.registry import KERAS, Network
from verger.networks.weights import Array, Weights, sha256


def build_application(name: str, weights: str) -> tuple[Any, Network, Weights]:
    """Build an application with weights.

    Args:
        name: as in `keras.applications`.
        weights: the path of a `.weights.h5` file of it without its top, or anything that is no file
            for those of ImageNet, which Keras downloads into its cache.

    Returns:
        A `keras.Model` from uint8 pixels, (n, side, side, 3) in RGB, to float32 features, (n,
        width); what is true of it; and where its weights come from.

    Raises:
        ImportError: TensorFlow is not installed.
        SetupError: the weights cannot be downloaded, or do not fit.
        UsageError: Keras has no such application, or does not say what it wants of pixels.
    """
    make, preprocess = _find(name)
    # Only with its top does an application say what size it was trained on.
    side = int(make(weights=None).input_shape[1])
    file = Path(weights)
    if file.is_file():
        backbone = _make(make, side, None)
        try:
            backbone.load_weights(file)
        except Exception as error:
            raise SetupError(
                f"{file} does not fit {name} without its top: {error}",
                f"Save it with Keras: {name}(include_top=False).save_weights(...)",
            ) from error
        found = Weights(file.name, file, sha256(file), "keras", "a file of the user's", "unknown")
    else:
        try:
            # Keras writes how far the download is to stdout, where --json may be.
            with contextlib.redirect_stdout(sys.stderr):
                backbone = _make(make, side, "imagenet")
        except Exception as error:
            raise SetupError(
                f"Keras cannot get the ImageNet weights of {name}: {error}",
                "Look at the network; or give --weights FILE, saved by Keras without the top.",
            ) from error
        digest = _digest(backbone.get_weights())
        source = f"Keras' own download, ImageNet weights of keras.applications.{name}"
        found = Weights("keras", Path(), digest, "keras", source, "see keras.io/api/applications")
    network = Network(f"{KERAS}{name}", side, int(backbone.output_shape[-1]))
    return _with_preprocessing(backbone, preprocess, side), network, found


def application_from_arrays(network: Network, arrays: list[Array]) -> Any:
    """Rebuild the model of `build_application` from `model.get_weights()`, as a worker does."""
    make, preprocess = _find(network.name.removeprefix(KERAS))
    model = _with_preprocessing(_make(make, network.side, None), preprocess, network.side)
    model.set_weights(arrays)
    return model


def _find(name: str) -> tuple[Callable[..., Any], Callable[[Any], Any]]:
    """What makes an application, and what it wants done to pixels from 0 to 255."""
    import keras

    names = sorted(each for each in dir(keras.applications) if each[0].isupper())
    if name not in names:
        raise UsageError(
            f"--network {KERAS}{name}: Keras {keras.__version__} has no such application.",
            f"It has {', '.join(names)}.",
        )
    make = getattr(keras.applications, name)
    preprocess = getattr(inspect.getmodule(make), "preprocess_input", None)
    if preprocess is None:
        raise UsageError(
            f"--network {KERAS}{name}: Keras does not say what it wants done to pixels.",
            "Take another network.",
        )
    return make, preprocess


def _make(make: Callable[..., Any], side: int, weights: str | None) -> Any:
    return make(include_top=False, pooling="avg", weights=weights, input_shape=(side, side, 3))


def _with_preprocessing(backbone: Any, preprocess: Callable[[Any], Any], side: int) -> Any:
    import keras

    pixels = keras.Input((side, side, 3), dtype="uint8", name="pixels")
    scaled = preprocess(keras.ops.cast(pixels, "float32"))
    return keras.Model(pixels, backbone(scaled), name="features")


def _digest(arrays: list[Array]) -> str:
    """Of the numbers themselves: files of different versions of Keras may hold the same."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
