"""Images without their metadata: what tells of people, places and cameras goes, pixels stay.

For each format there is a list of what decoding needs; all else goes, known or not. Compressed
pixels are copied as they are. Only the orientation is kept, as Pillow reads it.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import partial

from PIL import Image

from verger.images.decoding import sniff
from verger.images.metadata_tiff import (
    UPRIGHT,
    Tag,
    exif_block,
    exif_orientation,
    strip_tiff,
    turned,
)


def strip_metadata(data: bytes) -> bytes:
    """Remove all metadata but the orientation, and whatever follows the image.

    Args:
        data: a JPEG, PNG, WebP, GIF, BMP or TIFF file, whatever its name; of an animation all
            frames are kept, of a TIFF or MPO the first picture.

    Returns:
        A file that decodes to the same pixels; stripping it again changes nothing.

    Raises:
        ValueError: it is none of these, or its structure cannot be followed to the end.
    """
    name = sniff(data) or ""
    if name not in _STRIPPERS:
        raise ValueError("not a JPEG, PNG, WebP, GIF, BMP or TIFF file")
    try:
        return _STRIPPERS[name](data)
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"{name}: it ends in the middle of its structure") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


# JPEG: a chain of segments; ITU-T T.81.

_APP0, _APP1, _APP14, _COMMENT = 0xE0, 0xE1, 0xEE, 0xFE
_EOI, _SOS = 0xD9, 0xDA
_DECODING = ({*range(0xC0, 0xD0)} - {0xC8}) | {_SOS, 0xDB, 0xDC, 0xDD}
"""Frames, their tables (Huffman, arithmetic, quantization), lines and restart intervals."""
_APPLICATION = {*range(_APP0, 0xF0), _COMMENT}
_KNOWN = _DECODING | _APPLICATION
_BARE = {0x01, *range(0xD0, 0xD8)}
"""Markers without a body; those of restarts mean something only within a scan."""
_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Within a scan, 0xFF00 is a 0xFF of the pixels, and restarts belong to it."""
_JFIF, _ADOBE = b"JFIF\0", b"Adobe"
_JFIF_BYTES, _ADOBE_BYTES = 14, 12
_XMP = b"http://ns.adobe.com/xap/1.0/\0"


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers of the main image, and the bodies after their lengths; a scan ends with its data."""
    at = 2
    while found := _MARKER.search(data, at):
        at = found.end()
        marker = data[at - 1]
        if marker == _EOI:
            return
        if marker in _BARE:
            continue
        if marker not in _KNOWN:
            raise ValueError(f"it has a marker 0xFF{marker:02X}, which is not known")
        start, end = at + 2, at + struct.unpack_from(">H", data, at)[0]
        if not start <= end <= len(data):
            raise ValueError(f"the segment of marker 0xFF{marker:02X} has an impossible length")
        if marker == _SOS:
            after = _SCAN_END.search(data, end)
            end = after.start() if after else len(data)
        yield marker, data[at:end] if marker in _DECODING else data[start:end]
        at = end
    raise ValueError("it has no end-of-image marker")


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _strip_jpeg(data: bytes, has_picture: bool = True) -> bytes:
    if not data.startswith(b"\xff\xd8"):
        raise ValueError("it does not start as a JPEG does")
    jfif = exif = xmp = b""
    kept: list[bytes] = []
    has_scan = False
    for marker, body in _jpeg_segments(data):
        if marker in _DECODING:
            has_scan |= marker == _SOS
            kept += bytes((0xFF, marker)), body
        elif marker == _APP0 and body.startswith(_JFIF) and len(body) >= _JFIF_BYTES:
            # Its last bytes are the size of a thumbnail, which follows them.
            jfif = jfif or _segment(_APP0, body[: _JFIF_BYTES - 2] + bytes(2))
        elif marker == _APP14 and body.startswith(_ADOBE) and len(body) >= _ADOBE_BYTES:
            kept.append(_segment(_APP14, body[:_ADOBE_BYTES]))
        elif marker == _APP1 and not has_scan:
            if body.startswith(b"Exif\0\0"):
                exif += body[6:]
            elif body.startswith(_XMP):
                xmp = body.removeprefix(_XMP)
    if has_picture and not has_scan:
        raise ValueError("it holds no picture")
    turn = exif_orientation(exif, xmp)
    block = b"" if turn == UPRIGHT else _segment(_APP1, b"Exif\0\0" + exif_block(turn))
    return b"".join((b"\xff\xd8", jfif, block, *kept, b"\xff\xd9"))


# PNG: a chain of chunks; https://www.w3.org/TR/png-3/

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT"}
_PNG_ANIMATION = {b"acTL", b"fcTL", b"fdAT"}
_PNG_TEXTS = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}
_IHDR_BYTES = 25


def _strip_png(data: bytes) -> bytes:
    chunks = list(_png_chunks(data))
    kinds = {kind for kind, _ in chunks}
    first, header = chunks[0]
    if first != b"IHDR" or len(header) != _IHDR_BYTES or b"IDAT" not in kinds:
        raise ValueError("it has no header, or no picture")
    animated = b"acTL" in kinds
    keep = _PNG_KEPT | _PNG_ANIMATION if animated else _PNG_KEPT
    turn = _png_orientation(chunks, animated)
    block = b"" if turn == UPRIGHT else _png_chunk(b"eXIf", exif_block(turn))
    rest = (chunk for kind, chunk in chunks[1:] if kind in keep)
    return b"".join((_PNG, header, block, *rest, _png_chunk(b"IEND", b"")))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each chunk's kind, and all of it."""
    at = len(_PNG)
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + length + 12
        if end > len(data):
            raise ValueError(f"its chunk {kind!r} is cut short")
        yield kind, data[at:end]
        at = end


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def _png_orientation(chunks: list[tuple[bytes, bytes]], animated: bool) -> int:
    """What Pillow finds in the texts, which it is shown with a picture of one pixel."""
    texts: list[bytes] = []
    has_picture = False
    for kind, chunk in chunks:
        has_picture |= kind == b"IDAT"
        if kind == b"fcTL" and animated and has_picture:
            break  # of the second frame, where Pillow stops reading
        if kind in _PNG_TEXTS:
            texts.append(_png_chunk(kind, chunk[8:-4]))
    if not texts:
        return UPRIGHT
    header = _png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    pixel = _png_chunk(b"IDAT", zlib.compress(bytes(2))) + _png_chunk(b"IEND", b"")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(b"".join((_PNG, header, *texts, pixel)))) as image:
                return turned(image.getexif().get(Tag.ORIENTATION))
    except Exception:  # noqa: BLE001 - damaged texts raise nearly anything
        return UPRIGHT


