"""From a file's bytes to the pixels that the network takes, or the reason why not."""

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from verger.images import opening, rgb
from verger.images.formats import bmp, boxes, jpeg, png, tiff, webp
from verger.images.shrinking import LARGE, SIDE, shrink, to_webp
from verger.images.stripping import strip_metadata
from verger.output.layout import OUT_OF_MEMORY, Reason, Rejection, Special
from verger.settings import MAX_IMAGE_PIXELS

EXACT, SCALED, SCALED_COLOURS, EXACT_COLOURS = "1", "2", "3", "4"
"""The rules by which files become pixels, as outputs name them: in full, or large JPEGs at a
fraction of their size; the later two with the colours that profiles and transparency mean."""

VERSIONS = (EXACT, SCALED, SCALED_COLOURS, EXACT_COLOURS)


@dataclass(frozen=True)
class Rules:
    """How files become pixels.

    Attributes:
        max_pixels: the largest width x height that is decoded.
        least: a JPEG whose sides have twice as many pixels is decoded at a half, a quarter or an
            eighth of its size, with no side below this. None: in full.
        colours: profiles are applied, and transparency is what the file says of it, also where
            Pillow alone has it otherwise.
        accept_truncated: of a file that was cut, take what its decoder makes of the rest.
        thumbnails: make one of each large picture as well.
    """

    max_pixels: int = MAX_IMAGE_PIXELS
    least: int | None = None
    colours: bool = True
    accept_truncated: bool = False
    thumbnails: bool = False


def rules_of(version: str, side: int, max_pixels: int, *, accept_truncated: bool = False) -> Rules:
    """The rules that an output names, for a network that takes squares of `side` pixels."""
    return Rules(
        max_pixels,
        least=2 * side if version in {SCALED, SCALED_COLOURS} else None,
        colours=version in {SCALED_COLOURS, EXACT_COLOURS},
        accept_truncated=accept_truncated,
    )


class Picture(NamedTuple):
    """What became of a file.

    Attributes:
        pixels: (height, width, 3) uint8 in RGB.
        special: what was special about it.
        thumbnail: WebP, where the rules ask for it.
    """

    pixels: NDArray[np.uint8]
    special: frozenset[Special] = frozenset()
    thumbnail: bytes | None = None


Resize = Callable[[Image.Image], Image.Image]
"""Gives a picture the size that is wanted."""


def at_full_size(image: Image.Image) -> Image.Image:
    """The picture as it is."""
    return image


@opening.without_warnings
def decode(data: bytes, resize: Resize, rules: Rules = Rules()) -> Picture | Rejection:
    """Decode an image to 8-bit RGB.

    The orientation that EXIF gives is applied, transparency is laid on white, the first frame
    of an animation is taken, 16 bits become 8, and colours become those of sRGB.

    Args:
        data: the file's bytes, in any of `opening.FORMATS` whatever its name.
        resize: gives the picture its size.
        rules: how.

    Returns:
        The picture, or a rejection; nothing is raised.
    """
    if not data:
        return Rejection(Reason.EMPTY, "0 bytes")
    known = opening.sniff(data)
    if known is None:
        return Rejection(Reason.NOT_AN_IMAGE, f"it begins like {opening.looks_like(data)}")
    if known not in opening.FORMATS:
        return Rejection(Reason.UNSUPPORTED, f"{known}; convert it to JPEG or PNG")
    outcome = _attempt(data, resize, rules, known)
    for repair in _REPAIRS.get(known, ()):
        if _is(outcome, Reason.CORRUPT, Reason.TRUNCATED, Reason.UNSUPPORTED):
            with suppress(ValueError):
                repaired = repair(data)
                again = _attempt(repaired, resize, rules, known) if repaired else outcome
                # What is wrong is said of the file as it is.
                outcome = again if isinstance(again, Picture) else outcome
    if rules.accept_truncated and _is(outcome, Reason.TRUNCATED):
        outcome = _partly(data, resize, rules, known) or outcome
    return outcome


def _is(outcome: Picture | Rejection, *reasons: Reason) -> bool:
    return isinstance(outcome, Rejection) and outcome.reason in reasons


_REPAIRS: dict[str, tuple[Callable[[bytes], bytes | None], ...]] = {
    "JPEG": (jpeg.mended, strip_metadata),
    "PNG": (strip_metadata,),
    "WEBP": (strip_metadata,),
    "TIFF": (tiff.pixels_only,),
}
"""What is tried on a damaged file, by format, and loses no pixel: damage may be elsewhere."""


def _partly(data: bytes, resize: Resize, rules: Rules, known: str) -> Picture | None:
    """What can be decoded of a file that was cut; None where that is nothing."""
    with _tolerating:
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            outcome = _attempt(data, resize, rules, known)
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before
    if isinstance(outcome, Rejection) or _is_blank(outcome.pixels):
        return None
    return outcome._replace(special=outcome.special | {Special.TRUNCATED})


