"""Views: where they are cut."""

import numpy as np
import pytest
from PIL import Image

from pictures import encoded
from verger.images.decoding import Picture, Resize, decode
from verger.images.views import split, to_views


def pixels_of(data: bytes, resize: Resize) -> np.ndarray:
    found = decode(data, resize)
    assert isinstance(found, Picture)
    return found.pixels


def picture(width: int = 96, height: int = 64) -> bytes:
    """Darker from left to right, red only in the middle half."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 1] = np.linspace(255, 0, width).astype(np.uint8)
    quarter = height // 4
    pixels[quarter:-quarter, width // 2 - quarter : width // 2 + quarter, 0] = 255
    return encoded(Image.fromarray(pixels))


@pytest.mark.parametrize("count", [2, 3, 6])
def test_views_come_with_their_mirror_images(count: int) -> None:
    views = split(pixels_of(picture(), to_views(24, count)))
    assert views.shape == (count, 24, 24, 3)
    assert np.array_equal(views[0], pixels_of(picture(), to_views(24, 1)))
    assert np.array_equal(views[1], views[0][:, ::-1])


def test_squares_are_of_the_middle() -> None:
    views = split(pixels_of(picture(), to_views(32, 6)))
    red = (views[..., 0] > 128).mean(axis=(1, 2))
    assert red[[0, 2, 4]] == pytest.approx([1 / 6, 4 / 9, 1], abs=0.03)
    assert np.array_equal(views[5], views[4][:, ::-1])


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (3, 2)])
def test_pictures_of_few_pixels_have_views_too(size: tuple[int, int]) -> None:
    assert split(pixels_of(encoded(Image.new("RGB", size, "green")), to_views(8, 6))).shape == (
        6,
        8,
        8,
        3,
    )