# WebP: chunks in a RIFF file; RFC 9649.

_WEBP_IMAGES = {b"VP8 ", b"VP8L"}
_WEBP_FRAME = {b"ALPH", *_WEBP_IMAGES}
_VP8X_BYTES = 10
_HAS_ANIMATION, _HAS_XMP, _HAS_EXIF, _HAS_ALPHA = 0x02, 0x04, 0x08, 0x10


def _strip_webp(data: bytes) -> bytes:
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data):
        raise ValueError("it is cut short")
    chunks = list(_riff_chunks(data, 12, end))
    if not chunks:
        raise ValueError("it is empty")
    first, extended = chunks[0]
    if first != b"VP8X":
        return _webp(_webp_picture(chunks))
    if len(extended) != _VP8X_BYTES:
        raise ValueError("its header has an impossible length")
    exif = next((body for kind, body in chunks if kind == b"EXIF"), b"")
    xmp = next((body for kind, body in chunks if kind == b"XMP "), b"")
    flags = extended[0]
    # Decoders take no notice of a chunk that the flags do not announce.
    turn = exif_orientation(exif if flags & _HAS_EXIF else b"", xmp if flags & _HAS_XMP else b"")
    flags &= _HAS_ALPHA | _HAS_ANIMATION
    picture = _webp_animation(chunks) if flags & _HAS_ANIMATION else _webp_picture(chunks)
    block = b"" if turn == UPRIGHT else _riff_chunk(b"EXIF", exif_block(turn))
    flags |= _HAS_EXIF if block else 0
    header = _riff_chunk(b"VP8X", bytes((flags, 0, 0, 0)) + extended[4:])
    return _webp(header + picture + block)


