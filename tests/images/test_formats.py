"""Files as phones, shops, archives and old programs write them: each kind, made here."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pictures import chunk, encoded, noise, seen
from verger.datasets.cleaning import clean
from verger.images import opening
from verger.images.decoding import EXACT, Rules, at_full_size, decode, rules_of
from verger.images.opening import claims_image, sniff
from verger.output.layout import Reason, Rejection, Special

GOLDEN = Path(__file__).parents[1] / "golden"
SECRET = b"SERIAL-12345"
WHITE, RED, BLUE = (255, 255, 255), (255, 0, 0), (0, 0, 255)


def picture(width: int = 96, height: int = 64) -> Image.Image:
    """A picture that no rotation or flip leaves as it is; that of `phone.heic`."""
    y, x = np.mgrid[:height, :width]
    planes = [x * 255 // (width - 1), y * 255 // (height - 1), np.full_like(x, 90)]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


def both_ways(data: bytes) -> np.ndarray:
    """The pixels of a file, which are the same after it was packed, and its secret is gone."""
    pixels, packed = seen(data), clean(data)
    assert isinstance(packed, bytes), packed
    np.testing.assert_array_equal(seen(packed), pixels)
    assert SECRET not in packed
    assert clean(packed) == packed
    return pixels


def refused(data: bytes, rules: Rules | None = None) -> Rejection:
    """Why a file is refused, which is the same each time and after packing."""
    result, packed = decode(data, at_full_size, rules or Rules()), clean(data)
    assert isinstance(result, Rejection)
    assert decode(bytes(bytearray(data)), at_full_size, rules or Rules()) == result
    assert "0x" not in result.detail
    if rules is None:
        assert packed == result
    return result


def exif(orientation: int = 1) -> Image.Exif:
    made = Image.Exif()
    made[274], made[271] = orientation, SECRET.decode()
    return made


# HEIC, AVIF, JPEG 2000.


def test_a_heic_of_a_phone_is_read_upright_and_packed_without_its_words() -> None:
    data = (GOLDEN / "phone.heic").read_bytes()
    assert data.count(SECRET) == 2
    assert b"irot" in data
    difference = both_ways(data).astype(int) - np.asarray(picture())
    assert np.abs(difference).mean() < 2


def turned_avif() -> bytes:
    return encoded(picture().transpose(Image.Transpose.ROTATE_90), "AVIF", exif=exif(6), xmp=SECRET)


OTHERS: dict[str, Callable[[], bytes]] = {
    "avif": turned_avif,
    "avif 4:4:4": lambda: encoded(picture(), "AVIF", subsampling="4:4:4", exif=exif()),
    "jp2": lambda: encoded(picture(), "JPEG2000", comment=SECRET),
    "a codestream of JPEG 2000": lambda: encoded(picture(), "JPEG2000", no_jp2=True),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_avif_and_jpeg_2000_are_read_upright(make: Callable[[], bytes]) -> None:
    difference = both_ways(make()).astype(int) - np.asarray(picture())
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_transparency_of_avif_and_jpeg_2000_is_laid_on_white(kind: str) -> None:
    image = Image.new("RGBA", (64, 64), (*RED, 255))
    image.paste((0, 0, 0, 0), (32, 0, 64, 64))
    pixels = both_ways(encoded(image, kind)).astype(int)
    assert np.abs(pixels[:, :24] - RED).max() < 12
    assert np.abs(pixels[:, 40:] - WHITE).max() < 12


@pytest.mark.parametrize(
    "make", [turned_avif, (GOLDEN / "phone.heic").read_bytes], ids=["avif", "heic"]
)
def test_a_cut_box_is_truncated(make: Callable[[], bytes]) -> None:
    data = make()
    assert refused(data[: len(data) * 9 // 10]).reason is Reason.TRUNCATED


def test_without_its_package_heic_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("No module named 'pi_heif'")

    monkeypatch.setattr(opening, "_register_heif", missing)
    result = decode((GOLDEN / "phone.heic").read_bytes(), at_full_size)
    assert isinstance(result, Rejection)
    assert result.reason is Reason.UNSUPPORTED
    assert "pip install pi-heif" in result.detail


@pytest.mark.parametrize(
    ("brands", "kind"),
    [
        (b"heic\0\0\0\0mif1", "HEIF"), (b"mif1\0\0\0\0heic", "HEIF"), (b"mif1\0\0\0\0avif", "AVIF"),
        (b"avif\0\0\0\0mif1", "AVIF"), (b"avis\0\0\0\0avif", "AVIF"), (b"isom\0\0\0\0mp41", None),
    ],
)  # fmt: skip
def test_what_is_in_a_box_is_told_by_its_brands(brands: bytes, kind: str | None) -> None:
    assert sniff(struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + bytes(40)) == kind


def test_a_file_claims_to_be_an_image_by_its_name_alone() -> None:
    names = ["a.jpg", "b/a.JPEG", "x.Png", "x.heic", "x.avif", "x.jp2", "x.tif", "x.bmp", "x.jxl"]
    assert all(map(claims_image, names))
    others = ["jpg", "a.jpg.txt", "a.txt", "_SUCCESS", "x.mp4", "x.json", "a.jpg/list.csv"]
    assert not any(map(claims_image, others))


# PNG.


def png(depth: int, colour: int, rows: bytes, *chunks: bytes, size: tuple[int, int]) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))
    picture = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + picture


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_of_a_png_is_white_at_any_depth(depth: int) -> None:
    greys = np.arange(min(2**depth, 16), dtype=np.uint32)
    clear, row = int(greys[-1] // 2), "".join(f"{grey:0{depth}b}" for grey in greys)
    packed = int(row, 2).to_bytes(len(row) // 8 or 1, "big") if depth > 1 else b"\x40"
    trns = chunk(b"tRNS", struct.pack(">H", clear))
    pixels = both_ways(png(depth, 0, b"\0" + packed, trns, size=(len(greys), 1)))[0, :, 0]
    expected = greys * 255 // (2**depth - 1)
    expected[clear] = 255
    np.testing.assert_array_equal(pixels, expected)


def test_a_transparent_colour_of_a_png_of_48_bits_is_white() -> None:
    rows = b"\0" + struct.pack(">6H", 1000, 2000, 3000, 60000, 2000, 3000)
    trns = chunk(b"tRNS", struct.pack(">3H", 1000, 2000, 3000))
    pixels = both_ways(png(16, 2, rows, trns, size=(2, 1)))
    np.testing.assert_array_equal(pixels[0], [WHITE, (234, 7, 11)])


def test_by_the_rules_of_before_transparent_greys_stay_as_they_were() -> None:
    trns = chunk(b"tRNS", struct.pack(">H", 8))
    data = png(4, 0, b"\0\x88", trns, size=(2, 1))
    assert (seen(data, rules_of(EXACT, 224, 10**6)) == 136).all()
    assert (seen(data) == 255).all()


def bad_pngs() -> dict[str, bytes]:
    row = b"\0" + bytes((10, 20, 30))
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(SECRET * 200_000))
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(SECRET * 200_000))
    wrong = bytearray(chunk(b"tEXt", b"Author\0" + SECRET))
    wrong[-1] ^= 1
    parts = {
        "a text over 1 MB": text,
        "a profile over 1 MB": profile,
        "a profile of an unknown method": chunk(b"iCCP", b"x\0\7" + SECRET),
        "a text with a wrong checksum": bytes(wrong),
        "a short resolution": chunk(b"pHYs", b"\0"),
        "a short gamma": chunk(b"gAMA", b"\0"),
    }
    return {name: png(8, 2, row, part, size=(1, 1)) for name, part in parts.items()}


@pytest.mark.parametrize("data", bad_pngs().values(), ids=bad_pngs())
def test_damage_in_what_is_no_pixel_costs_no_png(data: bytes) -> None:
    assert both_ways(data).tolist() == [[[10, 20, 30]]]


# JPEG.


TRAILERS = {
    "nothing": b"",
    "a trailer": b"\0\0\x01\x0aImage_UTC_Data" + SECRET * 7 + b"SEFT",
    "a trailer with markers": b"SEFH\xff\x41\xff\xe1\0\x04ab" + SECRET + b"\xff",
    "a trailer and an end": SECRET * 9 + b"\xff\xd9",
}


@pytest.mark.parametrize("trailer", TRAILERS.values(), ids=TRAILERS)
@pytest.mark.parametrize(
    "options",
    [{}, {"quality": 95, "subsampling": 0}, {"progressive": True}, {"restart_marker_blocks": 3}],
    ids=["baseline", "fine", "progressive", "restarts"],
)
def test_a_jpeg_that_lacks_only_its_end_mark_is_read(trailer: bytes, options: Any) -> None:
    whole = encoded(noise(), "JPEG", exif=exif(), **options)
    data = whole.removesuffix(b"\xff\xd9") + trailer
    np.testing.assert_array_equal(both_ways(data), seen(whole))
    # Not a byte is left of what followed, and not one of the picture is missing.
    assert clean(data) == clean(whole)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("missing", [3, 20, 500, 3000])
def test_a_jpeg_that_lacks_pixels_is_truncated(missing: int, progressive: bool) -> None:
    data = encoded(noise(), "JPEG", progressive=progressive)[:-missing]
    assert refused(data).reason is Reason.TRUNCATED


def test_damaged_exif_or_profile_costs_no_jpeg() -> None:
    whole = encoded(noise(), "JPEG")
    bad = b"ICC_PROFILE\0" + SECRET[:1], b"Exif\0\0II*\0\xff\xff\xff\xff" + SECRET
    parts = (struct.pack(">BBH", 255, 0xE2 - n, len(body) + 2) + body for n, body in enumerate(bad))
    np.testing.assert_array_equal(both_ways(whole[:2] + b"".join(parts) + whole[2:]), seen(whole))


@pytest.mark.parametrize(("marker", "bits"), [(0xC3, 8), (0xC1, 12)])
def test_a_jpeg_of_a_kind_that_is_not_read_is_unsupported(marker: int, bits: int) -> None:
    data = encoded(noise(), "JPEG").replace(
        b"\xff\xc0\0\x11\x08", bytes((255, marker, 0, 17, bits))
    )
    assert refused(data).reason is Reason.UNSUPPORTED


# What --accept-truncated takes.


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_of_a_cut_file_the_rest_is_accepted_where_that_is_wanted(kind: str) -> None:
    data = encoded(noise(), kind, **({"interlace": 0} if kind == "GIF" else {}))
    cut = data[: len(data) * 2 // 3]
    assert refused(cut).reason in {Reason.TRUNCATED, Reason.CORRUPT}
    result = decode(cut, at_full_size, Rules(accept_truncated=True))
    assert not isinstance(result, Rejection)
    assert result.special == {Special.TRUNCATED}
    half = slice(60, 90) if kind == "BMP" else slice(0, 40)
    np.testing.assert_array_equal(result.pixels[half], seen(data)[half])


def test_a_header_without_pixels_is_not_accepted() -> None:
    for kind in ("JPEG", "PNG"):
        data = encoded(noise(), kind)
        end = data.index(b"\xff\xda") + 14 if kind == "JPEG" else data.index(b"IDAT") + 6
        assert isinstance(decode(data[:end], at_full_size, Rules(accept_truncated=True)), Rejection)


def test_what_is_whole_or_damaged_is_not_called_truncated() -> None:
    tolerant = Rules(accept_truncated=True)
    whole = decode(encoded(noise(), "PNG"), at_full_size, tolerant)
    assert not isinstance(whole, Rejection)
    assert not whole.special
    damaged = bytearray(encoded(noise(), "PNG"))
    damaged[len(damaged) // 2] ^= 255
    result = decode(bytes(damaged), at_full_size, tolerant)
    assert isinstance(result, Rejection)
    assert result.reason is Reason.CORRUPT


# BMP.


def bmp(bits: int, masks: tuple[int, ...], *values: int, up: bool = True) -> bytes:
    """A row of pixels, twice."""
    row = b"".join(value.to_bytes(bits // 8, "little") for value in values)
    row += bytes(-len(row) % 4)
    header = struct.pack("<IiiHHIIiiII", 108, len(values), 2 if up else -2, 1, bits, 3, *[0] * 5)
    header += struct.pack("<4I", *masks, *[0] * (4 - len(masks))) + bytes(52)
    return b"BM" + struct.pack("<III", 122 + 2 * len(row), 0, 122) + header + 2 * row


ARGB4444, A1R5G5B5 = (0xF00, 0xF0, 0xF, 0xF000), (0x7C00, 0x3E0, 0x1F, 0x8000)


@pytest.mark.parametrize(
    ("bits", "masks", "values", "colours"),
    [
        (16, ARGB4444, (0xFF00, 0x000F, 0x8F00), [RED, WHITE, (255, 119, 119)]),
        (16, A1R5G5B5, (0xFC00, 0x001F), [RED, WHITE]),
        (16, A1R5G5B5, (0x7C00, 0x001F), [RED, BLUE]),  # an alpha that is 0 everywhere is none
        (16, (0xF800, 0x7E0, 0x1F), (0xF800, 0x001F), [RED, BLUE]),
        (32, (0x3FF00000, 0xFFC00, 0x3FF, 0), (0x3FF00000, 0x3FF), [RED, BLUE]),
        (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000), (0xFF0000FF, 0x00FFFFFF), [RED, WHITE]),
    ],
)
@pytest.mark.parametrize("up", [True, False])
def test_masks_of_a_bitmap_are_read(
    bits: int, masks: Any, values: Any, colours: Any, up: bool
) -> None:
    pixels = both_ways(bmp(bits, masks, *values, up=up))
    assert pixels.tolist() == [[[*colour] for colour in colours]] * 2


def test_rows_of_a_bitmap_begin_at_the_bottom() -> None:
    two = struct.pack("<2H", 0x7C00, 0) + struct.pack("<2H", 0x001F, 0)
    data = bmp(16, (0x7C00, 0x3E0, 0x1F), 0)[:-8] + two
    assert [row[0] for row in both_ways(data).tolist()] == [[*BLUE], [*RED]]


def test_a_bitmap_that_holds_a_jpeg_is_unsupported() -> None:
    data = bytearray(bmp(16, ARGB4444, 0))
    data[30] = 4
    assert refused(bytes(data)).reason is Reason.UNSUPPORTED


# TIFF.


def tiff(
    tags: dict[int, tuple[int, tuple[int, ...]]],
    body: bytes,
    *,
    order: str = "<",
    big: bool = False,
) -> bytes:
    """A TIFF of one strip; tags are (type, values) with 3 for 16 bits and 4 for 32."""
    at = 16 if big else 8
    tags = {273: (4, (at,)), 279: (4, (len(body),)), **tags}
    word, count, room = ("Q", "Q", 8) if big else ("I", "H", 4)
    extra, entries = b"", b""
    place = at + len(body)
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > room:
            where = struct.pack(order + word, place + len(extra))
            extra += packed
        else:
            where = packed.ljust(room, b"\0")
        entries += struct.pack(f"{order}HH{word}", tag, kind, len(values)) + where
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    head += struct.pack(order + "HHQ", 8, 0, place + len(extra)) if big else struct.pack(
        order + "I", place + len(extra)
    )  # fmt: skip
    return head + body + extra + struct.pack(order + count, len(tags)) + entries + bytes(8)


def grey_tags(samples: int, bits: int, width: int = 2, **more: int) -> dict[int, Any]:
    tags = {
        256: width,
        257: 1,
        262: 1,
        277: samples,
        278: 1,
        **{int(k[1:]): v for k, v in more.items()},
    }
    return {**{tag: (3, (value,)) for tag, value in tags.items()}, 258: (3, (bits,) * samples)}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("extra", "greys"), [(2, [100, 255, 227]), (1, [100, 255, 255]), (0, [100, 7, 200])]
)
def test_grey_and_alpha_of_16_bits_is_read(
    order: str, big: bool, extra: int, greys: list[int]
) -> None:
    values = (100 << 8 | 7, 65535, 7 << 8, 0, 200 << 8, 0x8080)
    body = struct.pack(f"{order}6H", *values)
    tags = grey_tags(2, 16, width=3, t338=extra)
    assert both_ways(tiff(tags, body, order=order, big=big))[0, :, 0].tolist() == greys


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("compression", [1, 8])
def test_tiffs_of_both_orders_and_sizes_are_read(order: str, big: bool, compression: int) -> None:
    for bits, code, most in ((8, "B", 255), (16, "H", 65535)):
        body = struct.pack(f"{order}2{code}", most // 5, most)
        body = zlib.compress(body) if compression == 8 else body
        data = tiff(grey_tags(1, bits, t259=compression), body, order=order, big=big)
        assert both_ways(data)[0, :, 0].tolist() == [51, 255]


@pytest.mark.parametrize("bits", [8, 16])
def test_greys_of_a_tiff_may_run_from_white_to_black(bits: int) -> None:
    data = tiff(grey_tags(1, bits, t262=0), bytes(bits // 8) + b"\xff" * (bits // 8))
    assert both_ways(data)[0, :, 0].tolist() == [255, 0]


def test_too_many_pixels_are_told_of_grey_and_alpha_too() -> None:
    data = tiff(grey_tags(2, 16, width=3, t338=2), bytes(12))
    detail = refused(data, Rules(max_pixels=2)).detail
    assert detail == "3 x 1 pixels, more than 2"


def test_lab_and_palettes_of_a_tiff_are_read() -> None:
    lab = {**grey_tags(3, 8, width=2), 262: (3, (8,))}
    pixels = both_ways(tiff(lab, bytes((255, 0, 0, 136, 81, 70))))[0].astype(int)
    assert np.abs(pixels - [WHITE, (254, 0, 0)]).max() <= 8
    colours = (3, (65535,) + (0,) * 15 + (0,) * 16 + (0, 65535) + (0,) * 14)
    paletted = {**grey_tags(1, 4, width=2), 262: (3, (3,)), 320: colours}
    assert both_ways(tiff(paletted, b"\x01")).tolist() == [[[*RED], [*BLUE]]]


@pytest.mark.parametrize(
    "compression",
    ["raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "lzma", "zstd"],
)
def test_every_compression_of_the_build_is_read(compression: str) -> None:
    data = encoded(picture(), "TIFF", compression=compression)
    np.testing.assert_array_equal(both_ways(data), np.asarray(picture()))


UNSUPPORTED: dict[str, dict[int, Any]] = {
    "an unknown compression": grey_tags(1, 8, t259=34712),
    "WebP, which the wheel's libtiff lacks": grey_tags(1, 8, t259=50001),
    "numbers of 64 bits": grey_tags(1, 64),
    "floating point": {**grey_tags(1, 32), 339: (3, (3,))},
    "colours of 32 bits": {**grey_tags(3, 32), 262: (3, (2,))},
    "five greys": grey_tags(5, 8),
}


@pytest.mark.parametrize("tags", UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_a_sound_tiff_that_is_not_read_is_unsupported_in_the_same_words(
    tags: dict[int, Any],
) -> None:
    data = tiff(tags, bytes(64))
    assert refused(data).reason is Reason.UNSUPPORTED
    # Where the file is in memory is no news.
    assert refused(data) == refused(data + b"")


def test_damaged_texts_and_resolutions_cost_no_tiff() -> None:
    nowhere = (4, (2**31, 7, 9))
    for tag in (270, 282, 305, 306, 315, 700, 34665, 34853, 37724):
        data = tiff({**grey_tags(1, 8), tag: nowhere}, bytes((51, 255)))
        assert both_ways(data)[0, :, 0].tolist() == [51, 255], tag


def test_bytes_beyond_a_strip_are_not_packed() -> None:
    tags = {**grey_tags(1, 8), 279: (4, (2 + len(SECRET),))}
    for compression in (1, 8, 32773):
        body = {1: bytes((51, 255)), 8: zlib.compress(bytes((51, 255))), 32773: b"\1\x33\xff"}
        data = tiff({**tags, 259: (3, (compression,))}, body[compression] + SECRET)
        assert both_ways(data)[0, :, 0].tolist() == [51, 255]


def test_libtiff_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    data = encoded(noise(), "TIFF", compression="tiff_lzw")
    for at in range(8, len(data), len(data) // 40):
        decode(data[:at] + b"\xff\xff\xff" + data[at + 3 :], at_full_size)
    decode(tiff({**grey_tags(1, 8, t259=8), 65000: (3, (1,))}, b"no stream"), at_full_size)
    assert capfd.readouterr() == ("", "")
