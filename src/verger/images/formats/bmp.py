"""Bitmaps whose masks say which bits of a pixel are red, green, blue and alpha."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Values = NDArray[np.unsignedinteger[Any]]

_BITFIELDS, _ALPHA_BITFIELDS = 3, 6
_OLD_HEADER, _MASKS_AT, _ALPHA_HEADER = 40, 54, 56
"""A header of 40 bytes is followed by its masks, longer ones hold them; from 56 on with alpha."""


def by_masks(data: bytes) -> Image.Image | None:
    """The picture in a bitmap with masks: RGB, or RGBA where a mask of alpha is used.

    None: it has no masks, or is damaged. An alpha that is 0 everywhere means nothing, as browsers
    have it.
    """
    try:
        header, width, height, _, bits, compression = struct.unpack_from("<IiiHHI", data, 14)
        offset = struct.unpack_from("<I", data, 10)[0]
        if compression not in {_BITFIELDS, _ALPHA_BITFIELDS} or bits not in {16, 32}:
            return None
        has_alpha = header >= _ALPHA_HEADER or compression == _ALPHA_BITFIELDS
        masks = struct.unpack_from("<4I" if has_alpha else "<3I", data, _MASKS_AT)
        rows = abs(height)
        step = (width * bits // 8 + 3) // 4 * 4
        whole = width > 0 and rows > 0 and len(data) >= offset + step * rows
        if header < _OLD_HEADER or not any(masks) or not whole:
            return None
        raw = np.frombuffer(data, np.uint8, step * rows, offset).reshape(rows, step)
        values = raw[:, : width * bits // 8].view("<u2" if bits == 16 else "<u4")  # noqa: PLR2004
        values = values if height < 0 else values[::-1]
    except (struct.error, ValueError):
        return None
    channels = [_channel(values, mask) for mask in masks]
    if len(channels) > 3 and not channels[3].any():  # noqa: PLR2004
        channels.pop()
    return Image.fromarray(np.stack(channels, axis=-1))


def _channel(values: Values, mask: int) -> Values:
    """The bits under a mask, as 0 to 255."""
    if not mask:
        return np.zeros(values.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    shift += max(0, (mask >> shift).bit_length() - 16)  # more would not fit below
    wide = (values.astype(np.uint32) & mask) >> shift
    return (wide * 255 // (mask >> shift)).astype(np.uint8)
