"""WebP: chunks in a RIFF file; RFC 9649."""

import struct
from bisect import bisect_left
from collections.abc import Iterator

from verger.images.colours import cut_profile
from verger.images.formats.exif import UPRIGHT, exif_block, exif_orientation
from verger.images.opening import open_image

_IMAGES = {b"VP8 ", b"VP8L"}
_FRAME = {b"ALPH", *_IMAGES}
_VP8X_BYTES = 10
_HAS_ANIMATION, _HAS_XMP, _HAS_EXIF, _HAS_ALPHA, _HAS_PROFILE = 0x02, 0x04, 0x08, 0x10, 0x20
_PADDING = 8
"""Bytes that encoders leave after the last pixel, which are no one's data."""

Chunk = tuple[bytes, bytes]


def strip_webp(data: bytes) -> bytes:
    """A WebP without metadata; see `verger.images.stripping`.

    Raises:
        ValueError: its structure cannot be followed to its end.
    """
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data):
        raise ValueError("it is cut short")
    chunks = list(_chunks(data, 12, end))
    if not chunks:
        raise ValueError("it is empty")
    first, extended = chunks[0]
    if first != b"VP8X":
        return _file(_picture(chunks))
    if len(extended) != _VP8X_BYTES:
        raise ValueError("its header has an impossible length")

    def announced(kind: bytes, flag: int) -> bytes:
        """Decoders take no notice of a chunk that the flags do not announce."""
        found = next((body for name, body in chunks if name == kind), b"")
        return found if extended[0] & flag else b""

    turn = exif_orientation(announced(b"EXIF", _HAS_EXIF), announced(b"XMP ", _HAS_XMP))
    profile = cut_profile(announced(b"ICCP", _HAS_PROFILE))
    flags = extended[0] & (_HAS_ALPHA | _HAS_ANIMATION)
    has_alpha = bool(flags & _HAS_ALPHA)
    animated = bool(flags & _HAS_ANIMATION)
    picture = _animation(chunks) if animated else _picture(chunks, has_alpha=has_alpha)
    block = b"" if turn == UPRIGHT else _chunk(b"EXIF", exif_block(turn))
    colours = _chunk(b"ICCP", profile) if profile else b""
    flags |= (_HAS_EXIF if block else 0) | (_HAS_PROFILE if colours else 0)
    header = _chunk(b"VP8X", bytes((flags, 0, 0, 0)) + extended[4:])
    return _file(header + colours + picture + block)


def trimmed(data: bytes, original: bytes) -> bytes:
    """A stripped WebP without what its chunks hold after the last pixel.

    Of an animation, frames are left as they are.

    Raises:
        OSError, SyntaxError, ValueError: it is not decoded, or not to the pixels of the original.
    """
    chunks = list(_chunks(data, 12, len(data)))
    whole = _pixels(data)
    if whole != _pixels(original):
        raise ValueError("its structure is not all of it")
    for place, (kind, body) in enumerate(chunks):
        if kind not in _FRAME:
            continue

        def lacks(count: int, place: int = place) -> bool:
            """Whether so many bytes are too few."""
            try:
                return _pixels(_shortened(chunks, place, count)) != whole
            except (OSError, SyntaxError, ValueError):
                return True

        most = len(body) - _PADDING
        if most > 0 and not lacks(most):
            spare = bisect_left(range(most - 1, 0, -1), True, key=lacks)
            chunks[place] = kind, body[: most - spare]
    return _file(b"".join(_chunk(*part) for part in chunks))


def _shortened(chunks: list[Chunk], place: int, count: int) -> bytes:
    """A file of some chunks, of which one is cut."""
    kind, body = chunks[place]
    parts = [*chunks[:place], (kind, body[:count]), *chunks[place + 1 :]]
    return _file(b"".join(_chunk(*part) for part in parts))


def _pixels(data: bytes) -> bytes:
    with open_image(data, "WEBP") as image:
        return bytes(image.tobytes())


def _file(body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _picture(chunks: list[Chunk], *, has_alpha: bool = False) -> bytes:
    """The first picture, with its transparency where it has some of its own."""
    alpha = next((body for kind, body in chunks if kind == b"ALPH"), None)
    for kind, body in chunks:
        if kind in _IMAGES:
            beside = kind == b"VP8 " and has_alpha and alpha is not None
            return (_chunk(b"ALPH", alpha or b"") if beside else b"") + _chunk(kind, body)
    raise ValueError("it holds no picture")


def _animation(chunks: list[Chunk]) -> bytes:
    parts: list[bytes] = []
    for kind, body in chunks:
        if kind == b"ANIM":
            parts.append(_chunk(kind, body[:6]))
        elif kind == b"ANMF":
            frame = _picture(list(_chunks(body, 16, len(body))), has_alpha=True)
            parts.append(_chunk(kind, body[:16] + frame))
    if not parts:
        raise ValueError("it holds no picture")
    return b"".join(parts)


def _chunks(data: bytes, at: int, end: int) -> Iterator[Chunk]:
    while at + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > end:
            raise ValueError(f"its chunk {kind!r} is cut short")
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def is_cut(data: bytes) -> bool:
    """Whether there are fewer bytes than the header says; libwebp itself does not say."""
    return len(data) < 8 + int.from_bytes(data[4:8], "little")
