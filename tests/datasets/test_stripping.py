"""Personal data is gone from every format, and not a pixel has changed."""

import io
import struct
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, TiffImagePlugin

from pictures import chunk, encoded, picture, riff, seen, segment
from verger.datasets.cleaning import as_png, clean
from verger.images.stripping import strip_metadata

SECRET = b"SERIAL-12345"
MAKER = b"Maker of Cameras"
LATITUDE = (48, 51, 29611)
TURNS = range(1, 9)
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description xmlns:tiff="t" tiff:Orientation="6" '
    b'creator="SERIAL-12345"/></x:xmpmeta>'
)
TRAILER = b"\0\0\0\x18ftypmp42" + SECRET * 5
MARKS = [SECRET, MAKER, struct.pack("<I", 29611), struct.pack(">I", 29611), b"ftypmp42", b"GPS"]
"""What must not be found in a stripped file."""


def exif(orientation: int = 6) -> Image.Exif:
    made = Image.Exif()
    made[ExifTags.Base.Orientation] = orientation
    made[ExifTags.Base.Make] = MAKER.decode()
    made[ExifTags.Base.DateTime] = "2024:05:06 07:08:09"
    made.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.BodySerialNumber] = SECRET.decode()
    made.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = SECRET * 3
    made.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = tuple(
        TiffImagePlugin.IFDRational(part, 1) for part in LATITUDE
    )
    return made


@cache
def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + SECRET


def webp(body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def stripped(data: bytes) -> bytes:
    """Strip a file that carries secrets, and check all that holds for every file."""
    result = strip_metadata(data)
    for mark in MARKS:
        assert mark not in result, mark
    assert strip_metadata(result) == result
    np.testing.assert_array_equal(seen(result), seen(data))
    return result


def turned(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        return image.getexif().get(ExifTags.Base.Orientation, 1)


def jpeg(orientation: int = 6, mode: str = "RGB", **options: Any) -> bytes:
    """A JPEG with all that cameras and editors put into one."""
    base = encoded(picture(mode), "JPEG", exif=exif(orientation), icc_profile=profile(), **options)
    thumbnail = encoded(picture().resize((16, 12)), "JPEG", comment=SECRET)
    more = (
        segment(0xE0, b"JFXX\0\x10" + thumbnail),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
        segment(0xE1, b"Exif\0\0" + thumbnail),
        segment(0xED, b"Photoshop 3.0\x008BIM" + SECRET),
        segment(0xEB, b"JP" + SECRET),
        segment(0xFE, SECRET),
        b"\xff\xff\xff" + segment(0xDD, b"\0\0")[1:],  # fill bytes before a marker
        segment(0xEF, SECRET),
    )
    at = base.index(b"\xff\xdb")
    return base[:at] + b"".join(more) + base[at:] + TRAILER


def scans(data: bytes) -> bytes:
    """From the first scan to the end of the image."""
    return data[data.index(b"\xff\xda", data.index(b"\xff\xc4")) : data.rindex(b"\xff\xd9") + 2]


JPEGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 2},
    "grey": {"mode": "L"},
    "cmyk": {"mode": "CMYK"},
}


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
def test_a_jpeg_keeps_its_tables_and_scans_and_nothing_else(options: dict[str, Any]) -> None:
    plain = encoded(
        picture(options.get("mode", "RGB")),
        "JPEG",
        **{k: options[k] for k in options if k != "mode"},
    )
    data = jpeg(**options)
    assert all(mark in data for mark in (SECRET, MAKER, struct.pack(">I", LATITUDE[2])))
    result = stripped(data)
    assert scans(result) == scans(plain)
    # Nothing is left but the EXIF block of 36 bytes and the restart interval that was put in.
    assert len(result) == len(plain) + 36 + 6
    assert turned(result) == 6


def test_comments_between_the_scans_of_a_progressive_jpeg_go() -> None:
    plain = encoded(picture(), "JPEG", progressive=True)
    starts = [at for at in range(len(plain)) if plain[at : at + 2] == b"\xff\xda"]
    assert len(starts) > 4
    data = plain
    for at in reversed(starts[1:]):
        data = data[:at] + segment(0xFE, SECRET) + segment(0xE1, b"Exif\0\0" + SECRET) + data[at:]
    assert stripped(data) == plain


