"""Pictures of any kind of pixel as 8-bit RGB on white, in the colours of sRGB."""

import numpy as np
from PIL import Image

from verger.images.colours import to_srgb
from verger.images.formats.tiff import PHOTOMETRIC, WHITE_IS_ZERO

WHITE = (255, 255, 255, 255)
WHITE_16 = 2**16 - 1
"""The same of grey with 16 bits."""

_STRIP_PIXELS = 2**24
"""Of a larger picture so many are converted at once: what lies between is small then."""


def is_inverted(image: Image.Image) -> bool:
    """Whether greys of a TIFF run from white to black: Pillow inverts 8 bits, and not 16."""
    tags = getattr(image, "tag_v2", {})
    return image.mode.startswith("I") and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO


def to_rgb(
    image: Image.Image, profile: bytes, *, inverted: bool = False
) -> tuple[Image.Image, bool]:
    """A picture as RGB, and whether its profile changed its colours.

    Args:
        image: of any mode; its `transparency` is laid on white.
        profile: ICC, empty for none.
        inverted: greys of 16 bits run from white to black.

    Raises:
        ValueError: its pixels mean no colours.
    """
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers, of a range that is not known")
    if image.mode == "RGB" and "transparency" not in image.info and not profile:
        return image, False
    rows = max(1, _STRIP_PIXELS // image.width)
    if image.height <= rows:
        return _convert(image, profile, inverted=inverted)
    made, changed = Image.new("RGB", image.size), False
    for top in range(0, image.height, rows):
        piece = image.crop((0, top, image.width, min(top + rows, image.height)))
        converted, by_profile = _convert(piece, profile, inverted=inverted)
        made.paste(converted, (0, top))
        changed |= by_profile
    return made, changed


def _convert(image: Image.Image, profile: bytes, *, inverted: bool) -> tuple[Image.Image, bool]:
    alpha = None
    if image.mode == "I" or image.mode.startswith("I;16"):
        image, alpha = _of_16_bits(image, inverted=inverted)
    elif image.has_transparency_data:
        if image.mode == "La":
            image = image.convert("LA")
        alpha = image.convert("RGBA").getchannel("A")
    if image.mode not in {"RGB", "L", "CMYK"}:
        image = image.convert("L" if image.mode in {"1", "LA"} else "RGB")
    shown = to_srgb(image, profile) if profile else None
    return _on_white(shown or image.convert("RGB"), alpha), shown is not None


def _of_16_bits(image: Image.Image, *, inverted: bool) -> tuple[Image.Image, Image.Image | None]:
    """Grey of 8 bits, and its transparency; Pillow would clip 16 bits at 255.

    Raises:
        ValueError: they are of 32 bits, and use more than 16.
    """
    wide = np.asarray(image).astype(np.int32)
    if wide.max() > WHITE_16:
        raise ValueError("pixels are integers of 32 bits, of a range that is not known")
    wide = wide.clip(0)
    if inverted:
        wide = WHITE_16 - wide
    clear = image.info.get("transparency")
    opaque = None if clear is None else Image.fromarray((wide != clear).astype(np.uint8) * 255)
    return Image.fromarray((wide >> 8).astype(np.uint8)), opaque


def _on_white(image: Image.Image, alpha: Image.Image | None) -> Image.Image:
    if alpha is None:
        return image
    flat = Image.new("RGBA", image.size, WHITE)
    image.putalpha(alpha)
    flat.alpha_composite(image)
    return flat.convert("RGB")
