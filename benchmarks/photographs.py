"""Photographs to measure with: few of them under many names, or enlarged."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

ENLARGED = 20
"""Different photographs among the large ones."""


def link_images(source: Path, target: Path, count: int) -> None:
    """Link photographs under new names, as many as wanted; each is in the page cache then."""
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    if not files:
        sys.exit(f"{source} holds no JPEG.")
    target.mkdir()
    for number in range(count):
        file = files[number * 7919 % len(files)]
        (target / f"{number:06}.jpg").symlink_to(file)
        file.read_bytes()


def enlarge_images(source: Path, target: Path, count: int, side: int) -> None:
    """Make photographs as large as a phone's of small ones: 3/4 as high as `side` wide, with noise.

    Few are made, and linked under many names: each is decoded anew.
    """
    link_images(source, target.with_name(f"{target.name}-small"), ENLARGED)
    made = target.with_name(f"{target.name}-made")
    made.mkdir()
    noise = np.random.default_rng(0)
    for file in sorted(target.with_name(f"{target.name}-small").iterdir()):
        with Image.open(file) as image:
            large = np.asarray(image.convert("RGB").resize((side, side * 3 // 4)), np.int16)
        grain = noise.normal(0, 6, large.shape).astype(np.int16)
        grainy = (large + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(grainy).save(made / file.name, quality=90)
    link_images(made, target, count)
