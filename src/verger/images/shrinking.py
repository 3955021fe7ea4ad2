"""Thumbnails: small copies of pictures, as WebP."""

import io

from PIL import Image

SIDE = 64
"""Pixels of the longer side of the thumbnails that an output keeps: half a kilobyte each."""

LARGE = 800
"""Pixels of the shorter side from which a picture's thumbnail is nothing beside its decoding: a
millisecond of ten and more."""

QUALITY = 75
"""WebP's, from 0 to 100."""


def shrink(picture: Image.Image, side: int) -> Image.Image:
    """A copy of at most `side` pixels a side."""
    scale = min(1.0, side / max(picture.size))
    width, height = (max(1, round(scale * length)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)


def to_webp(picture: Image.Image) -> bytes:
    """The bytes of a WebP file."""
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=QUALITY, method=2)
    return stream.getvalue()
