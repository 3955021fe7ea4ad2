"""Views of an image: all of it and squares in its middle, each as it is and mirrored."""

from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from verger.images.decoding import Resize

SQUARES = (0.75, 0.5)
"""Sides of the squares in the middle, as shares of the shorter side."""


def to_views(side: int, views: int) -> Resize:
    """The first so many views, squares of `side` pixels, under one another in one picture.

    In this order: all of the image, the middle three quarters, the middle half, each followed by
    its mirror image; one view is what networks take of a picture. The filter is Pillow's bicubic
    one: others give other features.
    """
    return partial(_lay_out, side=side, views=views)


def split(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What `to_views` laid out, (views * side, side, 3), as (views, side, side, 3)."""
    side = pixels.shape[1]
    return pixels.reshape(-1, side, side, 3)


def _lay_out(picture: Image.Image, side: int, views: int) -> Image.Image:
    if views == 1:
        return _cut(picture, side, picture.size)
    laid_out = Image.new("RGB", (side, views * side))
    shorter = min(picture.size)
    sizes = [picture.size, *((share * shorter, share * shorter) for share in SQUARES)]
    for number in range(views):
        view = _cut(picture, side, sizes[number // 2])
        if number % 2:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        laid_out.paste(view, (0, number * side))
    return laid_out


def _cut(picture: Image.Image, side: int, size: tuple[float, float]) -> Image.Image:
    """The middle of a picture, (width, height) of it, as a square."""
    left, top = ((whole - part) / 2 for whole, part in zip(picture.size, size, strict=True))
    box = (left, top, left + size[0], top + size[1])
    return picture.resize((side, side), Image.Resampling.BICUBIC, box)