BLANK = 0.9
"""Of a cut file's picture such a share may be of one colour: so are pixels that are missing."""


def _is_blank(pixels: NDArray[np.uint8]) -> bool:
    _, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    return bool(counts.max() > BLANK * counts.sum())


_tolerating = threading.Lock()
"""Pillow's switch is one for the whole process."""


def _attempt(data: bytes, resize: Resize, rules: Rules, known: str) -> Picture | Rejection:
    try:
        return _decode(data, resize, rules, known)
    except ImportError:
        return Rejection(Reason.UNSUPPORTED, opening.NEEDS_HEIF)
    except Image.DecompressionBombError as error:
        return Rejection(Reason.TOO_LARGE, str(error))
    except MemoryError:
        return OUT_OF_MEMORY
    # A status goes back for each.
    except Exception as error:  # noqa: BLE001 - damaged data raise nearly anything
        return _refusal(error, known, data)


def _decode(data: bytes, resize: Resize, rules: Rules, known: str) -> Picture | Rejection:
    special: set[Special] = set()
    with _opened(data, known, rules) as image:
        opening.check_size(image, rules.max_pixels)
        whole = image.size
        if rules.least and isinstance(image, JpegImageFile):
            if min(whole) >= 2 * rules.least:
                image.draft(None, (rules.least, rules.least))
            if image.size != whole:
                special.add(Special.SCALED)
        opening.load(image)
        profile = image.info.get("icc_profile") or b""
        if known == "JPEG2000":
            profile = boxes.jp2_profile(data)
        if known == "PNG" and "transparency" in image.info:
            _mend_transparency(image, data, rules)
        inverted = known == "TIFF" and rgb.is_inverted(image)
        ImageOps.exif_transpose(image, in_place=True)
        try:
            made, converted = rgb.to_rgb(
                image, profile if rules.colours else b"", inverted=inverted
            )
        except ValueError as error:
            return Rejection(Reason.UNSUPPORTED, f"{error}; convert it to 8-bit RGB")
        special |= {Special.PROFILE} if converted else set()
        large = rules.thumbnails and min(whole) >= LARGE
        thumbnail = to_webp(shrink(made, SIDE)) if large else None
        return Picture(np.asarray(resize(made)), frozenset(special), thumbnail)


def _mend_transparency(image: Image.Image, data: bytes, rules: Rules) -> None:
    """Give the transparent colour of a PNG in the depth of the pixels."""
    if rules.colours:
        image.info["transparency"] = png.transparent_colour(image, data)
    elif image.mode.startswith("I"):
        del image.info["transparency"]  # by the rules of before, 16 bits had none


def _opened(data: bytes, known: str, rules: Rules) -> Image.Image:
    """The image, by what reads it best."""
    if known == "BMP" and rules.colours:
        masked = bmp.by_masks(data)
        if masked is not None:
            return masked
    try:
        readable = boxes.without_metadata(data) if known == "HEIF" else data
        return opening.open_image(readable, known)
    except UnidentifiedImageError:
        pair = tiff.grey_and_alpha_of_16_bits(data, rules.max_pixels) if known == "TIFF" else None
        if pair is None:
            raise
        return pair


def _refusal(error: Exception, known: str, data: bytes) -> Rejection:
    """Damage, or a sound file of a kind that is not read."""
    why_not = {"TIFF": tiff.why_not, "JPEG": jpeg.why_not}.get(known)
    if why_not and (lacking := why_not(data)):
        return Rejection(Reason.UNSUPPORTED, f"{lacking} is not read; convert it to 8-bit RGB")
    text = str(error).lower()
    if any(word in text for word in _NOT_READ):
        return Rejection(Reason.UNSUPPORTED, f"{_describe(error)}; convert it to JPEG or PNG")
    cut = known == "WEBP" and webp.is_cut(data)
    cut |= known in {"HEIF", "AVIF", "JPEG2000"} and boxes.is_cut(data)
    cut |= "truncated" in text
    return Rejection(Reason.TRUNCATED if cut else Reason.CORRUPT, _describe(error))


_NOT_READ = (
    "unsupported bmp compression",
    "bitfields layout",
    "unsupported feature",
    "unsupported codec",
    "not available",
)
"""What decoders say of sound files that they cannot read, in small letters."""


def _describe(error: BaseException) -> str:
    """What an error says, in words that are the same each time."""
    if isinstance(error, UnidentifiedImageError):
        return "its structure cannot be followed"
    text = re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>|0x[0-9a-fA-F]{6,}", "…", str(error))
    return f"{type(error).__name__}: {text}"[:300]
