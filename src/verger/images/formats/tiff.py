"""TIFF: a directory of tags that say where pixels are; TIFF 6.0, and BigTIFF with wider numbers."""

import io
import struct
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from verger.images.opening import check_size

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIPS, SAMPLES, PLANAR, PREDICTOR, TILES, EXTRA, FORMAT = 273, 277, 284, 317, 324, 338, 339

WHITE_IS_ZERO, RGB = 0, 2
"""Values of `PHOTOMETRIC`; the first is greys that run from white to black."""

_PREMULTIPLIED, _ALPHA = 1, 2
"""Values of `EXTRA`."""

_PIXEL_TAGS = {
    254, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, 266, STRIPS, 274, SAMPLES, 278, 279,
    PLANAR, 292, 293, PREDICTOR, 320, 322, 323, TILES, 325, EXTRA, FORMAT, 347, *range(512, 522),
    *range(529, 533), 34675,
}  # fmt: skip
"""What decoding needs, the orientation and the profile; texts and resolutions may be damaged."""

_WEBP = 50001
"""The compression that Pillow knows, and the libtiff in its wheels lacks."""

_SHORT, _LONG = 3, 4


@dataclass
class _Directory:
    """The first directory of a file: the bytes of each entry, by tag."""

    order: str
    big: bool
    entries: dict[int, bytes] = field(default_factory=dict)

    def value(self, tag: int, default: int) -> int:
        """The first number of an entry that holds its value itself; not of a BigTIFF."""
        entry = self.entries.get(tag)
        if entry is None:
            return default
        kind = struct.unpack_from(self.order + "H", entry, 2)[0]
        code = "H" if kind == _SHORT else "I"
        return int(struct.unpack_from(self.order + code, entry, 8)[0])

    def set(self, tag: int, value: int) -> None:
        """Give a tag a small number; not in a BigTIFF."""
        self.entries[tag] = struct.pack(self.order + "HHIHH", tag, _SHORT, 1, value, 0)


def _read(data: bytes) -> _Directory:
    """The first directory.

    Raises:
        struct.error, ValueError: there is none, or it is cut.
    """
    order = "<" if data[:2] == b"II" else ">"
    directory = _Directory(order, 43 in data[2:4])  # noqa: PLR2004
    place, offset, counting, size = (8, "Q", "Q", 20) if directory.big else (4, "I", "H", 12)
    (at,) = struct.unpack_from(order + offset, data, place)
    if at > len(data):
        raise ValueError("the directory is missing")
    counting = order + counting
    (count,) = struct.unpack_from(counting, data, at)
    at += struct.calcsize(counting)
    if at + count * size > len(data):
        raise ValueError("the directory is cut")
    for start in range(at, at + count * size, size):
        entry = data[start : start + size]
        directory.entries.setdefault(struct.unpack_from(order + "H", entry)[0], entry)
    return directory


def _with_directory(data: bytes, directory: _Directory) -> bytes:
    """A TIFF with another first directory, at its end."""
    data += bytes(-len(data) % 8)
    start = data[:4] + struct.pack(directory.order + "I", len(data)) + data[8:]
    count = struct.pack(directory.order + "H", len(directory.entries))
    entries = b"".join(entry for _, entry in sorted(directory.entries.items()))
    return start + count + entries + bytes(4)


def pixels_only(data: bytes) -> bytes | None:
    """The file with the tags of its first picture that its pixels need; None where it has none.

    A BigTIFF becomes a TIFF, since Pillow reads only those BigTIFFs that begin with the low byte.
    """
    try:
        directory = _read(data)
        entries = {tag: entry for tag, entry in directory.entries.items() if tag in _PIXEL_TAGS}
        if not directory.big:
            directory.entries = entries
            return _with_directory(data, directory)
        small = _Directory(directory.order, big=False)
        data = data[:2] + struct.pack(directory.order + "HI", 42, 0) + data[8:]
        for tag, entry in entries.items():
            small.entries[tag], data = _narrowed(entry, data, directory.order)
        return _with_directory(data, small)
    except (struct.error, ValueError, OverflowError):
        return None


_WIDE = {16: (_LONG, "Q", "I"), 17: (9, "q", "i"), 18: (13, "Q", "I")}
"""Numbers of 8 bytes, and what they are where they fit into 4."""

