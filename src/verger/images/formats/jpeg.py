"""JPEG: a chain of segments; ITU-T T.81."""

import re
import struct
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from random import Random
from typing import NamedTuple

from verger.images.colours import cut_profile
from verger.images.formats.exif import UPRIGHT, exif_block, exif_orientation
from verger.images.opening import open_image

END = b"\xff\xd9"

_APP0, _APP1, _APP2, _APP14, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
_EOI, _SOS, _LINES = 0xD9, 0xDA, 0xDC
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_FRAMES_READ = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
"""Baseline, extended and progressive, by Huffman's codes or arithmetic ones; not lossless."""
_DECODING = _FRAMES | {0xC4, 0xCC, _SOS, 0xDB, _LINES, 0xDD}
"""Frames, their tables (Huffman, arithmetic, quantization), lines and restart intervals."""
_APPLICATION = {*range(_APP0, 0xF0), _COMMENT}
_KNOWN = _DECODING | _APPLICATION
_BARE = {0x01, *range(0xD0, 0xD8)}
"""Markers without a body; those of restarts mean something only within a scan."""
_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Within a scan, 0xFF00 is a 0xFF of the pixels, and restarts belong to it."""
_JFIF, _ADOBE, _PROFILE = b"JFIF\0", b"Adobe", b"ICC_PROFILE\0"
_JFIF_BYTES, _ADOBE_BYTES, _PROFILE_HEAD, _LINES_BYTES = 14, 12, 14, 4
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_PART = 65_000
"""Bytes of a profile in a segment, which holds no more than 65,533."""


def strip_jpeg(data: bytes) -> bytes:
    """A JPEG without metadata; see `verger.images.stripping`.

    Raises:
        ValueError: its structure cannot be followed to its end.
    """
    jfif = exif = xmp = b""
    parts: list[bytes] = []
    profile: list[bytes] = []
    has_frame = has_scan = False
    for marker, start, _, end in _walk(data):
        body = data[start + 2 : end]
        if marker in _DECODING:
            has_frame |= marker in _FRAMES
            has_scan |= marker == _SOS
            if marker != _LINES or end - start == _LINES_BYTES:  # decoders skip what else it holds
                parts += bytes((0xFF, marker)), data[start:end]
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
        elif marker == _APP2 and not has_frame and body.startswith(_PROFILE):
            profile.append(body)
    if not has_scan:
        raise ValueError("it holds no picture")
    turn = exif_orientation(exif, xmp)
    block = b"" if turn == UPRIGHT else _segment(_APP1, b"Exif\0\0" + exif_block(turn))
    return b"".join((b"\xff\xd8", jfif, block, *_profile_segments(profile), *parts, END))


class _Segment(NamedTuple):
    """A marker and where its body is, with its length before it; a scan ends with its pixels."""

    marker: int
    start: int
    pixels: int
    end: int


def _walk(data: bytes) -> Iterator[_Segment]:
    """The segments of the main image.

    Raises:
        ValueError: they do not end with an end mark.
    """
    at = 2
    while match := _MARKER.search(data, at):
        start = match.end()
        marker = data[start - 1]
        if marker == _EOI:
            return
        at = start
        if marker in _BARE:
            continue
        if marker not in _KNOWN:
            raise ValueError(f"it has a marker 0xFF{marker:02X}, which is not known")
        pixels = at = start + struct.unpack_from(">H", data, start)[0]
        if not start + 2 <= pixels <= len(data):
            raise ValueError(f"the segment of marker 0xFF{marker:02X} has an impossible length")
        if marker == _SOS:
            after = _SCAN_END.search(data, pixels)
            at = after.start() if after else len(data)
        yield _Segment(marker, start, pixels, at)
    raise ValueError("it has no end-of-image marker")


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _profile_segments(bodies: list[bytes]) -> list[bytes]:
    """The profile in some segments, as Pillow puts it together, cut down; none if it is damaged."""
    bodies = sorted(bodies)
    if not bodies or len(bodies[0]) < _PROFILE_HEAD or bodies[0][13] != len(bodies):
        return []
    profile = cut_profile(b"".join(body[_PROFILE_HEAD:] for body in bodies))
    parts = [profile[at : at + _PART] for at in range(0, len(profile), _PART)]
    return [
        _segment(_APP2, _PROFILE + bytes((number, len(parts))) + part)
        for number, part in enumerate(parts, 1)
    ]


def mended(data: bytes) -> bytes | None:
    """A JPEG that lacks its end mark and nothing else, with one and without what follows it.

    None: it has one, or lacks pixels too.
    """
    scans, ended = _scans(data)
    if ended or not scans:
        return None
    start, stop = scans[-1]
    parts = data[:start], data[start:stop], END
    try:
        whole = _planes(b"".join(parts))
        # Where pixels are missing, the first bits that come are taken for them.
        for others in (_other_bits(0), _RESTARTS):
            if _planes(parts[0] + parts[1] + others + END) != whole:
                return None
        return parts[0] + parts[1][: _needed(parts, whole)] + END
    except (OSError, SyntaxError, ValueError):
        return None


def trimmed(data: bytes, original: bytes) -> bytes:
    """A stripped JPEG without what its scans hold after their last pixels, which decoders skip.

    Whether a byte holds pixels is found by putting another in its place.

    Raises:
        OSError, SyntaxError, ValueError: it is not decoded, or not to the pixels of the original,
            since decoders find a way through damage that no structure describes.
    """
    whole = _planes(data)
    try:
        same = _planes(original) == whole
    except (OSError, SyntaxError, ValueError):
        same = True  # it is not decoded, since it lacks its end mark
    if not same:
        raise ValueError("its structure is not all of it")
    while (shorter := _trimmed_once(data, whole)) != data:
        data = shorter
    return data


def _trimmed_once(data: bytes, whole: bytes) -> bytes:
    for start, stop in reversed(_scans(data)[0]):
        parts = data[:start], data[start:stop], data[stop:]
        if stop - start <= _ROUNDING or not _suffices(stop - start - _ROUNDING, parts, whole):
            continue
        without = parts[0] + parts[1][: _needed(parts, whole)] + parts[2]
        data = without if _planes(without) == whole else data
    return data


_ROUNDING = 3
"""So many bytes may change no pixel, and be of the picture: their effect is rounded away."""


def _scans(data: bytes) -> tuple[list[tuple[int, int]], bool]:
    """Where the pixels of each scan are, and whether the structure ends as it should."""
    scans: list[tuple[int, int]] = []
    try:
        # What came before an error is kept.
        scans.extend((part.pixels, part.end) for part in _walk(data) if part.marker == _SOS)
    except (ValueError, struct.error):
        return scans, False
    return scans, True


Parts = tuple[bytes, bytes, bytes]
"""A file cut in three: before the pixels of a scan, these, and what follows."""


def _needed(parts: Parts, whole: bytes) -> int:
    """How many bytes of a scan, which has enough of them, make all pixels."""
    scan = parts[1]
    # The longest first: where effects are rounded away, the bytes kept hang on what is tried.
    shorter = range(len(scan) - 1, 0, -1)
    spare = bisect_left(shorter, True, key=lambda count: not _suffices(count, parts, whole))
    enough = len(scan) - spare
    return enough + (scan[enough - 1 : enough + 1] == b"\xff\0")


def _suffices(count: int, parts: Parts, whole: bytes) -> bool:
    """Whether the first bytes of a scan make all pixels, whatever comes after them."""
    head, scan, tail = parts
    if scan[count - 1 : count] == b"\xff":
        count -= 1  # with the zero after it, it is one byte of pixels
    return _planes(head + scan[:count] + _other_bits(scan[count]) + tail) == whole


def _other_bits(byte: int) -> bytes:
    """Bits of which the first differ from a byte, and others after them."""
    return (bytes((byte ^ 0xFF,)) if byte else b"\xff\0") + _OTHERS


_OTHERS = bytes(Random(0).choices(range(0xFF), k=256))  # noqa: S311 - no secret

_RESTARTS = b"".join(bytes((0xFF, 0xD0 + number % 8)) + _OTHERS[:16] for number in range(64))
"""The same where a scan is cut into pieces, of which decoders wait for the next."""


def _planes(data: bytes) -> bytes:
    """The pixels of a JPEG, as they are stored."""
    with open_image(data, "JPEG") as image:
        image.draft("YCbCr", None)
        return bytes(image.tobytes())


def why_not(data: bytes) -> str | None:
    """What a sound JPEG asks for that Pillow does not read; None where it is damaged."""
    with suppress(ValueError, struct.error, IndexError):
        for marker, start, _, _ in _walk(data):
            if marker in _FRAMES:
                bits = data[start + 2]
                if marker not in _FRAMES_READ:
                    return f"a JPEG of the kind SOF{marker - 0xC0}"
                return "a JPEG of 12 bits" if bits == 12 else None  # noqa: PLR2004
    return None
