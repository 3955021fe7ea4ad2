"""Pictures, what is seen of them, and the parts that their files are made of."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from verger.images.decoding import Rules, at_full_size, decode
from verger.output.layout import Rejection


def picture(mode: str = "RGB", width: int = 61, height: int = 40) -> Image.Image:
    """A picture that no rotation or flip leaves as it is."""
    y, x = np.mgrid[:height, :width]
    planes = [x * 255 // width, y * 255 // height, (x * y * 7) % 256]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8)).convert(mode)


def noise(width: int = 120, height: int = 90) -> Image.Image:
    generator = np.random.default_rng(7)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def seen(data: bytes, rules: Rules | None = None) -> np.ndarray:
    """The pixels of a file."""
    result = decode(data, at_full_size, rules or Rules())
    assert not isinstance(result, Rejection), result
    return result.pixels


def chunk(kind: bytes, body: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def segment(marker: int, body: bytes) -> bytes:
    """A part of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def riff(kind: bytes, body: bytes) -> bytes:
    """A part of a WebP."""
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