_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Bytes of the other kinds of values."""


def _narrowed(entry: bytes, data: bytes, order: str) -> tuple[bytes, bytes]:
    """An entry of a BigTIFF as TIFF has it, and the file with what does not fit in the entry."""
    tag, kind, count = struct.unpack_from(order + "HHQ", entry)
    size = count * (8 if kind in _WIDE else _WIDTHS.get(kind, 1))
    at = struct.unpack_from(order + "Q", entry, 12)[0]
    values = entry[12 : 12 + size] if size <= 8 else data[at : at + size]  # noqa: PLR2004
    if kind in _WIDE:
        kind, wide, narrow = _WIDE[kind]
        numbers = struct.unpack(f"{order}{count}{wide}", values)
        values = struct.pack(f"{order}{count}{narrow}", *numbers)
    head = struct.pack(order + "HHI", tag, kind, count)
    if len(values) <= 4:  # noqa: PLR2004
        return head + values.ljust(4, b"\0"), data
    data += bytes(-len(data) % 2)
    return head + struct.pack(order + "I", len(data)), data + values


def grey_and_alpha_of_16_bits(data: bytes, max_pixels: int) -> Image.Image | None:
    """The picture in a TIFF of 16-bit grey and alpha, which Pillow has no pixels for: LA.

    Pillow is told that there are four bytes a pixel, of which the higher ones are taken. None: it
    is no such file.

    Raises:
        Image.DecompressionBombError: it has more than `max_pixels`.
    """
    pixels = pixels_only(data)
    if pixels is None:
        return None
    directory = _read(pixels)
    value = directory.value
    photometric, extra = value(PHOTOMETRIC, 1), value(EXTRA, 0)
    wide_pair = value(SAMPLES, 1) == 2 and value(BITS, 1) == 16  # noqa: PLR2004
    if not wide_pair or photometric > 1 or value(PLANAR, 1) != 1 or value(PREDICTOR, 1) != 1:
        return None
    directory.set(PHOTOMETRIC, RGB)
    directory.set(SAMPLES, 4)
    directory.set(EXTRA, _ALPHA)
    directory.set(BITS, 8)  # Pillow takes it for all
    directory.entries.pop(FORMAT, None)
    patched = io.BytesIO(_with_directory(pixels, directory))
    with TiffImagePlugin.TiffImageFile(patched) as image:
        check_size(image, max_pixels)
        ImageOps.exif_transpose(image, in_place=True)
        high = 1 if directory.order == "<" else 0
        grey: Image.Image
        grey, alpha = image.getchannel(high), image.getchannel(high + 2)
    if photometric == WHITE_IS_ZERO:
        grey = grey.point(lambda level: 255 - level)
    if extra not in {_PREMULTIPLIED, _ALPHA}:
        return grey
    if extra == _PREMULTIPLIED:
        share = np.asarray(alpha, np.float32).clip(1) / 255
        grey = Image.fromarray((np.asarray(grey) / share).clip(0, 255).astype(np.uint8))
    both: Image.Image = Image.merge("LA", (grey, alpha))
    return both


def why_not(data: bytes) -> str | None:
    """What a sound TIFF asks for that Pillow does not read; None where it is damaged."""
    pixels = pixels_only(data)
    if pixels is None:
        return None
    directory = _read(pixels)
    tags = directory.entries
    if not {WIDTH, HEIGHT} <= set(tags) or not {STRIPS, TILES} & set(tags):
        return None
    compression = directory.value(COMPRESSION, 1)
    if compression == _WEBP or compression not in TiffImagePlugin.COMPRESSION_INFO:
        return f"a TIFF of compression {compression}"
    try:
        TiffImagePlugin.TiffImageFile(io.BytesIO(pixels)).close()
    except (SyntaxError, KeyError) as error:
        if str(error) in {"unknown pixel mode", "unknown data organization"}:
            photometric, samples = directory.value(PHOTOMETRIC, 0), directory.value(SAMPLES, 1)
            return (
                f"a TIFF with this depth of {samples} samples a pixel "
                f"(photometric interpretation {photometric})"
            )
    except Exception:  # noqa: BLE001 - damaged tags raise nearly anything
        return None
    return None
