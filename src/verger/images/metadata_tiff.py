"""TIFF files without their metadata, and the orientation in EXIF, whose blocks are TIFF files."""

import re
import struct
import warnings
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from PIL import Image

UPRIGHT = 1
TURNED = range(2, 9)
"""Values of the orientation."""

BYTE, SHORT, LONG, UNDEFINED, LONG8 = 1, 3, 4, 7, 16
"""Types of a tag's values."""
_WHOLE = {BYTE: "B", SHORT: "H", LONG: "I", LONG8: "Q"}
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}


class Tag(IntEnum):
    """What decoding needs (TIFF 6.0), and where an orientation may be."""

    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIPS = 273
    ORIENTATION = 274
    SAMPLES = 277
    STRIP_ROWS = 278
    STRIP_BYTES = 279
    PLANAR = 284
    FAX3_OPTIONS = 292
    FAX4_OPTIONS = 293
    PREDICTOR = 317
    COLORS = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILES = 324
    TILE_BYTES = 325
    INKS = 332
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    JPEG_TABLES = 347
    YCBCR_COEFFICIENTS = 529
    YCBCR_SUBSAMPLING = 530
    YCBCR_POSITION = 531
    BLACK_AND_WHITE = 532
    XMP = 700


_WRITTEN_ANEW = {
    Tag.STRIPS, Tag.STRIP_BYTES, Tag.TILES, Tag.TILE_BYTES, Tag.ORIENTATION, Tag.XMP,
}  # fmt: skip
_KEPT = set(Tag) - _WRITTEN_ANEW
_READ = set(Tag) - {Tag.XMP}

_RAW, _JPEG = 1, 7
_COMPRESSIONS = {
    _RAW, 2, 3, 4, 5, _JPEG, 8, 32773, 32809, 32946, 34676, 34677, 34925, 50000,
}  # fmt: skip
"""Those in which nothing but pixels has room, and JPEG, which is stripped itself."""

Strip = Callable[[bytes], bytes]


def exif_block(orientation: int) -> bytes:
    """An EXIF block that says nothing but the orientation."""
    entry = struct.pack("<HHIHH", Tag.ORIENTATION, SHORT, 1, orientation, 0)
    return b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)


def exif_orientation(exif: bytes, xmp: bytes) -> int:
    """What EXIF says, or XMP where EXIF says nothing: what Pillow would apply."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = Image.Exif()
            found.load(exif)
            value = found.get(Tag.ORIENTATION)
    except Exception:  # noqa: BLE001 - damaged tags raise nearly anything
        return UPRIGHT
    return _xmp_orientation(xmp) if value is None else turned(value)


def turned(value: object) -> int:
    """The orientation that a value means; upright when it means none."""
    return next((turn for turn in TURNED if turn == value), UPRIGHT)


def _xmp_orientation(xmp: bytes) -> int:
    match = re.search(rb'tiff:Orientation(="|>)([0-9])', xmp)
    return turned(int(match[2])) if match else UPRIGHT


class _Entry(NamedTuple):
    """A tag's type, the number of its values, and their bytes."""

    kind: int
    number: int
    raw: bytes


class _Form:
    """How a TIFF writes its numbers: byte order, and 8 bytes for offsets in a BigTIFF."""

    def __init__(self, data: bytes) -> None:
        self.order = "<" if data[:2] == b"II" else ">"
        self.big = b"+" in data[2:4]
        self.word = struct.Struct(self.order + ("Q" if self.big else "I"))
        self.length = struct.Struct(self.order + ("Q" if self.big else "H"))

    def whole(self, entry: _Entry | None, default: int | None = None) -> tuple[int, ...]:
        """The values of a tag of whole numbers, or the default where there is no such tag."""
        if entry is None and default is not None:
            return (default,)
        if entry is None or entry.kind not in _WHOLE or not entry.number:
            raise ValueError("it lacks a tag, or has no whole numbers there")
        return struct.unpack(f"{self.order}{entry.number}{_WHOLE[entry.kind]}", entry.raw)

    def entry(self, values: list[int]) -> _Entry:
        """Offsets or sizes as a tag holds them."""
        kind = LONG8 if self.big else LONG
        raw = struct.pack(f"{self.order}{len(values)}{_WHOLE[kind]}", *values)
        return _Entry(kind, len(values), raw)


Tags = dict[int, _Entry]


def strip_tiff(data: bytes, strip_jpeg: Strip, strip_tables: Strip) -> bytes:
    """Write the first picture of a TIFF anew, with nothing but what decoding needs.

    Args:
        data: a TIFF or BigTIFF file.
        strip_jpeg: strips a JPEG picture, where a strip or tile is one.
        strip_tables: strips a JPEG stream that has tables and no picture.

    Raises:
        ValueError: its structure cannot be followed.
        struct.error: likewise, since it is cut short.
    """
    form = _Form(data)
    found = _directory(data, form)
    tags = {tag: entry for tag, entry in found.items() if tag in _KEPT}
    (compression, *_) = form.whole(found.get(Tag.COMPRESSION), _RAW)
    pieces = _pieces(data, form, found, compression)
    tables = tags.pop(Tag.JPEG_TABLES, None)
    if compression == _JPEG:
        pieces = [strip_jpeg(piece) for piece in pieces]
        if tables:
            stripped = strip_tables(tables.raw)
            tags[Tag.JPEG_TABLES] = _Entry(UNDEFINED, len(stripped), stripped)
    orientation = _orientation(form, found)
    if orientation != UPRIGHT:
        tags[Tag.ORIENTATION] = _Entry(SHORT, 1, struct.pack(form.order + "H", orientation))
    return _write(form, tags, pieces, tiled=Tag.TILES in found)


