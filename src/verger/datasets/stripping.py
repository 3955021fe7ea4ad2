"""Images without their metadata: what tells of people, places and cameras goes, pixels stay.

For JPEG, PNG and WebP there is a list of what decoding needs; all else goes, known or not.
Compressed pixels are copied as they are. Only the orientation is kept, as Pillow reads it. Of
other formats the picture is written anew, as PNG.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator

from PIL import Image
from PIL.ExifTags import Base

from verger.images.decoding import at_full_size, decode, sniff
from verger.output.layout import Rejection

UPRIGHT = 1
TURNED = range(2, 9)
"""Values of EXIF's orientation."""


def strip_metadata(data: bytes) -> bytes:
    """Remove all metadata but the orientation, and whatever follows the image.

    Args:
        data: a JPEG, PNG or WebP file, whatever its name; of an animation all frames are kept, of
            an MPO the first picture.

    Returns:
        A file that decodes to the same pixels; stripping it again changes nothing.

    Raises:
        ValueError: it is none of these, or its structure cannot be followed to the end.
    """
    name = sniff(data) or ""
    if name not in _STRIPPERS:
        raise ValueError("not a JPEG, PNG or WebP file")
    try:
        return _STRIPPERS[name](data)
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"{name}: it ends in the middle of its structure") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def as_png(data: bytes) -> bytes | Rejection:
    """The picture that a run would see, upright and in 8-bit RGB, at its full size.

    It gives the same features, and has no room for metadata.
    """
    seen = decode(data, at_full_size)
    if isinstance(seen, Rejection):
        return seen
    stream = io.BytesIO()
    Image.fromarray(seen).save(stream, "PNG")
    return stream.getvalue()


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
    while match := _MARKER.search(data, at):
        at = match.end()
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


def _strip_jpeg(data: bytes) -> bytes:
    jfif = exif = xmp = b""
    parts: list[bytes] = []
    has_scan = False
    for marker, body in _jpeg_segments(data):
        if marker in _DECODING:
            has_scan |= marker == _SOS
            parts += bytes((0xFF, marker)), body
        elif marker == _APP0 and body.startswith(_JFIF) and len(body) >= _JFIF_BYTES:
            # Its last bytes are the size of a thumbnail, which follows them.
            jfif = jfif or _segment(_APP0, body[: _JFIF_BYTES - 2] + bytes(2))
        elif marker == _APP14 and body.startswith(_ADOBE) and len(body) >= _ADOBE_BYTES:
            parts.append(_segment(_APP14, body[:_ADOBE_BYTES]))
        elif marker == _APP1 and not has_scan:
            if body.startswith(b"Exif\0\0"):
                exif += body[6:]
            elif body.startswith(_XMP):
                xmp = body.removeprefix(_XMP)
    if not has_scan:
        raise ValueError("it holds no picture")
    turn = _exif_orientation(exif, xmp)
    block = b"" if turn == UPRIGHT else _segment(_APP1, b"Exif\0\0" + _exif_block(turn))
    return b"".join((b"\xff\xd8", jfif, block, *parts, b"\xff\xd9"))


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
    block = b"" if turn == UPRIGHT else _png_chunk(b"eXIf", _exif_block(turn))
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
                return _turned(image.getexif().get(Base.Orientation))
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
    turn = _exif_orientation(exif if flags & _HAS_EXIF else b"", xmp if flags & _HAS_XMP else b"")
    flags &= _HAS_ALPHA | _HAS_ANIMATION
    picture = _webp_animation(chunks) if flags & _HAS_ANIMATION else _webp_picture(chunks)
    block = b"" if turn == UPRIGHT else _riff_chunk(b"EXIF", _exif_block(turn))
    flags |= _HAS_EXIF if block else 0
    header = _riff_chunk(b"VP8X", bytes((flags, 0, 0, 0)) + extended[4:])
    return _webp(header + picture + block)


def _webp(body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _webp_picture(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """The first picture, with its transparency."""
    picture = b""
    for kind, body in chunks:
        if kind in _WEBP_FRAME:
            picture += _riff_chunk(kind, body)
        if kind in _WEBP_IMAGES:
            return picture
    raise ValueError("it holds no picture")


def _webp_animation(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts: list[bytes] = []
    for kind, body in chunks:
        if kind == b"ANIM":
            parts.append(_riff_chunk(kind, body[:6]))
        elif kind == b"ANMF":
            frame = _webp_picture(list(_riff_chunks(body, 16, len(body))))
            parts.append(_riff_chunk(kind, body[:16] + frame))
    if not parts:
        raise ValueError("it holds no picture")
    return b"".join(parts)


def _riff_chunks(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    while at + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > end:
            raise ValueError(f"its chunk {kind!r} is cut short")
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _riff_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


_STRIPPERS: dict[str, Callable[[bytes], bytes]] = {
    "JPEG": _strip_jpeg,
    "PNG": _strip_png,
    "WEBP": _strip_webp,
}


def _exif_block(orientation: int) -> bytes:
    """An EXIF block, which is a TIFF file, that says nothing but the orientation."""
    short = 3
    entry = struct.pack("<HHIHH", Base.Orientation, short, 1, orientation, 0)
    return b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)


def _exif_orientation(exif: bytes, xmp: bytes) -> int:
    """What EXIF says, or XMP where EXIF says nothing: what Pillow would apply."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tags = Image.Exif()
            tags.load(exif)
            value = tags.get(Base.Orientation)
    except Exception:  # noqa: BLE001 - damaged tags raise nearly anything
        return UPRIGHT
    if value is not None:
        return _turned(value)
    match = re.search(rb'tiff:Orientation(="|>)([0-9])', xmp)
    return _turned(int(match[2])) if match else UPRIGHT


def _turned(value: object) -> int:
    """The orientation that a value means; upright when it means none."""
    return next((turn for turn in TURNED if turn == value), UPRIGHT)
