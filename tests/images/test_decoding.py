"""From bytes to pixels: what is decoded, how, and what is refused with which reason."""

import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pictures import chunk, encoded, noise
from verger.datasets.demo import KINDS, render
from verger.images import decoding, opening
from verger.images.decoding import Rules
from verger.images.views import to_views
from verger.networks.engines import engine_for
from verger.networks.graph import load_backbone
from verger.networks.registry import MOBILENET_V2
from verger.output.layout import Reason, Rejection

IMAGE_SIDE = MOBILENET_V2.side
SHAPE = (IMAGE_SIDE, IMAGE_SIDE, 3)


def decode(data: bytes, **rules: Any) -> np.ndarray | Rejection:
    """The pixels that the network takes."""
    result = decoding.decode(data, to_views(IMAGE_SIDE, 1), Rules(**rules))
    return result if isinstance(result, Rejection) else result.pixels


FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000"]
WHITE, RED, BLUE = (255, 255, 255), (255, 0, 0), (0, 0, 255)


def picture(width: int = 60, height: int = 40) -> Image.Image:
    """A picture that no rotation or flip leaves as it is."""
    y, x = np.mgrid[:height, :width]
    planes = [x * 255 // width, y * 255 // height, (x * y) % 256]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


def pixels(data: bytes) -> np.ndarray:
    result = decode(data)
    assert not isinstance(result, Rejection), result
    assert result.shape == SHAPE
    assert result.dtype == np.uint8
    return result


def rejected(data: bytes, **options: int) -> Rejection:
    result = decode(data, **options)
    assert isinstance(result, Rejection)
    assert result.detail
    return result


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_224_x_224_rgb_by_its_content(kind: str) -> None:
    result = pixels(encoded(picture(), kind))
    expected = np.asarray(picture().resize((224, 224), Image.Resampling.BICUBIC), np.int16)
    tolerance = 0 if kind in {"PNG", "BMP", "TIFF"} else 12
    assert np.abs(result - expected).mean() <= tolerance


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (224, 224), (640, 480)])
def test_bicubic_is_exactly_that_of_pillow(size: tuple[int, int]) -> None:
    image = noise(*size)
    expected = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(pixels(encoded(image)), expected)


STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: np.rot90,
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}
"""How a camera stores an upright picture under each orientation."""


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})]
)
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied_once(
    orientation: int, kind: str, options: dict[str, bool]
) -> None:
    stored = np.ascontiguousarray(STORED[orientation](np.asarray(picture())))
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(Image.fromarray(stored), kind, exif=exif, **options)
    np.testing.assert_array_equal(pixels(data), pixels(encoded(picture())))


def test_exif_orientation_of_a_jpeg_is_applied() -> None:
    exif = Image.Exif()
    exif[274] = 6
    data = encoded(picture().transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)
    difference = pixels(data).astype(int) - pixels(encoded(picture(), "JPEG", quality=95))
    assert np.abs(difference).mean() < 3


def test_cmyk_jpeg_is_used() -> None:
    data = encoded(Image.new("RGB", (40, 40), RED).convert("CMYK"), "JPEG")
    difference = pixels(data).astype(int) - np.array(RED)
    assert np.abs(difference).max() < 20


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_greyscale_is_scaled_not_clipped(kind: str) -> None:
    ramp = np.linspace(0, 65535, 224).astype(np.uint16)
    result = pixels(encoded(Image.fromarray(np.tile(ramp, (224, 1))), kind))
    np.testing.assert_array_equal(result, np.tile(ramp >> 8, (3, 224, 1)).transpose(1, 2, 0))


def half_transparent(mode: str) -> Image.Image:
    """Left half opaque red (or black), right half fully transparent."""
    image = Image.new("RGBA", (224, 224), (*RED, 255))
    image.paste((0, 0, 0, 0), (112, 0, 224, 224))
    return image.convert(mode)


def test_transparency_is_laid_on_white() -> None:
    result = pixels(encoded(half_transparent("RGBA")))
    assert (result[:, :112] == RED).all()
    assert (result[:, 112:] == WHITE).all()


def test_partial_transparency_is_blended_with_white() -> None:
    result = pixels(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 51))))
    assert (result == 204).all()


