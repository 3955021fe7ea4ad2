"""Views of a photograph: all of it and squares in its middle, each as it is and mirrored."""

from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from verger.images.decoding import Resize

MOST_VIEWS = 6

SQUARES = (1.0, 0.75)
"""Sides of the squares in the middle, as shares of the shorter side."""


def to_views(side: int, views: int) -> Resize:
    """The first of the views, squares of `side` pixels, under one another in one picture.

    Args:
        side: pixels a side.
        views: 1 is the whole picture as `to_square` makes it, 2 with its mirror image; then follow
            the centred square and the centred three quarters of it, each with its mirror image.
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
    squares = [(round(share * min(picture.size)),) * 2 for share in SQUARES]
    for number, size in enumerate((picture.size, *squares)[: (views + 1) // 2]):
        view = _cut(picture, side, (max(size[0], 1), max(size[1], 1)))
        laid_out.paste(view, (0, 2 * number * side))
        if 2 * number + 1 < views:
            mirrored = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            laid_out.paste(mirrored, (0, (2 * number + 1) * side))
    return laid_out


def _cut(picture: Image.Image, side: int, size: tuple[int, int]) -> Image.Image:
    """The middle of a picture, (width, height) of it, as a square by Pillow's bicubic filter."""
    left, top = ((whole - part) / 2 for whole, part in zip(picture.size, size, strict=True))
    box = (left, top, left + size[0], top + size[1])
    return picture.resize((side, side), Image.Resampling.BICUBIC, box)