def _webp(body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _webp_picture(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """The first picture, with its transparency."""
    kept = b""
    for kind, body in chunks:
        if kind in _WEBP_FRAME:
            kept += _riff_chunk(kind, body)
        if kind in _WEBP_IMAGES:
            return kept
    raise ValueError("it holds no picture")


def _webp_animation(chunks: list[tuple[bytes, bytes]]) -> bytes:
    kept: list[bytes] = []
    for kind, body in chunks:
        if kind == b"ANIM":
            kept.append(_riff_chunk(kind, body[:6]))
        elif kind == b"ANMF":
            frame = _webp_picture(list(_riff_chunks(body, 16, len(body))))
            kept.append(_riff_chunk(kind, body[:16] + frame))
    if not kept:
        raise ValueError("it holds no picture")
    return b"".join(kept)


def _riff_chunks(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    while at + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > end:
            raise ValueError(f"its chunk {kind!r} is cut short")
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _riff_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


# GIF: blocks, some of them chains of sub-blocks; the 89a specification.

_GIF_IMAGE, _GIF_EXTENSION, _GIF_END = 0x2C, 0x21, 0x3B
_GIF_CONTROL, _GIF_APPLICATION = 0xF9, 0xFF
_GIF_CONTROL_BYTES = 4
_ZEROS = re.compile(rb"\0+")
_LOOP = b"\x0bNETSCAPE2.0"


def _strip_gif(data: bytes) -> bytes:
    at = 13 + _gif_colors(data[10])
    kept = [data[:at]]
    images = 0
    # Some writers leave the end mark out.
    while not (images and at == len(data)) and data[at] != _GIF_END:
        if data[at] == _GIF_IMAGE:
            end = _gif_blocks_end(data, at + 11 + _gif_colors(data[at + 9]))
            kept.append(data[at:end])
            images += 1
        elif data[at] == _GIF_EXTENSION:
            end = _gif_blocks_end(data, at + 2)
            kept.append(_gif_extension(data[at + 1], data[at + 2 : end]))
        elif zeros := _ZEROS.match(data, at):
            end = zeros.end()  # empty sub-blocks too many
        else:
            raise ValueError(f"it has a block 0x{data[at]:02X}, which is not known")
        at = end
    if not images:
        raise ValueError("it holds no picture")
    return b"".join((*kept, b";"))


def _gif_colors(flags: int) -> int:
    """Bytes of the table of colours that the flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _gif_blocks_end(data: bytes, at: int) -> int:
    while size := data[at]:
        at += size + 1
    return at + 1


def _gif_extension(label: int, blocks: bytes) -> bytes:
    """What is kept of an extension: transparency and duration, or how often to play."""
    start = bytes((_GIF_EXTENSION, label))
    if label == _GIF_CONTROL and blocks[0] >= _GIF_CONTROL_BYTES:
        return start + b"\x04" + blocks[1:5] + b"\0"
    if label == _GIF_APPLICATION and blocks.startswith(_LOOP) and blocks[12:14] == b"\x03\x01":
        return start + blocks[:16] + b"\0"
    return b""


# BMP: headers, colours, pixels, as Pillow reads them.

_BMP_CORE, _BMP_INFO, _BMP_V5 = 12, 40, 124
_BMP_HEADERS = {_BMP_CORE, _BMP_INFO, 52, 56, 64, 108, _BMP_V5}
_BMP_RAW, _BMP_RLE8, _BMP_RLE4, _BMP_MASKS = range(4)
_BMP_COLOR_SPACE, _BMP_PROFILE = slice(70, 74), slice(126, 138)
_BMP_PROFILES = {b"KNIL", b"DEBM"}
"""Linked and embedded: letters are the other way round in a bitmap."""
_MAX_PALETTE_BITS = 8
_BMP_NEGATIVE = 0xFF
_BMP_JUMP = 2


def _strip_bmp(data: bytes) -> bytes:
    offset, size = struct.unpack_from("<II", data, 10)
    if size not in _BMP_HEADERS:
        raise ValueError(f"its header has {size} bytes, which is not known")
    compression = used = 0
    if size == _BMP_CORE:
        width, height, _, bits = struct.unpack_from("<4H", data, 18)
    else:
        width, height, _, bits, compression, used = struct.unpack_from("<IIHHI12xI", data, 18)
        # Pillow's own rule for pictures from the top down.
        height = 2**32 - height if height >> 24 == _BMP_NEGATIVE else height
    palette = 0
    if bits <= _MAX_PALETTE_BITS:
        palette = (3 if size == _BMP_CORE else 4) * (used or 1 << bits)
    masks = 12 if (compression, size) == (_BMP_MASKS, _BMP_INFO) else 0
    start = offset + palette if offset == 14 + size else offset
    after = 14 + size + masks + palette
    start = start or after
    if compression in {_BMP_RAW, _BMP_MASKS}:
        end = start + ((width * bits + 31) >> 5) * 4 * height
    elif compression in {_BMP_RLE4, _BMP_RLE8}:
        end = _bmp_rle_end(data, start, compression == _BMP_RLE4)
    else:
        raise ValueError(f"its compression {compression} is not known")
    if not after <= start < end <= len(data):
        raise ValueError("its pixels are not where its header says")
    kept = bytearray(data[:end])
    kept[after:start] = bytes(start - after)
    struct.pack_into("<II", kept, 2, end, 0)
    if size == _BMP_V5:
        kept[_BMP_PROFILE] = bytes(12)
        if bytes(kept[_BMP_COLOR_SPACE]) in _BMP_PROFILES:
            kept[_BMP_COLOR_SPACE] = b"BGRs"
    return bytes(kept)


def _bmp_rle_end(data: bytes, at: int, halves: bool) -> int:
    """Where runs of equal pixels end; `halves` if a pixel takes half a byte."""
    while True:
        count, value = data[at], data[at + 1]
        at += 2
        if count or not value:
            continue
        if value == 1:
            return at
        if value == _BMP_JUMP:  # to other coordinates
            at += 2
            continue
        at += (value + 1) // 2 if halves else value
        at += at % 2


def _strip_tiff(data: bytes) -> bytes:
    return strip_tiff(data, _strip_jpeg, partial(_strip_jpeg, has_picture=False))


_STRIPPERS: dict[str, Callable[[bytes], bytes]] = {
    "JPEG": _strip_jpeg,
    "PNG": _strip_png,
    "WEBP": _strip_webp,
    "GIF": _strip_gif,
    "BMP": _strip_bmp,
    "TIFF": _strip_tiff,
}
