"""An embedded profile means colours: it is applied, kept in a pack, and cut down to them."""

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from pictures import encoded, picture
from verger.datasets.cleaning import clean
from verger.images.colours import cut_profile, to_srgb
from verger.images.decoding import (
    EXACT,
    EXACT_COLOURS,
    SCALED,
    SCALED_COLOURS,
    Rules,
    at_full_size,
    decode,
    rules_of,
)
from verger.output.layout import Rejection, Special

SECRET = b"SERIAL-12345"
D50 = (0.9642, 1.0, 0.8249)
P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
"""Display P3's red, green and blue in XYZ under D50, https://www.color.org/chardata/rgb/DisplayP3.xalter."""


def fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def profile(space: bytes, tags: dict[bytes, bytes], *, secrets: bool = True) -> bytes:
    """A profile with words wherever there is room for some."""
    hidden = SECRET if secrets else b""
    if secrets:
        text = b"desc" + bytes(4) + struct.pack(">I", len(SECRET) + 1) + SECRET + bytes(80)
        tags = {b"desc": text, **tags, b"cprt": b"text" + bytes(4) + SECRET + b"\0"}
    head = bytearray(128)
    head[8:24] = (
        struct.pack(">I4s4s", 0x02400000, b"mntr" if space != b"CMYK" else b"prtr", space) + b"Lab "
        if space == b"CMYK"
        else struct.pack(">I4s4s4s", 0x02400000, b"mntr", space, b"XYZ ")
    )
    head[36:40], head[68:80] = b"acsp", fixed(*D50)
    if secrets:
        head[4:8], head[48:56], head[80:84], head[100:112] = b"SERI", b"AL-12345", b"SERI", SECRET
    table, body = struct.pack(">I", len(tags)), hidden
    at = 132 + 12 * len(tags)
    for tag, part in tags.items():
        body += bytes(-len(body) % 4)
        table += struct.pack(">4sII", tag, at + len(body), len(part))
        body += part + hidden
    whole = bytes(head) + table + body + hidden
    return struct.pack(">I", len(whole)) + whole[4:]


def xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + fixed(*values)


def gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


def p3(**options: Any) -> bytes:
    """A wide RGB space, as phones have it."""
    primaries = {
        name: xyz(value) for name, value in zip((b"rXYZ", b"gXYZ", b"bXYZ"), P3, strict=True)
    }
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma(2.2))
    return profile(b"RGB ", {b"wtpt": xyz(D50), **primaries, **curves}, **options)


def grey(value: float = 1.0) -> bytes:
    return profile(b"GRAY", {b"wtpt": xyz(D50), b"kTRC": gamma(value)})


def press() -> bytes:
    """Inks that are less pure than numbers have it: a table of 2 x 2 x 2 x 2 to CIELab."""
    table = []
    for number in range(16):
        c, m, y, k = (number >> place & 1 for place in (3, 2, 1, 0))
        light = (1 - 0.35 * c) * (1 - 0.5 * m) * (1 - 0.1 * y) * (1 - 0.85 * k)
        a = 128 + 60 * m * (1 - k) - 30 * c * (1 - k)
        b = 128 + 70 * y * (1 - k) - 40 * c * (1 - k)
        table += [round(255 * light), round(a), round(b)]
    ramp = bytes(range(256))
    matrix = fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + matrix + ramp * 4 + bytes(table) + ramp * 3
    return profile(b"CMYK", {b"wtpt": xyz(D50), b"A2B0": lut})


def elements() -> bytes:
    """Curves, a matrix and a table to XYZ, with words between them."""
    table = bytes((2, 2, 2)) + bytes(13) + b"\1\0\0\0"
    for number in range(8):
        lit = [number >> place & 1 for place in (2, 1, 0)]
        table += bytes(max(0, round(120 * value)) for value in np.dot(lit, P3))
    plain, bent = b"curv" + bytes(8), gamma(1.5) + bytes(2)
    matrix = fixed(1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0)
    places, body = [], b""
    for element in (plain * 3, matrix, plain * 3, table, bent * 3):
        body += SECRET
        places.append(32 + len(body))
        body += element
    head = b"mAB " + bytes(4) + bytes((3, 3, 0, 0)) + struct.pack(">5I", *places)
    return profile(b"RGB ", {b"wtpt": xyz(D50), b"A2B0": head + body + SECRET})


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def shown(data: bytes, rules: Rules | None = None) -> tuple[np.ndarray, set[Special]]:
    result = decode(data, at_full_size, rules or Rules())
    assert not isinstance(result, Rejection), result
    return result.pixels, set(result.special)