def test_the_thumbnail_in_a_jfif_header_goes() -> None:
    plain = encoded(picture(), "JPEG")
    header = segment(0xE0, plain[6:18] + b"\x02\x02" + SECRET)
    assert stripped(plain[:2] + header + plain[20:]) == plain


def test_only_the_first_picture_of_an_mpo_stays() -> None:
    options = {"save_all": True, "append_images": [picture().rotate(90)], "exif": exif()}
    data = encoded(picture(), "MPO", **options) + TRAILER
    result = stripped(data)
    assert result.count(b"\xff\xd8\xff") == 1
    assert scans(result) == scans(encoded(picture(), "JPEG"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", TURNS)
def test_the_orientation_of_exif_stays(kind: str, orientation: int) -> None:
    data = encoded(picture(), kind, exif=exif(orientation))
    assert turned(stripped(data)) == orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_orientation_of_xmp_becomes_one_of_exif(kind: str) -> None:
    if kind == "PNG":
        texts = PngImagePlugin.PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
        data = encoded(picture(), kind, pnginfo=texts)
    else:
        data = encoded(picture(), kind, xmp=XMP)
    upright = seen(encoded(picture(), kind))
    result = stripped(data)
    assert turned(result) == 6
    assert not np.array_equal(seen(result), upright)


@pytest.mark.parametrize("orientation", [0, 1, 9, 300])
def test_an_orientation_that_means_nothing_leaves_no_exif(orientation: int) -> None:
    data = encoded(picture(), "JPEG", exif=exif(orientation))
    assert stripped(data) == encoded(picture(), "JPEG")


def png_texts() -> PngImagePlugin.PngInfo:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Author", SECRET.decode())
    texts.add_text("Comment", SECRET.decode() * 20, zip=True)
    texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
    texts.add(b"tIME", b"\x07\xe8\x05\x06\x07\x08\x09")
    texts.add(b"prVt", SECRET, after_idat=True)
    return texts


PNG_MODES = ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"]


@pytest.mark.parametrize("mode", PNG_MODES)
def test_a_png_keeps_its_picture_and_nothing_else(mode: str) -> None:
    image = picture("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    options = {"transparency": 3} if mode in {"P", "L"} else {}
    plain = encoded(image, "PNG", **options)
    data = encoded(image, "PNG", exif=exif(), icc_profile=profile(), pnginfo=png_texts(), **options)
    result = stripped(data + TRAILER)
    at = plain.index(b"IHDR") + 21
    block = chunk(b"eXIf", b"II*\0" + struct.pack("<IHHHIII", 8, 1, 274, 3, 1, 6, 0))
    assert result == plain[:at] + block + plain[at:]


def test_an_animated_png_keeps_all_frames() -> None:
    frames = {"save_all": True, "append_images": [picture().rotate(90), picture().rotate(180)]}
    plain = encoded(picture(), "PNG", **frames)
    at = plain.index(b"fdAT") - 4
    data = plain[:at] + chunk(b"tEXt", b"Author\0" + SECRET) + plain[at:] + TRAILER
    assert stripped(data) == plain


def test_a_picture_before_a_chunk_without_a_name_is_written_anew() -> None:
    # Pillow stops there; without that chunk it would read on, to frames that do not fit together.
    frames = encoded(picture(), "PNG", save_all=True, append_images=[picture().rotate(90)])
    at = frames.rindex(b"fcTL")
    data = frames[:at] + b"\0" + frames[at + 1 :]
    result = clean(data)
    assert isinstance(result, bytes), result
    np.testing.assert_array_equal(seen(result), seen(data))


def test_exif_in_a_text_of_a_png_is_heard() -> None:
    block = exif().tobytes()
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)
    assert turned(stripped(encoded(picture(), "PNG", pnginfo=texts))) == 6


def test_exif_after_the_pixels_of_a_png_is_heard() -> None:
    plain = encoded(picture(), "PNG")
    at = plain.index(b"IEND") - 4
    data = plain[:at] + chunk(b"eXIf", exif().tobytes()[6:]) + plain[at:]
    assert turned(stripped(data)) == 6


WEBPS: dict[str, dict[str, Any]] = {
    "lossy": {},
    "lossless": {"lossless": True},
    "alpha": {"mode": "RGBA"},
    "animated": {"save_all": True, "append_images": [picture().rotate(90)]},
}


@pytest.mark.parametrize("options", WEBPS.values(), ids=WEBPS)
def test_a_webp_keeps_its_picture_and_nothing_else(options: dict[str, Any]) -> None:
    options = dict(options)
    image = picture(options.pop("mode", "RGB"))
    if image.mode == "RGBA":
        image.putalpha(picture("L"))
    plain = encoded(image, "WEBP", **options)
    data = encoded(image, "WEBP", exif=exif(), xmp=XMP, icc_profile=profile(), **options)
    body = data[12:] + riff(b"mine", SECRET)
    result = stripped(webp(body) + TRAILER)
    assert struct.unpack("<I", result[4:8])[0] == len(result) - 8
    assert result[20] & 0b101100 == 0b001000  # of profile, EXIF and XMP, only EXIF is announced
    start = plain.index(b"VP8 ") if b"VP8 " in plain else plain.index(b"VP8L")
    assert plain[start:] in result


def test_a_plain_webp_stays_as_it_is() -> None:
    plain = encoded(picture(), "WEBP")
    assert stripped(plain + TRAILER) == plain
    assert stripped(webp(plain[12:] + riff(b"EXIF", SECRET))) == plain


def test_unknown_chunks_in_the_frames_of_a_webp_go() -> None:
    plain = encoded(picture(), "WEBP", save_all=True, append_images=[picture().rotate(90)])
    at = plain.index(b"ANMF")
    size = struct.unpack_from("<I", plain, at + 4)[0]
    frame = riff(b"ANMF", plain[at + 8 : at + 8 + size] + riff(b"mine", SECRET))
    data = webp(plain[12:at] + frame + plain[at + 8 + size + size % 2 :])
    assert len(data) > len(plain)
    assert stripped(data) == plain


def bitmap_5(gap: bytes, tail: bytes) -> bytes:
    """A bitmap of the fifth version with an embedded profile before or after its pixels."""
    image = picture()
    rows = encoded(image, "BMP")[54:]
    offset = 14 + 124 + len(gap)
    where = 124 if gap else 124 + len(rows)
    header = struct.pack("<IiiHHIIiiII", 124, *image.size, 1, 24, 0, len(rows), 0, 0, 0, 0)
    header += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0) + b"DEBM" + bytes(36 + 12)
    header += struct.pack("<IIII", 4, where, len(gap or tail), 0)
    assert len(header) == 124
    size = offset + len(rows) + len(tail)
    return b"BM" + struct.pack("<III", size, 0, offset) + header + gap + rows + tail


TIFFS: dict[str, dict[str, Any]] = {
    "raw": {},
    "big": {"big_tiff": True},
    "lzw": {"compression": "tiff_lzw"},
    "predictor": {"compression": "tiff_lzw", "tiffinfo": {317: 2}},
    "deflate": {"compression": "tiff_adobe_deflate"},
    "packbits": {"compression": "packbits"},
    "jpeg": {"compression": "jpeg"},
    "ycbcr": {"compression": "jpeg", "mode": "YCbCr"},
    "palette": {"mode": "P"},
    "fax": {"mode": "1", "compression": "group4"},
    "cmyk": {"mode": "CMYK"},
    "strips": {"strip_size": 1000},
    "several strips of lzw": {"strip_size": 1000, "compression": "tiff_lzw"},
    "two pictures": {"save_all": True, "append_images": [picture().rotate(90)]},
}


def tiff(mode: str = "RGB", **options: Any) -> bytes:
    made = exif()
    made[ExifTags.Base.ImageDescription] = SECRET.decode()
    for tag, value in options.pop("tiffinfo", {}).items():
        made[tag] = value
    made[ExifTags.Base.XMLPacket] = XMP
    options |= {"exif": made, "icc_profile": profile()}
    return encoded(picture(mode), "TIFF", **options) + TRAILER


OTHERS: dict[str, Callable[[], bytes]] = {
    "gif": lambda: encoded(picture(), "GIF", comment=SECRET * 30) + TRAILER,
    "two frames": lambda: encoded(
        picture(), "GIF", save_all=True, append_images=[picture().rotate(90)], comment=SECRET
    ),
    "profile of a bmp": lambda: bitmap_5(SECRET, b""),
    **{f"bmp {mode}": partial(encoded, picture(mode), "BMP") for mode in ("L", "P", "1", "RGBA")},
    "16 bits": lambda: encoded(picture("I;16"), "TIFF", exif=exif()),
    **{f"tiff {name}": partial(lambda o: tiff(**dict(o)), o) for name, o in TIFFS.items()},
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_what_is_not_stripped_becomes_a_png_of_the_picture_that_a_run_sees(
    make: Callable[[], bytes],
) -> None:
    data = make()
    result = as_png(data)
    assert isinstance(result, bytes), result
    for mark in MARKS:
        assert mark not in result, mark
    assert strip_metadata(result) == result
    with Image.open(io.BytesIO(result)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
    np.testing.assert_array_equal(seen(result), seen(data))


REFUSED: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "text": lambda: b"BMW is a word, and this is a text about it.",
    "HEIF": lambda: b"\0\0\0\x18ftypheic" + bytes(100),
    "a GIF": lambda: encoded(picture(), "GIF"),
    "a PDF": lambda: b"%PDF-1.7",
    "a JPEG without an end": lambda: encoded(picture(), "JPEG")[:-2],
    "a JPEG without a scan": lambda: b"\xff\xd8" + segment(0xFE, SECRET) + b"\xff\xd9",
    "a JPEG with a marker of JPEG-LS": lambda: b"\xff\xd8" + segment(0xF7, bytes(9)),
    "a JPEG in a JPEG": lambda: encoded(picture(), "JPEG")[:20] + encoded(picture(), "JPEG"),
    "a PNG without an end": lambda: encoded(picture(), "PNG")[:-12],
    "a PNG cut in a chunk": lambda: encoded(picture(), "PNG")[:-30],
    "a WebP cut": lambda: encoded(picture(), "WEBP")[:-3],
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_followed_is_refused(make: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        strip_metadata(make())


@cache
def samples() -> list[bytes]:
    """Small files with secrets, to be damaged."""
    small = picture().resize((20, 15))
    more = {"exif": exif(), "icc_profile": SECRET}
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("JPEG", {**more, "comment": SECRET}),
        ("JPEG", {**more, "progressive": True}),
        ("PNG", {**more, "pnginfo": png_texts()}),
        ("WEBP", {**more, "xmp": XMP}),
        ("WEBP", {**more, "save_all": True, "append_images": [small.rotate(90)]}),
    ]
    return [encoded(small, kind, **options) for kind, options in kinds]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(samples())))
    for _ in range(draw(st.integers(1, 6))):
        # Structure is at the start and at the end.
        at = draw(st.one_of(st.integers(0, 400), st.integers(-300, -1), st.integers(0, 4000)))
        at = max(-len(data), min(at, len(data) - 1)) % len(data)
        match draw(st.sampled_from(["change", "change", "cut out", "put in", "end"])):
            case "change":
                data[at] = draw(st.one_of(st.sampled_from([0, 1, 0xD8, 0xFF]), st.integers(0, 255)))
            case "cut out":
                del data[at : at + draw(st.integers(1, 40))]
            case "put in":
                data[at:at] = draw(st.binary(min_size=1, max_size=9))
            case _:
                del data[at + 1 :]
        if not data:
            break
    return bytes(data)


def segments(data: bytes) -> list[tuple[int, bytes]]:
    """Markers and bodies of a JPEG up to its first scan."""
    found, at = [], 2
    while at < len(data) and data[at + 1] not in {0xD9, 0xDA}:
        length = struct.unpack_from(">H", data, at + 2)[0]
        found.append((data[at + 1], data[at + 4 : at + 2 + length]))
        at += 2 + length
    return found


@given(damaged())
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
def test_damage_is_refused_or_survived_and_nothing_leaks(data: bytes) -> None:
    try:
        result = strip_metadata(data)
    except ValueError:
        return
    assert strip_metadata(result) == result
    if data.startswith(b"\xff\xd8"):
        kept = [body for marker, body in segments(result) if 0xE0 <= marker <= 0xEF]
        assert all(len(body) <= 32 or body.startswith(b"ICC_PROFILE") for body in kept)


@given(
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x20\0\0\0WEBP"]),
    st.binary(max_size=200),
)
@example(b"\xff\xd8\xff", b"\xff" * 100_000)
@settings(max_examples=400, deadline=None)
def test_noise_is_refused_with_a_value_error_only(start: bytes, noise: bytes) -> None:
    try:
        result = strip_metadata(start + noise)
    except ValueError:
        return
    assert strip_metadata(result) == result