def _directory(data: bytes, form: _Form) -> Tags:
    """The first directory; of tags that are not read, values may be missing."""
    word = form.word.size
    (at,) = form.word.unpack_from(data, word)
    (number,) = form.length.unpack_from(data, at)
    at += form.length.size
    found: Tags = {}
    for start in range(at, at + number * (4 + 2 * word), 4 + 2 * word):
        tag, kind = struct.unpack_from(form.order + "HH", data, start)
        (values,) = form.word.unpack_from(data, start + 4)
        place = start + 4 + word
        size = _TYPE_BYTES.get(kind, 0) * values
        if size > word:
            (place,) = form.word.unpack_from(data, place)
        raw = data[place : place + size]
        if tag in _READ and (tag in found or not size or len(raw) != size):
            raise ValueError(f"its tag {tag} is there twice, or damaged")
        found[tag] = _Entry(kind, values, raw)
    return found


def _pieces(data: bytes, form: _Form, found: Tags, compression: int) -> list[bytes]:
    """The strips or tiles."""
    tiled = Tag.TILES in found
    if compression not in _COMPRESSIONS or tiled == (Tag.STRIPS in found):
        raise ValueError(f"its pixels are of the kind {compression}, or not in strips or tiles")
    offsets = form.whole(found.get(Tag.TILES if tiled else Tag.STRIPS))
    sizes = form.whole(found.get(Tag.TILE_BYTES if tiled else Tag.STRIP_BYTES))
    # A file that names the same place many times would grow without end.
    if len(offsets) != len(sizes) or sum(sizes) > len(data):
        raise ValueError("the sizes of its strips are impossible")
    pieces = [data[at : at + size] for at, size in zip(offsets, sizes, strict=True)]
    # Without compression, decoders read what the picture needs, whatever the size says.
    needed = _raw_sizes(form, found, len(pieces)) if compression == _RAW else [1] * len(pieces)
    if any(
        len(piece) != size or size < least
        for piece, size, least in zip(pieces, sizes, needed, strict=True)
    ):
        raise ValueError("a strip is cut short")
    return pieces


def _raw_sizes(form: _Form, found: Tags, pieces: int) -> list[int]:
    """The bytes that a decoder reads of each strip or tile that is not compressed."""

    def one(tag: Tag, default: int | None = None) -> int:
        return form.whole(found.get(tag), default)[0]

    bits, samples = form.whole(found.get(Tag.BITS), 1), one(Tag.SAMPLES, 1)
    if one(Tag.PLANAR, 1) != 1:
        pixel = bits[0]
    else:
        pixel = bits[0] * samples if len(bits) == 1 else sum(bits[:samples])
    if Tag.TILES in found:
        return [(one(Tag.TILE_WIDTH) * pixel + 7) // 8 * one(Tag.TILE_HEIGHT)] * pieces
    row = (one(Tag.WIDTH) * pixel + 7) // 8
    height = one(Tag.HEIGHT)
    rows = min(one(Tag.STRIP_ROWS, height), height)
    if not rows:
        raise ValueError("it has no rows")
    plane = -(-height // rows)
    return [row * min(rows, height - number % plane * rows) for number in range(pieces)]


def _orientation(form: _Form, found: Tags) -> int:
    entry = found.get(Tag.ORIENTATION)
    if entry is None:
        return _xmp_orientation(found[Tag.XMP].raw) if Tag.XMP in found else UPRIGHT
    # Pillow takes a value of the type BYTE for text, and the first where there are several.
    return UPRIGHT if entry.kind == BYTE else turned(form.whole(entry)[0])


def _write(form: _Form, tags: Tags, pieces: list[bytes], *, tiled: bool) -> bytes:
    """A file of one directory: pixels, then values, then the directory."""
    order, word = form.order, form.word.size
    version = (43, 8, 0) if form.big else (42,)
    head = struct.pack(f"{order}{len(version)}H", *version) + bytes(word)
    out = bytearray((b"II" if order == "<" else b"MM") + head)

    def place(raw: bytes) -> int:
        out.extend(bytes(len(out) % 2))
        out.extend(raw)
        return len(out) - len(raw)

    tags[Tag.TILES if tiled else Tag.STRIPS] = form.entry([place(piece) for piece in pieces])
    sizes = form.entry([len(piece) for piece in pieces])
    tags[Tag.TILE_BYTES if tiled else Tag.STRIP_BYTES] = sizes
    directory = form.length.pack(len(tags))
    for tag, (kind, number, raw) in sorted(tags.items()):
        value = form.word.pack(place(raw)) if len(raw) > word else raw.ljust(word, b"\0")
        directory += struct.pack(order + "HH", tag, kind) + form.word.pack(number) + value
    form.word.pack_into(out, word, place(directory + bytes(word)))
    return bytes(out)