def through(image: Image.Image, icc: bytes) -> np.ndarray:
    """What LittleCMS makes of a picture with the whole profile."""
    return np.asarray(
        ImageCms.profileToProfile(
            image, io.BytesIO(icc), ImageCms.createProfile("sRGB"), 0, outputMode="RGB"
        )
    )


FILES: dict[str, tuple[Callable[[], bytes], str, str, dict[str, Any]]] = {
    "jpeg": (p3, "JPEG", "RGB", {"quality": 95}),
    "grey jpeg": (lambda: grey(1.0), "JPEG", "L", {}),
    "cmyk jpeg": (press, "JPEG", "CMYK", {"quality": 95}),
    "png": (p3, "PNG", "RGB", {}),
    "palette": (p3, "PNG", "P", {}),
    "elements": (elements, "PNG", "RGB", {}),
    "grey png": (lambda: grey(1.0), "PNG", "L", {}),
    "webp": (p3, "WEBP", "RGB", {"lossless": True}),
    "tiff": (p3, "TIFF", "RGB", {"compression": "tiff_lzw"}),
    "cmyk tiff": (press, "TIFF", "CMYK", {}),
    "avif": (p3, "AVIF", "RGB", {"subsampling": "4:4:4", "quality": 100}),
}


@pytest.mark.parametrize(("icc", "kind", "mode", "options"), FILES.values(), ids=FILES)
def test_colours_are_what_the_profile_says_and_stay_so_in_a_pack(
    icc: Callable[[], bytes], kind: str, mode: str, options: dict[str, Any]
) -> None:
    data = encoded(picture(mode), kind, icc_profile=icc(), **options)
    assert SECRET in icc()
    pixels, special = shown(data)
    assert special == {Special.PROFILE}
    with Image.open(io.BytesIO(data)) as image:
        stored = image.convert("RGB") if mode == "P" else image.copy()
    np.testing.assert_array_equal(pixels, through(stored, icc()))
    assert not np.array_equal(pixels, np.asarray(stored.convert("RGB")))
    packed = clean(data)
    assert isinstance(packed, bytes)
    assert SECRET not in packed
    assert clean(packed) == packed
    np.testing.assert_array_equal(shown(packed)[0], pixels)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_pack_touches_no_compressed_pixel_of_a_picture_with_a_profile(kind: str) -> None:
    plain = encoded(picture(), kind)
    packed = clean(encoded(picture(), kind, icc_profile=p3()))
    assert isinstance(packed, bytes)
    start = {"JPEG": b"\xff\xdb", "PNG": b"IDAT", "WEBP": b"VP8 "}[kind]
    assert packed[packed.index(start) :] == plain[plain.index(start) :]
    assert len(packed) < len(plain) + 700


@pytest.mark.parametrize("version", [EXACT, SCALED])
def test_by_the_rules_of_before_colours_stay_as_they_were(version: str) -> None:
    data = encoded(picture(), "PNG", icc_profile=p3())
    pixels, special = shown(data, rules_of(version, 224, 10**6))
    np.testing.assert_array_equal(pixels, np.asarray(picture()))
    assert not special


@pytest.mark.parametrize("version", [EXACT, SCALED, SCALED_COLOURS, EXACT_COLOURS])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_without_a_profile_or_with_that_of_srgb_nothing_changes(version: str, kind: str) -> None:
    for options in ({}, {"icc_profile": srgb()}):
        data = encoded(picture(), kind, **options)
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(image.convert("RGB"))
        pixels, special = shown(data, rules_of(version, 224, 10**6))
        np.testing.assert_array_equal(pixels, expected)
        assert not special
        packed = clean(data)
        assert isinstance(packed, bytes)
        assert b"icc" not in packed.lower()


def test_the_rules_have_names_that_say_what_is_scaled() -> None:
    least = {version: rules_of(version, 224, 1).least for version in "1234"}
    assert least == {EXACT: None, SCALED: 448, SCALED_COLOURS: 448, EXACT_COLOURS: None}


