"""The orientation, the one thing of EXIF and XMP that is kept."""

import struct

from PIL import Image
from PIL.ExifTags import Base

UPRIGHT = 1
TURNED = range(2, 9)
"""Values of EXIF's orientation."""


def exif_block(orientation: int) -> bytes:
    """An EXIF block, which is a TIFF file, that says nothing but the orientation."""
    short = 3
    entry = struct.pack("<HHIHH", Base.Orientation, short, 1, orientation, 0)
    return b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)


def exif_orientation(exif: bytes, xmp: bytes) -> int:
    """What EXIF says, or XMP where EXIF says nothing: what Pillow would apply."""
    image = Image.new("L", (1, 1))
    image.info = {"exif": exif, "xmp": xmp}
    try:
        return turned(image.getexif().get(Base.Orientation))
    except Exception:  # noqa: BLE001 - damaged tags raise nearly anything
        return UPRIGHT


def turned(value: object) -> int:
    """The orientation that a value means; upright when it means none."""
    return next((turn for turn in TURNED if turn == value), UPRIGHT)
