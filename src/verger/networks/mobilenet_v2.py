"""MobileNetV2 in Keras: no top, average-pooled, its preprocessing inside the graph.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, arXiv:1801.04381.
"""

from typing import Any

import numpy as np

from verger.errors import SetupError
from verger.networks.registry import MOBILENET_V2
from verger.networks.weights import Array, Weights

SIDE = MOBILENET_V2.side

# ImageNet's channel means and deviations of pixels in 0..1, as torchvision documents them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TORCH_EPSILON = 1e-5


def build_model(weights: Weights) -> Any:
    """Build the Keras model with the given weights.

    Returns:
        A `keras.Model` from uint8 pixels, (n, 224, 224, 3) in RGB, to float32 features, (n, 1280).

    Raises:
        SetupError: the weights do not fit the network.
    """
    if weights.convention == "torch":
        with np.load(weights.path, allow_pickle=False) as arrays:
            return model_from_arrays(list(arrays.values()), "torch")
    model = _keras_model()
    try:
        model.get_layer("mobilenet_v2").load_weights(weights.path)
    except Exception as error:
        raise SetupError(
            f"{weights.path} does not fit MobileNetV2 (1.0, 224, without its top): {error}",
            "Save it with Keras: MobileNetV2(include_top=False, pooling='avg').save_weights(...)",
        ) from error
    return model


def model_from_arrays(arrays: list[Array], convention: str) -> Any:
    """Rebuild the model of `build_model` from `model.get_weights()`, as a worker does."""
    model = _torch_model() if convention == "torch" else _keras_model()
    model.set_weights(arrays)
    return model


def _keras_model() -> Any:
    import keras

    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="pixels")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)
    return keras.Model(pixels, _original(SIDE)(scaled), name="features")


def _original(side: int) -> Any:
    import keras

    return keras.applications.MobileNetV2(
        input_shape=(side, side, 3),
        include_top=False,
        pooling="avg",
        weights=None,
        name="mobilenet_v2",
    )


def _torch_model() -> Any:
    """The same network with PyTorch's conventions: symmetric padding and a smaller epsilon."""
    import keras

    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="pixels")
    scaled = keras.layers.Rescaling(
        [1 / (255 * std) for std in IMAGENET_STD],
        offset=[-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)],
    )(pixels)
    # Keras pads (0, 1) before a stride of 2, PyTorch (1, 1); the first convolution has no padding
    # layer of its own in Keras, so its border is put on here.
    padded = keras.layers.ZeroPadding2D(1)(scaled)

    def with_torch_conventions(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            config["epsilon"] = TORCH_EPSILON
        elif isinstance(layer, keras.layers.ZeroPadding2D):
            config["padding"] = ((1, 1), (1, 1))
        elif layer.name == "Conv1":
            config["padding"] = "valid"
        return type(layer).from_config(config)

    backbone = keras.models.clone_model(_original(SIDE + 2), clone_function=with_torch_conventions)
    return keras.Model(pixels, backbone(padded), name="features")
