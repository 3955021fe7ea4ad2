"""PNG: a chain of chunks; https://www.w3.org/TR/png-3/."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image
from PIL.ExifTags import Base

from verger.images.colours import MAX_PROFILE_BYTES, cut_profile
from verger.images.formats.exif import UPRIGHT, exif_block, turned

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT"}
_ANIMATION = {b"acTL", b"fcTL", b"fdAT"}
_TEXTS = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}
_IHDR_BYTES = 25
_FRAME_BYTES = 26
_PALETTED = 3
_SAMPLES = {0: 1, 2: 3, _PALETTED: 1, 4: 2, 6: 4}
"""Numbers in a pixel, by colour type."""
_TRANSPARENCY_BYTES = {0: 2, 2: 6, _PALETTED: 256}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
          (0, 1, 1, 2))  # fmt: skip
"""Passes of an interlaced picture: first column and row, and the steps from there."""
_PIECE = 2**20
MAX_PIXELS = 2**28
"""What is looked through for bytes after the picture; a larger one is not stripped."""


def strip_png(data: bytes) -> bytes:
    """A PNG without metadata; see `verger.images.stripping`.

    Raises:
        ValueError: its structure cannot be followed to its end.
    """
    chunks = list(_chunks(data))
    kinds = {kind for kind, _ in chunks}
    first, header = chunks[0]
    if first != b"IHDR" or len(header) != _IHDR_BYTES or b"IDAT" not in kinds:
        raise ValueError("it has no header, or no picture")
    turn = _orientation(chunks, b"acTL" in kinds)
    keep = _KEPT | _ANIMATION if {b"acTL", b"fcTL"} <= kinds else _KEPT
    block = b"" if turn == UPRIGHT else _chunk(b"eXIf", exif_block(turn))
    colours = _profile(chunks)
    rest = _exact([(kind, chunk) for kind, chunk in chunks[1:] if kind in keep], header)
    return b"".join((SIGNATURE, header, colours, block, *rest, _chunk(b"IEND", b"")))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each chunk's kind, and all of it."""
    at = len(SIGNATURE)
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + length + 12
        if end > len(data):
            raise ValueError(f"its chunk {kind!r} is cut short")
        if not kind.isalpha():  # where Pillow stops reading
            raise ValueError(f"{kind!r} names no chunk")
        yield kind, data[at:end]
        at = end


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def _orientation(chunks: list[tuple[bytes, bytes]], animated: bool) -> int:
    """What Pillow finds in the texts, which it is shown with a picture of one pixel."""
    texts: list[bytes] = []
    has_picture = False
    for kind, chunk in chunks:
        has_picture |= kind == b"IDAT"
        if kind == b"fcTL" and animated and has_picture:
            break  # of the second frame, where Pillow stops reading
        if kind in _TEXTS:
            texts.append(_chunk(kind, chunk[8:-4]))
    if not texts:
        return UPRIGHT
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    pixel = _chunk(b"IDAT", zlib.compress(bytes(2))) + _chunk(b"IEND", b"")
    try:
        with Image.open(io.BytesIO(b"".join((SIGNATURE, header, *texts, pixel)))) as image:
            return turned(image.getexif().get(Base.Orientation))
    except Exception:  # noqa: BLE001 - damaged texts raise nearly anything
        return UPRIGHT


def _profile(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """The chunk of the profile, cut down; nothing where there is none, or a damaged one."""
    profile = b""
    for kind, chunk in chunks:
        if kind == b"IDAT":
            break
        if kind == b"iCCP":  # of several, Pillow takes the last
            _, _, packed = chunk[8:-4].partition(b"\0")
            try:
                profile = zlib.decompressobj().decompress(packed[1:], MAX_PROFILE_BYTES * 16)
            except zlib.error:
                profile = b""
    cut = cut_profile(profile)
    return _chunk(b"iCCP", b"icc\0\0" + zlib.compress(cut)) if cut else b""


def _exact(chunks: list[tuple[bytes, bytes]], header: bytes) -> Iterator[bytes]:
    """The chunks of a picture, or of all frames, without what decoders read past.

    That is a palette that no pixel uses, and what follows the last row of a picture.
    """
    colour = header[17]
    frame = struct.unpack_from(">II", header, 8)
    parts: list[bytes] = []
    last = b""
    for kind, chunk in [*chunks, (b"", b"")]:
        if last in {b"IDAT", b"fdAT"} and kind != last:
            yield from _exact_picture(last, parts, frame, header)
            parts = []
        last = kind
        if kind in {b"IDAT", b"fdAT"}:
            parts.append(chunk)
        elif kind == b"tRNS":
            yield _chunk(kind, chunk[8:-4][: _TRANSPARENCY_BYTES.get(colour, 0)])
        elif kind == b"fcTL":
            frame = struct.unpack_from(">II", chunk, 12)
            yield _chunk(kind, chunk[8:-4][:_FRAME_BYTES])
        elif kind == b"acTL":
            frames = sum(other == b"fcTL" for other, _ in chunks)
            yield _chunk(kind, struct.pack(">I", frames) + chunk[12:16])
        elif kind != b"PLTE" or colour == _PALETTED:
            yield chunk


def _exact_picture(
    kind: bytes, chunks: list[bytes], size: tuple[int, int], header: bytes
) -> list[bytes]:
    """The chunks of one picture; written anew if they hold more than its rows."""
    skipped = 12 if kind == b"fdAT" else 8  # frames after the first have numbers
    packed = b"".join(chunk[skipped:-4] for chunk in chunks)
    wanted = _row_bytes(size, header)
    unpacker, done, rest = zlib.decompressobj(), 0, packed
    try:
        while rest and not unpacker.eof and done <= wanted:
            done += len(unpacker.decompress(rest, _PIECE))
            rest = unpacker.unconsumed_tail
    except zlib.error:
        return chunks  # decoders refuse it
    if done <= wanted and not unpacker.unused_data:
        return chunks
    rows = zlib.decompressobj().decompress(packed, wanted)
    return [_chunk(kind, chunks[0][8:skipped] + zlib.compress(rows))]


def _row_bytes(size: tuple[int, int], header: bytes) -> int:
    """How many bytes the rows of a picture have, with a byte for the filter of each."""
    width, height = size
    depth, colour, interlaced = header[16], header[17], header[20]
    if width * height > MAX_PIXELS:
        raise ValueError("it has too many pixels")
    bits = depth * _SAMPLES.get(colour, 1)
    total = 0
    for left, top, right, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        total += rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0
    return total


def transparent_colour(image: Image.Image, data: bytes) -> Any:
    """What tRNS says of an opened PNG that has one, in the depth of its pixels.

    Pillow gives the colour in the depth of the file, and pixels of 1 to 4 bits and of 48 in 8.
    """
    clear: Any = image.info["transparency"]
    depth = data[24]
    if isinstance(clear, int) and image.mode in {"1", "L"}:
        return clear * 255 // (2**depth - 1)
    if isinstance(clear, tuple) and depth == 16:  # noqa: PLR2004
        return tuple(value >> 8 for value in clear)
    return clear
