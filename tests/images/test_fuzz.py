"""Damaged files of every format: nothing raises, hangs, swells or crashes, and packing is faithful.

`VERGER_FUZZ_EXAMPLES=100000 pytest -m slow tests/images/test_fuzz.py` looks for longer.
"""

import os
import resource
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

import pictures
from verger.datasets.cleaning import clean
from verger.images.decoding import Picture, Rules, at_full_size, decode
from verger.output.layout import Reason, Rejection

EXAMPLES = int(os.environ.get("VERGER_FUZZ_EXAMPLES", "300"))
GOLDEN = Path(__file__).parents[1] / "golden"
HEADROOM = 2**30
"""Bytes that decoding a small file may take at most."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(36_000)]


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    if mode == "I;16":
        image = Image.fromarray(np.asarray(pictures.picture("L", 31, 23)).astype(np.uint16) * 257)
    else:
        image = pictures.picture(mode, 31, 23)
    return pictures.encoded(image, kind, **options)


def exif() -> Image.Exif:
    made = Image.Exif()
    made[274], made[271] = 6, "Maker"
    return made


@cache
def bases() -> dict[str, list[bytes]]:
    """Sound files of each format, of all kinds that take a way of their own."""
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    wide = icc.replace(b"gXYZ", b"gXYz").replace(b"rXYZ", b"gXYZ").replace(b"gXYz", b"rXYZ")
    frames = {"save_all": True, "append_images": [Image.new("RGB", (31, 23), "red")]}
    return {
        "JPEG": [
            encoded("JPEG", exif=exif(), icc_profile=wide),
            encoded("JPEG", progressive=True, comment=b"words"),
            encoded("JPEG", "L", restart_marker_blocks=1),
            encoded("JPEG", "CMYK"),
            encoded("JPEG")[:-2] + b"trailer",
            encoded("MPO", **frames),
        ],
        "PNG": [
            encoded("PNG", exif=exif(), icc_profile=wide),
            encoded("PNG", "P", transparency=3, bits=4),
            encoded("PNG", "I;16", transparency=257),
            encoded("PNG", "LA"),
            encoded("PNG", **frames),
        ],
        "WEBP": [
            encoded("WEBP", exif=exif(), icc_profile=wide, xmp=b"words"),
            encoded("WEBP", "RGBA", lossless=True),
            encoded("WEBP", "RGBA"),
            encoded("WEBP", **frames),
        ],
        "GIF": [encoded("GIF", comment=b"words"), encoded("GIF", **frames)],
        "BMP": [encoded("BMP"), encoded("BMP", "P"), encoded("BMP", "1"), encoded("BMP", "RGBA")],
        "TIFF": [
            encoded("TIFF", exif=exif(), icc_profile=wide),
            encoded("TIFF", "CMYK", compression="tiff_lzw"),
            encoded("TIFF", "I;16", compression="tiff_adobe_deflate"),
            encoded("TIFF", "1", compression="group4"),
            encoded("TIFF", compression="jpeg"),
            encoded("TIFF", big_tiff=True),
            encoded("TIFF", "LA"),
            encoded("TIFF", "P", compression="packbits"),
        ],
        "HEIF": [(GOLDEN / "phone.heic").read_bytes()],
        "AVIF": [encoded("AVIF", exif=exif(), icc_profile=wide), encoded("AVIF", "RGBA")],
        "JPEG2000": [encoded("JPEG2000", comment=b"words"), encoded("JPEG2000", no_jp2=True)],
    }


NUMBERS = [0, 1, 2, 7, 8, 16, 43, 0x7F, 0x80, 0xD8, 0xD9, 0xFE, 0xFF]
WIDE = [0, 1, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


@st.composite
def damaged(draw: st.DrawFn, kind: str) -> bytes:
    data = bytearray(draw(st.sampled_from(bases()[kind])))
    for _ in range(draw(st.integers(1, 5))):
        # Structure is at the start, and in some at the end.
        at = draw(st.integers(0, min(400, len(data))) | st.integers(0, len(data)))
        match draw(st.sampled_from(["byte", "byte", "number", "cut", "put in", "repeat", "end"])):
            case "byte":
                data[at : at + 1] = bytes((draw(st.sampled_from(NUMBERS) | st.integers(0, 255)),))
            case "number":
                form = draw(st.sampled_from(["<I", ">I", "<H", ">H"]))
                number = draw(st.sampled_from(WIDE)) % 2 ** (8 * struct.calcsize(form))
                data[at : at + struct.calcsize(form)] = struct.pack(form, number)
            case "cut":
                del data[at : at + draw(st.integers(1, 60))]
            case "put in":
                data[at:at] = draw(st.binary(min_size=1, max_size=20))
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 300))]
            case _:
                del data[max(at, 16) :]
    return resealed(bytes(data)) if kind == "PNG" and draw(st.booleans()) else bytes(data)


def resealed(data: bytes) -> bytes:
    """A PNG whose checksums are those of its chunks, so that damage reaches what is behind."""
    made, at = data[:8], 8
    while at + 12 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + min(size, len(data) - at - 12)]
        made += struct.pack(">I", len(body)) + name + body
        made += struct.pack(">I", zlib.crc32(name + body))
        at += 12 + len(body)
    return made + data[at:]


@pytest.fixture(autouse=True)
def _bounded_memory() -> Iterator[None]:
    """Allocating more than decoding a small file may need fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    used = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + HEADROOM, hard))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def outcome(data: bytes, rules: Rules) -> Picture | Rejection:
    """What becomes of a file, which is the same each time."""
    result = decode(data, at_full_size, rules)
    if isinstance(result, Rejection):
        assert isinstance(result.reason, Reason)
        assert " at 0x" not in result.detail
        assert "MemoryError" not in result.detail, result
    else:
        assert result.pixels.dtype == np.uint8
        assert result.pixels.shape[2:] == (3,)
    return result


RULES = Rules(max_pixels=1_000_000)


def check(data: bytes) -> None:
    """A damaged file is decoded or refused, and after packing it is the same."""
    result = outcome(data, RULES)
    outcome(data, Rules(max_pixels=1_000_000, colours=False))
    outcome(data, Rules(max_pixels=1_000_000, accept_truncated=True))
    packed = clean(data, RULES.max_pixels)
    if isinstance(packed, Rejection):
        assert isinstance(result, Rejection)
        return
    again = outcome(packed, RULES)
    assert isinstance(again, Picture) == isinstance(result, Picture)
    if isinstance(again, Picture) and isinstance(result, Picture):
        np.testing.assert_array_equal(again.pixels, result.pixels)
    assert clean(packed, RULES.max_pixels) == packed


def fuzzed(kind: str) -> Callable[[], None]:
    @given(damaged(kind))
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    def run(data: bytes) -> None:
        check(data)

    return run


@pytest.mark.parametrize("kind", bases())
def test_damage_is_survived_and_packed_as_it_is_seen(kind: str) -> None:
    for data in bases()[kind]:
        check(data)
    fuzzed(kind)()