def test_grey_with_alpha_is_laid_on_white() -> None:
    result = pixels(encoded(half_transparent("LA")))
    assert (result[:, :112] == 76).all()
    assert (result[:, 112:] == WHITE).all()


def paletted() -> Image.Image:
    image = Image.new("P", (224, 224), 0)
    image.putpalette([*RED, *BLUE])
    image.paste(1, (112, 0, 224, 224))
    return image


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_palette_is_looked_up(kind: str) -> None:
    result = pixels(encoded(paletted(), kind))
    assert (result[:, :112] == RED).all()
    assert (result[:, 112:] == BLUE).all()


@pytest.mark.parametrize(
    ("kind", "transparency"), [("PNG", 1), ("GIF", 1), ("PNG", b"\xff\x00")], ids=str
)
def test_transparent_entry_of_a_palette_becomes_white(kind: str, transparency: int | bytes) -> None:
    result = pixels(encoded(paletted(), kind, transparency=transparency))
    assert (result[:, :112] == RED).all()
    assert (result[:, 112:] == WHITE).all()


def test_transparent_colour_of_an_rgb_png_becomes_white() -> None:
    image = Image.new("RGB", (224, 224), BLUE)
    assert (pixels(encoded(image, transparency=BLUE)) == WHITE).all()


@pytest.mark.parametrize(
    ("mode", "colour", "shown"), [("L", 77, 77), ("1", 0, 0), ("1", 1, 255)], ids=str
)
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_greyscale_and_1_bit_are_used(mode: str, colour: int, shown: int, kind: str) -> None:
    assert (pixels(encoded(Image.new(mode, (9, 9), colour), kind)) == shown).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, BLUE)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    difference = pixels(data).astype(int) - np.array(RED)
    assert np.abs(difference).max() < 12


@pytest.mark.parametrize("top", [np.float32(1), np.int32(65536)])
def test_pixels_of_a_range_that_is_not_known_are_unsupported(top: np.generic) -> None:
    data = encoded(Image.fromarray(np.full((8, 8), top)), "TIFF")
    found = rejected(data)
    assert found.reason is Reason.UNSUPPORTED
    assert "range that is not known" in found.detail


@pytest.mark.parametrize(
    ("start", "named"),
    [
        (b"8BPS\0\1", "Photoshop"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    ],
)
def test_formats_that_are_not_read_are_named(start: bytes, named: str) -> None:
    rejection = rejected(start + bytes(100))
    assert rejection.reason is Reason.UNSUPPORTED
    assert named in rejection.detail


def test_nothing_is_empty() -> None:
    assert rejected(b"").reason is Reason.EMPTY


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("apple.png", encoded(picture()))
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"apple,red\n",
        b"%PDF-1.7\n%\xe2\xe3",
        zipped(),
        b"BM is how this text, which is no bitmap, starts",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"\0\0\0\x18ftypmp42\0\0\0\0",
        b"\0",
        b"BM",
        b"\xff\xd8",
    ],
    ids=["text", "pdf", "zip", "text-BM", "wave", "mp4", "zero", "BM", "half-signature"],
)
def test_other_files_are_not_images(data: bytes) -> None:
    assert rejected(data).reason is Reason.NOT_AN_IMAGE


@pytest.mark.parametrize(
    ("data", "like"),
    [
        (bytes(4000), "nothing but zeros"),
        (b"<!DOCTYPE html><p>Dear Jean", "a web page or XML"),
        (b"\xef\xbb\xbf\n<?xml version='1.0'?>", "a web page or XML"),
        (b"Dear Jean,\r\n", "a text"),
        ("Cher Jean, à bientôt".encode() * 9, "a text"),
        (bytes(range(1, 200)), "no format that is read"),
        (b"PK\3\4" + bytes(30), "no format that is read"),
    ],
)
def test_what_is_no_image_is_described_without_its_words(data: bytes, like: str) -> None:
    assert rejected(data).detail == f"it begins like {like}"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_cut_file_is_truncated(kind: str, share: float) -> None:
    data = encoded(noise(), kind)
    assert rejected(data[: int(len(data) * share)]).reason is Reason.TRUNCATED


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_of_a_signature_and_zeros_is_corrupt(kind: str) -> None:
    assert rejected(encoded(picture(), kind)[:18] + bytes(40_000)).reason is Reason.CORRUPT