def test_a_jpeg_2000_has_its_profile_applied() -> None:
    data = encoded(picture(), "JPEG2000")
    at = data.index(b"colr")
    size = int.from_bytes(data[at - 4 : at], "big")
    box = b"colr\2\0\0" + p3()
    longer = struct.pack(">I", len(box) + 4) + box
    header = data.index(b"jp2h") - 4
    whole = int.from_bytes(data[header : header + 4], "big") + len(longer) - size
    data = (
        data[:header]
        + struct.pack(">I", whole)
        + data[header + 4 : at - 4]
        + longer
        + data[at - 4 + size :]
    )
    pixels, special = shown(data)
    assert special == {Special.PROFILE}
    np.testing.assert_array_equal(pixels, through(picture(), p3()))


def test_transparency_is_laid_on_white_after_colours_are_converted() -> None:
    image = picture("RGBA")
    image.putalpha(0)
    image.paste((200, 30, 30, 255), (0, 0, 61, 20))
    pixels, _ = shown(encoded(image, "PNG", icc_profile=p3()))
    assert (pixels[20:] == 255).all()
    np.testing.assert_array_equal(
        pixels[:20], through(Image.new("RGB", (61, 20), (200, 30, 30)), p3())
    )


WRONG: dict[str, tuple[str, bytes]] = {
    "of other colours": ("RGB", grey()),
    "of inks, for RGB": ("RGB", press()),
    "of RGB, for inks": ("CMYK", p3()),
    "cut": ("RGB", p3()[:200]),
    "without its curves": ("RGB", profile(b"RGB ", {b"wtpt": xyz(D50)})),
    "noise": ("RGB", b"\xff" * 400),
    "without an end": ("RGB", p3()[:-60].replace(b"bTRC", b"bXXX")),
}


@pytest.mark.parametrize(("mode", "icc"), WRONG.values(), ids=WRONG)
def test_a_profile_that_is_damaged_or_of_other_colours_changes_nothing(
    mode: str, icc: bytes
) -> None:
    plain = encoded(picture(mode), "TIFF")
    pixels, special = shown(encoded(picture(mode), "TIFF", icc_profile=icc))
    np.testing.assert_array_equal(pixels, shown(plain)[0])
    assert not special


def test_a_profile_in_several_segments_is_put_together() -> None:
    body = {
        tag: p3()[at : at + size]
        for tag, at, size in tags_of(p3())
        if tag not in {b"desc", b"cprt"}
    }
    icc = profile(b"RGB ", {**body, b"zzzz": b"text" + bytes(150_000)})
    assert len(icc) > 140_000
    pixels, special = shown(encoded(picture(), "JPEG", icc_profile=icc))
    assert special == {Special.PROFILE}
    packed = clean(encoded(picture(), "JPEG", icc_profile=icc))
    assert isinstance(packed, bytes)
    assert len(packed) < 10_000
    np.testing.assert_array_equal(shown(packed)[0], pixels)


def tags_of(icc: bytes) -> list[tuple[bytes, int, int]]:
    count = int.from_bytes(icc[128:132], "big")
    return [struct.unpack_from(">4sII", icc, 132 + 12 * number) for number in range(count)]


@pytest.mark.parametrize(
    "icc", [p3(), grey(), press(), elements()], ids=["rgb", "grey", "press", "elements"]
)
def test_a_cut_profile_says_nothing_but_colours(icc: bytes) -> None:
    cut = cut_profile(icc)
    assert cut
    assert SECRET not in cut
    assert b"SERI" not in cut
    assert cut_profile(cut) == cut
    assert not {tag for tag, _, _ in tags_of(cut)} & {b"desc", b"cprt"}
    ends = [at + size for _, at, size in tags_of(cut)]
    assert len(cut) - 4 < max(ends) <= len(cut) == int.from_bytes(cut[:4], "big")


@given(
    st.sampled_from([p3(), grey(), press(), elements(), srgb()]),
    st.integers(0, 3000),
    st.binary(max_size=12),
)
@settings(max_examples=300, deadline=None)
def test_damage_to_a_profile_is_survived(icc: bytes, at: int, damage: bytes) -> None:
    damaged = icc[:at] + damage + icc[at + len(damage) :]
    cut = cut_profile(damaged)
    assert cut_profile(cut) == cut
    for mode in ("RGB", "L", "CMYK"):
        made = to_srgb(Image.new(mode, (4, 4)), damaged)
        assert made is None or (made.mode, made.size) == ("RGB", (4, 4))
