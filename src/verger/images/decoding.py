"""From a file's bytes to the pixels that the network takes, or the reason why not."""

import io
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from verger.output.layout import Reason, Rejection
from verger.settings import MAX_IMAGE_PIXELS

EXACT, SCALED = "1", "2"
"""The rules by which files become pixels: in full, or large JPEGs at a fraction of their size."""


FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Pillow's names; a JPEG may hold several pictures (MPO), of which the first is taken."""


PHOTOMETRIC = 262


WHITE_IS_ZERO = 0
"""A tag of TIFF 6.0 and its value for greys that run from white to black."""


WHITE = (255, 255, 255, 255)


Resize = Callable[[Image.Image], Image.Image]
"""Gives a picture the size that is wanted."""


def to_square(side: int) -> Resize:
    """The whole picture as a square, which networks take, by Pillow's bicubic filter.

    That filter is the reference: others give other features.
    """
    return partial(Image.Image.resize, size=(side, side), resample=Image.Resampling.BICUBIC)


def at_full_size(image: Image.Image) -> Image.Image:
    """The picture as it is."""
    return image


def decode(
    data: bytes,
    resize: Resize,
    max_pixels: int = MAX_IMAGE_PIXELS,
    least: int | None = None,
) -> NDArray[np.uint8] | Rejection:
    """Decode an image to 8-bit RGB.

    The orientation that EXIF gives is applied, transparency is laid on white, the first frame
    of an animation is taken, and 16 bits become 8.

    Args:
        data: the file's bytes, in any of `FORMATS` whatever its name.
        resize: gives the picture its size.
        max_pixels: the largest width x height that is decoded.
        least: a JPEG whose sides have twice as many pixels is decoded at a half, a quarter or an
            eighth of its size, with no side below this. None: in full.

    Returns:
        (height, width, 3) uint8, or a rejection; nothing is raised.
    """
    if not data:
        return Rejection(Reason.EMPTY, "0 bytes")
    known = sniff(data)
    if known is None:
        return Rejection(Reason.NOT_AN_IMAGE, f"starts with {data[:8]!r}")
    if known not in FORMATS:
        return Rejection(Reason.UNSUPPORTED, f"{known}; convert it to JPEG or PNG")
    with warnings.catch_warnings():
        # Pillow warns of damage, and from half of its limit on; ours is checked below.
        warnings.simplefilter("ignore")
        try:
            return _decode(data, resize, max_pixels, least)
        except (Image.DecompressionBombError, MemoryError) as error:
            return Rejection(Reason.TOO_LARGE, _describe(error))
        # A status goes back for each.
        except Exception as error:  # noqa: BLE001 - damaged data raise nearly anything
            return Rejection(_reason(error, known, data), _describe(error))


def _decode(
    data: bytes, resize: Resize, max_pixels: int, least: int | None
) -> NDArray[np.uint8] | Rejection:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > max_pixels:
            size = f"{image.width} x {image.height} pixels, more than {max_pixels:,}"
            return Rejection(Reason.TOO_LARGE, size)
        if least and isinstance(image, JpegImageFile) and min(image.size) >= 2 * least:
            image.draft(None, (least, least))
        image.load()
        upright = ImageOps.exif_transpose(image)
        try:
            rgb = _to_rgb(upright, image)
        except ValueError as error:
            return Rejection(Reason.UNSUPPORTED, f"{_describe(error)}; convert it to 8-bit RGB")
        return np.asarray(resize(rgb))


def _to_rgb(image: Image.Image, original: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow would clip 16 bits at 255 instead of scaling them.
        wide = np.asarray(image).astype(np.int64)
        if getattr(original, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
            wide = 65535 - wide  # Pillow inverts these with 8 bits, and not with 16
        return Image.fromarray((wide.clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers, of a range that is not known")
    if image.has_transparency_data:
        flat = Image.new("RGBA", image.size, WHITE)
        flat.alpha_composite(image.convert("RGBA"))
        return flat.convert("RGB")
    return image.convert("RGB")


_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"8BPS": "Photoshop",
}


_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}
"""Sizes of the headers that follow a bitmap's 14 bytes: text that starts with BM has none."""


_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis"}


def sniff(data: bytes) -> str | None:
    """The format of a file by its first bytes, of those in `FORMATS` and some others, or None."""
    for signature, name in _SIGNATURES.items():
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "HEIF or AVIF"
    return None


def _reason(error: Exception, known: str, data: bytes) -> Reason:
    if known == "TIFF" and isinstance(error, UnidentifiedImageError) and _has_odd_pixels(data):
        return Reason.UNSUPPORTED
    cut = known == "WEBP" and _is_cut_webp(data)
    return Reason.TRUNCATED if cut or "truncated" in str(error).lower() else Reason.CORRUPT


def _is_cut_webp(data: bytes) -> bool:
    """Whether there are fewer bytes than the header says; libwebp itself does not say."""
    return len(data) < 8 + int.from_bytes(data[4:8], "little")


def _has_odd_pixels(data: bytes) -> bool:
    """Whether the tags of a TIFF can be read and ask for pixels that Pillow does not know."""
    try:
        TiffImagePlugin.TiffImageFile(io.BytesIO(data))
    except SyntaxError as error:
        return str(error) == "unknown pixel mode"
    except Exception:  # noqa: BLE001 - damaged tags raise nearly anything
        return False
    return False


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]
