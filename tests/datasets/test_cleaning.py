"""Words put into every place that a format has are not in what is packed, and pixels stay.

The places are found by walking the format: between and inside all its parts, and after them.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

import pictures
from pictures import chunk, picture, riff, segment
from verger.datasets.cleaning import clean
from verger.datasets.packing import pack
from verger.images.decoding import at_full_size, decode
from verger.output.layout import Rejection
from verger.store.location import Location

MARK = b"MARKED:Jean Dupont,48.8583N"
GOLDEN = Path(__file__).parents[1] / "golden"

Stuffed = Iterator[tuple[str, bytes]]


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    return pictures.encoded(picture(mode), kind, **options)


def pixels(data: bytes) -> np.ndarray | None:
    result = decode(data, at_full_size)
    return None if isinstance(result, Rejection) else result.pixels


def words_in(data: bytes) -> bytes:
    """All that a file holds, with what PNG has packed."""
    found, at = data, 8
    while data.startswith(b"\x89PNG") and at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + size]
        start = body.find(b"\0") + 2 if kind == b"iCCP" else 4 if kind == b"fdAT" else 0
        if kind in {b"IDAT", b"iCCP", b"fdAT"}:
            stream = zlib.decompressobj()
            found += stream.decompress(body[start:]) + stream.unused_data
        at += 12 + size
    return found


def profile() -> bytes:
    """sRGB with twisted primaries and a name, so that it is kept, cut down."""
    icc = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for number in range(int.from_bytes(icc[128:132], "big")):
        tag, at, size = struct.unpack_from(">4sII", icc, 132 + 12 * number)
        if tag == b"gXYZ":
            icc[at + 8 : at + 12] = struct.pack(">i", 20_000)
        if tag in {b"desc", b"cprt"}:
            icc[at + size - 8 : at + size] = MARK[:8]
    return bytes(icc) + MARK


def exif() -> Image.Exif:
    made = Image.Exif()
    made[271] = MARK.decode()
    return made


# JPEG.


def jpeg_places(data: bytes) -> Iterator[tuple[int, int]]:
    """Where each segment, and the end mark, begins; and its marker."""
    at = 2
    while True:
        yield at, data[at + 1]
        if data[at + 1] == 0xD9:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at] != 0xFF or data[at + 1] in {0, *range(0xD0, 0xD8)}:
            while not (data[at] == 0xFF and data[at + 1] not in {0, *range(0xD0, 0xD8)}):
                at += 1


HEADS = (
    b"",
    b"Exif\0\0",
    b"Exif\0\0II*\0\x08\0\0\0",
    b"http://ns.adobe.com/xap/1.0/\0",
    b"JFIF\0\1\1",
    b"JFXX\0",
    b"Adobe",
    b"ICC_PROFILE\0\1\1",
    b"MPF\0",
    b"Photoshop 3.0\x008BIM",
    b"FPXR\0",
)


def stuffed_jpegs(data: bytes) -> Stuffed:
    for at, before in jpeg_places(data):
        for marker in (*range(0xE0, 0xF0), 0xFE, 0xDC):
            for head in HEADS if marker < 0xF0 else (b"",):
                part = segment(marker, head + MARK)
                yield f"{marker:X} {head!r} before {before:X} at {at}", data[:at] + part + data[at:]
        yield f"garbage before {before:X}", data[:at] + MARK + data[at:]
    yield "after the end", data + MARK
    yield "in the last scan", data[:-2] + MARK + data[-2:]
    yield "instead of the end", data[:-2] + MARK
    yield "instead of the end, with marks", data[:-2] + b"\xff\xe5\0\xff" + MARK
    icc = profile()
    yield "in a profile", data[:2] + segment(0xE2, b"ICC_PROFILE\0\1\1" + icc) + data[2:]


# PNG.


def png_chunks(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 8
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        yield at, at + 12 + size, kind
        at += 12 + size


KINDS = (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME", b"iCCP", b"sPLT", b"hIST", b"bKGD", b"pHYs",
         b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"tRNS", b"PLTE", b"cICP", b"prVt", b"caBX", b"acTL",
         b"fcTL", b"fdAT", b"vpAg")  # fmt: skip


def stuffed_pngs(data: bytes) -> Stuffed:
    for start, end, before in png_chunks(data):
        # A palette and its transparency are the picture.
        for kind in (kind for kind in KINDS if data[25] != 3 or kind not in {b"tRNS", b"PLTE"}):
            yield f"{kind!r} before {before!r}", data[:start] + chunk(kind, MARK) + data[start:]
        body = data[start + 8 : end - 4]
        if data[25] != 3 or before not in {b"tRNS", b"PLTE"}:
            yield f"in {before!r}", data[:start] + chunk(before, body + MARK) + data[end:]
        if before == b"IDAT":
            rows = zlib.decompress(body)
            more = chunk(before, zlib.compress(rows + MARK))
            yield "in a row too many", data[:start] + more + data[end:]
    yield "after the end", data + MARK
    icc = chunk(b"iCCP", MARK + b"\0\0" + zlib.compress(profile()))
    yield "in a profile and its name", data[:33] + icc + data[33:]


# WebP.


def stuffed_webps(data: bytes) -> Stuffed:
    chunks, at = [], 12
    while at < len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        chunks.append((kind, data[at + 8 : at + 8 + size]))
        at += 8 + size + size % 2

    def made(parts: list[tuple[bytes, bytes]]) -> bytes:
        body = b"WEBP" + b"".join(riff(*part) for part in parts)
        return b"RIFF" + struct.pack("<I", len(body)) + body

    extended = [
        (b"VP8X", bytes((0x3C,)) + bytes(3) + struct.pack("<I", 60)[:3] + struct.pack("<I", 39)[:3])
    ]
    whole = chunks if chunks[0][0] == b"VP8X" else extended + chunks
    if whole[0][1][0] & 2 == 0:
        whole[0] = (b"VP8X", bytes((whole[0][1][0] | 0x2C,)) + whole[0][1][1:])
    for parts in (chunks, whole):
        for place, (before, body) in enumerate(parts):
            for kind in (b"EXIF", b"XMP ", b"ICCP", b"mine", b"ALPH", b"ANIM", b"IPTC"):
                new = [*parts[:place], (kind, MARK), *parts[place:]]
                yield f"{kind!r} before {before!r}", made(new)
            new = [*parts[:place], (before, body + MARK), *parts[place + 1 :]]
            yield f"in {before!r}", made(new)
    yield "at the end", made([*whole, (b"EXIF", MARK)])
    yield "in a profile", made([whole[0], (b"ICCP", profile()), *whole[1:]])
    yield "after the end", data + MARK


# What becomes a PNG.


def stuffed_gifs(data: bytes) -> Stuffed:
    block = bytes((len(MARK),)) + MARK + b"\0"
    start = data.index(b",\0\0\0\0")
    for code in (0xFE, 0x01, 0xFF):
        yield f"extension {code:X}", data[:start] + bytes((0x21, code)) + block + data[start:]
    yield "after the picture", data[:-2] + block + data[-1:]
    yield "after the end", data + MARK


def stuffed_bmps(data: bytes) -> Stuffed:
    offset = struct.unpack_from("<I", data, 10)[0]
    moved = data[:10] + struct.pack("<I", offset + len(MARK)) + data[14:offset]
    yield "before the pixels", moved + MARK + data[offset:]
    yield "after the pixels", data + MARK


def stuffed_tiffs(data: bytes) -> Stuffed:
    at = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, at)[0]
    entries = [data[at + 2 + 12 * number :][:12] for number in range(count)]
    values = data + bytes(len(data) % 2) + MARK
    here = len(values) - len(MARK)
    for tag in (
        270,
        271,
        272,
        285,
        305,
        306,
        315,
        316,
        700,
        33432,
        33723,
        34377,
        37500,
        50839,
        65000,
    ):
        new = struct.pack("<HHII", tag, 7, len(MARK), here)
        table = sorted([*entries, new], key=lambda entry: struct.unpack_from("<H", entry))
        where = len(values) + len(values) % 2
        directory = struct.pack("<H", len(table)) + b"".join(table) + bytes(4)
        head = values[:4] + struct.pack("<I", where) + values[8:]
        yield f"tag {tag}", head.ljust(where, b"\0") + directory
    yield "after the end", data + MARK


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def stuffed_boxes(data: bytes) -> Stuffed:
    ends, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big") or len(data) - at
        at += size
        ends.append(at)
    for kind in (b"free", b"skip", b"uuid", b"udta", b"xml ", b"mine"):
        # At the end alone: what is before has its place in numbers.
        yield f"{kind!r} at the end", data + box(kind, MARK)
    yield "after the end", data + MARK
    yield "as it is", data


BASES: dict[str, tuple[Callable[[], bytes], Callable[[bytes], Stuffed], int]] = {
    "jpeg": (lambda: encoded("JPEG"), stuffed_jpegs, 1000),
    # Ten scans have ten times as many places, and each decides on its end by decoding.
    "progressive": (
        lambda: encoded("JPEG", progressive=True),
        lambda data: islice(stuffed_jpegs(data), 0, None, 13),
        200,
    ),
    "grey jpeg": (lambda: encoded("JPEG", "L", quality=95), stuffed_jpegs, 800),
    "cmyk jpeg": (lambda: encoded("JPEG", "CMYK"), stuffed_jpegs, 1000),
    "png": (lambda: encoded("PNG"), stuffed_pngs, 50),
    "palette": (lambda: encoded("PNG", "P", transparency=3), stuffed_pngs, 80),
    "16 bits": (lambda: encoded("PNG", "I;16"), stuffed_pngs, 50),
    "webp": (lambda: encoded("WEBP"), stuffed_webps, 20),
    "lossless": (lambda: encoded("WEBP", lossless=True), stuffed_webps, 20),
    "webp with alpha": (
        lambda: encoded("WEBP", "RGBA", exif=b"Exif\0\0" + MARK),
        stuffed_webps,
        20,
    ),
    "gif": (lambda: encoded("GIF", comment=MARK), stuffed_gifs, 4),
    "bmp": (lambda: encoded("BMP"), stuffed_bmps, 2),
    "tiff": (lambda: encoded("TIFF"), stuffed_tiffs, 16),
    "lzw": (lambda: encoded("TIFF", compression="tiff_lzw"), stuffed_tiffs, 16),
    "heic": ((GOLDEN / "phone.heic").read_bytes, stuffed_boxes, 7),
    "avif": (lambda: encoded("AVIF", exif=exif(), xmp=MARK), stuffed_boxes, 7),
    "jp2": (lambda: encoded("JPEG2000", comment=MARK), stuffed_boxes, 7),
}


@pytest.mark.parametrize(("base", "stuff", "least"), BASES.values(), ids=BASES)
def test_no_word_is_left_and_no_pixel_changed(
    base: Callable[[], bytes], stuff: Callable[[bytes], Stuffed], least: int
) -> None:
    kept = 0
    for where, data in stuff(base()):
        seen, made = pixels(data), clean(data)
        if isinstance(made, Rejection):
            assert seen is None, where
            continue
        kept += 1
        assert MARK[:8] not in words_in(made), where
        assert seen is not None, where
        np.testing.assert_array_equal(pixels(made), seen, err_msg=where)
        assert clean(made) == made, where
    assert kept >= least


def test_no_word_is_in_the_shards_of_a_pack(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, (base, stuff, _) in BASES.items():
        for number, (_, data) in enumerate(stuff(base())):
            if number % 40 < 2:
                (tmp_path / f"in/{name} {number}.jpg").write_bytes(data)
    packed = pack(Location(str(tmp_path / "in")), Location(str(tmp_path / "out")))
    assert packed.images > 100
    for file in (tmp_path / "out").iterdir():
        assert MARK[:8] not in file.read_bytes(), file
        assert str(tmp_path).encode() not in file.read_bytes(), file