def test_a_damaged_png_is_corrupt() -> None:
    data = bytearray(encoded(noise()))
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    assert rejected(bytes(data)).reason is Reason.CORRUPT


def test_a_pixel_bomb_is_too_large_without_being_decoded() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    data = b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")
    assert rejected(data).reason is Reason.TOO_LARGE


def test_max_pixels_is_the_largest_size_decoded() -> None:
    assert rejected(encoded(picture(101, 1)), max_pixels=100).reason is Reason.TOO_LARGE
    assert not isinstance(decode(encoded(picture(10, 10)), max_pixels=100), Rejection)


SIGNATURES = [
    b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*",
    b"II+\0", b"MM\0+", b"\xff\x0a", b"\0\0\0\x0cJXL ", b"\0\0\0\x0cjP  ", b"8BPS",
    b"RIFF\x40\0\0\0WEBPVP8 ", b"BM" + bytes(12) + b"\x28\0\0\0", b"\0\0\0\x18ftypheic",
]  # fmt: skip
VALID = [encoded(picture(16, 16), kind) for kind in FORMATS]


def assert_decodes_or_is_rejected(data: bytes) -> None:
    result = decode(data, max_pixels=1_000_000)
    if isinstance(result, Rejection):
        assert isinstance(result.reason, Reason)
    else:
        assert result.shape == SHAPE
        assert result.dtype == np.uint8


FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FUZZ
@given(signature=st.sampled_from(SIGNATURES), rest=st.binary(max_size=300))
def test_no_bytes_make_it_raise(signature: bytes, rest: bytes) -> None:
    assert_decodes_or_is_rejected(signature + rest)


@FUZZ
@given(data=st.sampled_from(VALID), where=st.floats(0, 1), damage=st.binary(max_size=8))
def test_no_damage_makes_it_raise(data: bytes, where: float, damage: bytes) -> None:
    at = int(len(data) * where)
    assert_decodes_or_is_rejected(data[:at] + damage + data[at + len(damage) :])


def test_threads_that_decode_leave_the_filters_of_warnings_as_they_were() -> None:
    data, before = encoded(noise(), "JPEG"), [*warnings.filters]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [data] * 400))
    assert warnings.filters == before


def test_memory_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr(opening, "load", none)
    expected = Rejection(Reason.TOO_LARGE, "more memory than there is")
    assert rejected(encoded(picture())) == expected


def a_table_of_fruit(width: int, height: int, seed: int = 0) -> bytes:
    """A large photograph: many fruits beside one another, each a few hundred pixels wide."""
    side = 400
    table = Image.new("RGB", (width, height))
    for number in range(-(-width // side) * -(-height // side)):
        fruit = render(KINDS[(number + seed) % len(KINDS)], number, 40, seed)
        at = (number * side % (-(-width // side) * side), number // (-(-width // side)) * side)
        table.paste(fruit.resize((side, side), Image.Resampling.LANCZOS), at)
    return encoded(table, "JPEG", quality=90)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_decoded_at_a_fraction_and_gives_nearly_the_same_features(
    orientation: int,
) -> None:
    engine = engine_for(load_backbone())
    for seed, size in enumerate([(1200, 900), (1000, 1900)]):
        data = a_table_of_fruit(*size, seed=seed)
        if orientation != 1:
            exif = Image.Exif()
            exif[0x0112] = orientation
            data = encoded(Image.open(io.BytesIO(data)), "JPEG", quality=95, exif=exif)
        full, scaled = decode(data), decode(data, least=2 * IMAGE_SIDE)
        assert scaled.shape == full.shape == SHAPE
        assert not np.array_equal(scaled, full)
        ours, theirs = engine.features(np.stack([scaled, full]))
        cosine = ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)
        assert cosine >= 0.9995


@pytest.mark.parametrize(
    ("kind", "size"), [("JPEG", (895, 1500)), ("JPEG", (100, 100)), ("PNG", (1800, 1200))]
)
def test_what_is_no_large_jpeg_stays_bit_for_bit_as_it_was(
    kind: str, size: tuple[int, int]
) -> None:
    data = encoded(Image.effect_noise(size, 90).convert("RGB"), kind)
    np.testing.assert_array_equal(decode(data, least=2 * IMAGE_SIDE), decode(data))
