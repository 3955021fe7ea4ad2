"""Images without their metadata: what tells of people, places and cameras goes, pixels stay.

For JPEG, PNG and WebP there is a list of what decoding needs; all else goes, known or not.
Compressed pixels are copied as they are. Only the orientation is kept, as Pillow reads it, and of
a profile what its colours need.
"""

import struct

from verger.images.formats.jpeg import strip_jpeg
from verger.images.formats.png import strip_png
from verger.images.formats.webp import strip_webp
from verger.images.opening import sniff

_STRIPPERS = {"JPEG": strip_jpeg, "PNG": strip_png, "WEBP": strip_webp}


def strip_metadata(data: bytes) -> bytes:
    """Remove all metadata but orientation and colours, and whatever follows the image.

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
