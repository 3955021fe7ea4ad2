"""Colours as an embedded ICC profile means them: ICC.1:2022, https://www.color.org/icc_specs2.xalter.

A profile is applied by LittleCMS, which Pillow brings, perceptually, as browsers do it: the table
for that intent is the one that nearly all profiles of cameras, editors and presses have, and dark
parts of a print stay apart. Profiles without tables have one meaning for all intents.
"""

import io
import math
import struct
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 2**20 - 2**10
"""Larger ones are not applied, and Pillow would refuse a PNG that has one."""

_HEADER_BYTES, _ENTRY = 128, struct.Struct(">4sII")
_MAX_TAGS = 100
_COLOUR_TAGS = {
    b"A2B0", b"wtpt", b"chad",
    b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC", b"kTRC",
}  # fmt: skip
"""What leads from a device's colours to those that an eye sees, perceptually."""

_KEPT_OF_HEADER = ((8, 12), (12, 24), (36, 40), (64, 68), (68, 80))
"""Version; class, colour space and connection space; signature; intent; illuminant. What is left
out are dates, names of makers, models and programs, and a checksum."""

_MODES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}

_TOLERANCE = 2
"""A profile that changes no colour by more, of 255, is sRGB, and is not applied."""


@lru_cache(maxsize=64)
def cut_profile(profile: bytes) -> bytes:
    """A profile with what its colours need and no text; empty where it changes none.

    That is where it is damaged, or sRGB. Cutting it again changes nothing.
    """
    cut = _cut(profile)
    return cut if cut and _transform(cut) else b""


def _cut(profile: bytes) -> bytes:
    header = profile[:_HEADER_BYTES]
    if len(header) < _HEADER_BYTES or header[36:40] != b"acsp":
        return b""
    count = int.from_bytes(profile[128:132], "big")
    parts: dict[bytes, bytes] = {}
    for number in range(min(count, _MAX_TAGS)):
        entry = profile[132 + 12 * number :][: _ENTRY.size]
        if len(entry) < _ENTRY.size:
            return b""
        tag, at, size = _ENTRY.unpack(entry)
        if tag in _COLOUR_TAGS and tag not in parts:
            part = _exact(profile[at : at + size])
            if not part:
                return b""
            parts[tag] = part
    kept = bytearray(_HEADER_BYTES)
    for start, end in _KEPT_OF_HEADER:
        kept[start:end] = header[start:end]
    return _assembled(bytes(kept), parts)


def _assembled(header: bytes, parts: dict[bytes, bytes]) -> bytes:
    """A profile of tags, of which equal ones share their bytes."""
    at = _HEADER_BYTES + 4 + _ENTRY.size * len(parts)
    places: dict[bytes, int] = {}
    table, body = struct.pack(">I", len(parts)), b""
    for tag, part in sorted(parts.items()):
        if part not in places:
            places[part] = at + len(body)
            body += part + bytes(-len(part) % 4)
        table += _ENTRY.pack(tag, places[part], len(part))
    size = at + len(body)
    if not parts or size > MAX_PROFILE_BYTES:
        return b""
    return struct.pack(">I", size) + header[4:] + table + body


def _exact(part: bytes) -> bytes:
    """The bytes of a tag that its type means; empty where there are fewer, or it is no colour."""
    kind = part[:4]
    try:
        if kind == b"XYZ ":
            size = 20
        elif kind == b"sf32":
            size = 8 + 4 * 9
        elif kind == b"curv":
            size = 12 + 2 * struct.unpack_from(">I", part, 8)[0]
        elif kind == b"para":
            size = 12 + 4 * (1, 3, 4, 5, 7)[struct.unpack_from(">H", part, 8)[0]]
        elif kind in {b"mft1", b"mft2"}:
            inputs, outputs, grid = part[8], part[9], part[10]
            ends = struct.unpack_from(">HH", part, 48) if kind == b"mft2" else (256, 256)
            words = inputs * ends[0] + grid**inputs * outputs + outputs * ends[1]
            size = 52 + 2 * words if kind == b"mft2" else 48 + words
        elif kind == b"mAB ":
            return _exact_elements(part)
        else:
            return b""
    except (struct.error, IndexError, ValueError):
        return b""
    return part[:4] + bytes(4) + part[8:size] if size <= len(part) else b""


def _exact_elements(part: bytes) -> bytes:
    """As `_exact`, of the type whose curves, matrix and table lie anywhere in it.

    Raises:
        struct.error, IndexError, ValueError: some of them are not there.
    """
    inputs, outputs = part[8], part[9]

    def curves(at: int, count: int) -> bytes:
        made = b""
        for _ in range(count):
            rest = part[at + len(made) :]
            curve = _exact(rest) if rest[:4] in {b"curv", b"para"} else b""
            if not curve:
                raise ValueError("it is no curve, or cut")
            made += curve + bytes(-len(curve) % 4)
        return made

    def numbers(at: int, size: int) -> bytes:
        if at + size > len(part):
            raise ValueError("it is cut")
        return part[at : at + size]

    def table(at: int) -> bytes:
        grid, width = numbers(at, inputs), part[at + 16]
        head = grid + bytes(16 - inputs) + bytes((width, 0, 0, 0))
        return head + numbers(at + 20, math.prod(grid) * outputs * width)

    readers: tuple[Callable[[int], bytes], ...] = (
        lambda at: curves(at, outputs),
        lambda at: numbers(at, 4 * 12),
        lambda at: curves(at, outputs),
        table,
        lambda at: curves(at, inputs),
    )
    made, places = b"", b""
    for at, read in zip(struct.unpack_from(">5I", part, 12), readers, strict=True):
        places += struct.pack(">I", 32 + len(made) if at else 0)
        element = read(at) if at else b""
        made += element + bytes(-len(element) % 4)
    return b"mAB " + bytes(4) + bytes((inputs, outputs, 0, 0)) + places + made


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """A picture without transparency in sRGB; None where its profile changes nothing.

    Args:
        image: RGB, L or CMYK.
        profile: as it was embedded. One that is damaged, or of other colours, changes nothing.
    """
    cut = cut_profile(profile)
    mode = _mode(cut)
    if image.mode == "L" and mode == "RGB":
        image = image.convert("RGB")
    transform = _transform(cut) if cut and image.mode == mode else None
    return transform.apply(image) if transform else None


def _mode(profile: bytes) -> str:
    """The mode of the pictures that a profile is for, in Pillow's words."""
    return _MODES.get(profile[16:20], "")


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """What takes colours to sRGB; None where it would leave them as they are, or is damaged."""
    mode = _mode(profile)
    try:
        transform = ImageCms.ImageCmsTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGB",
            ImageCms.Intent.PERCEPTUAL,
        )
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None
    steps = np.linspace(0, 255, 16 if mode != "CMYK" else 6).astype(np.uint8)
    grid = np.stack(np.meshgrid(*[steps] * len(mode)), axis=-1)
    probe = Image.frombytes(mode, (grid.size // len(mode), 1), grid.tobytes())
    plain = np.asarray(probe.convert("RGB")).astype(int)
    changed = np.abs(np.asarray(transform.apply(probe)) - plain).max()
    return transform if changed > _TOLERANCE else None
