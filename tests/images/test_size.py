"""Large photographs are read when they are allowed, in memory that is bounded."""

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pictures import encoded
from verger.images.decoding import Picture, Rules, at_full_size, decode
from verger.images.views import to_views
from verger.output.layout import Reason, Rejection, Special

KEEPING = Rules(least=448, thumbnails=True)

MEASURED = """
import io, re, sys
from PIL import Image
from verger.images.decoding import decode, rules_of
from verger.images.views import to_views
from verger.output.layout import Rejection

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

data = sys.stdin.buffer.read()
before = peak()
seen = decode(data, to_views(224, 1), rules_of("3", 224, 210_000_000))
assert not isinstance(seen, Rejection), seen
print(peak() - before)
"""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000"])
def test_the_limit_is_ours_and_that_of_pillow_stays(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(Image.linear_gradient("L").convert("RGB"), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert not isinstance(decode(data, at_full_size, Rules(max_pixels=256 * 256)), Rejection)
    assert Image.MAX_IMAGE_PIXELS == 1000
    refused = decode(data, at_full_size, Rules(max_pixels=256 * 256 - 1))
    assert isinstance(refused, Rejection)
    assert refused.reason is Reason.TOO_LARGE


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "LA", "I;16"])
def test_a_picture_is_converted_a_strip_at_a_time_to_the_same(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey = Image.linear_gradient("L")
    image = (
        grey.convert("I").point(lambda level: level * 257).convert("I;16")
        if mode == "I;16"
        else grey.convert(mode)
    )
    if mode in {"RGBA", "LA"}:
        image.putalpha(grey.transpose(Image.Transpose.ROTATE_90))
    data = encoded(image, "TIFF" if mode == "CMYK" else "PNG")
    whole = decode(data, at_full_size)
    monkeypatch.setattr("verger.images.rgb._STRIP_PIXELS", 5000)
    strips = decode(data, at_full_size)
    assert not isinstance(whole, Rejection)
    assert not isinstance(strips, Rejection)
    assert (whole.pixels == strips.pixels).all()


def test_a_scaled_jpeg_says_so() -> None:
    data = encoded(Image.linear_gradient("L").resize((900, 900)), "JPEG")
    scaled = decode(data, at_full_size, Rules(least=448))
    assert not isinstance(scaled, Rejection)
    assert (scaled.pixels.shape, scaled.special) == ((450, 450, 3), {Special.SCALED})


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize(
    ("kind", "mode", "options", "most"),
    [
        ("JPEG", "RGB", {}, 100),
        ("JPEG", "RGB", {"progressive": True}, 1000),
        ("PNG", "RGB", {}, 1100),
        ("PNG", "RGBA", {}, 2200),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}, 1100),
    ],
)
def test_200_megapixels_are_read_in_bounded_memory(
    kind: str, mode: str, options: dict[str, Any], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    image = Image.linear_gradient("L").resize((16384, 12288)).convert(mode)
    data = encoded(image, kind, **options)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED], input=data, capture_output=True, check=True
    )
    assert 0 < float(done.stdout) < most  # MiB


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_picture_has_an_upright_thumbnail(kind: str) -> None:
    lying = Image.linear_gradient("L").resize((1600, 1200)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # as a phone held upright writes it
    picture = decode(encoded(lying, kind, exif=exif), to_views(224, 1), KEEPING)
    assert isinstance(picture, Picture)
    assert picture.thumbnail is not None
    thumbnail = Image.open(io.BytesIO(picture.thumbnail))
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (48, 64))
    expected = lying.transpose(Image.Transpose.ROTATE_270).resize((48, 64))
    difference = np.asarray(thumbnail.convert("RGB"), int) - np.asarray(expected, int)
    assert np.abs(difference).max() < 16


def test_a_small_picture_has_no_thumbnail_and_neither_has_one_that_nobody_keeps() -> None:
    for side, rules in ((799, KEEPING), (800, Rules(least=448))):
        image = Image.linear_gradient("L").resize((side, 2 * side)).convert("RGB")
        picture = decode(encoded(image, "JPEG"), to_views(224, 1), rules)
        assert isinstance(picture, Picture)
        assert picture.thumbnail is None
