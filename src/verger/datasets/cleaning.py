"""What is stored of an image: its pixels, its orientation and its colours, and nothing else."""

import io

from PIL import Image

from verger.images.decoding import Rules, at_full_size, decode
from verger.images.formats import jpeg, webp
from verger.images.opening import check_size, open_image, sniff, without_warnings
from verger.images.stripping import strip_metadata
from verger.output.layout import Rejection
from verger.settings import MAX_IMAGE_PIXELS

_TRIMMERS = {"JPEG": jpeg.trimmed, "WEBP": webp.trimmed}


@without_warnings
def clean(data: bytes, max_pixels: int = MAX_IMAGE_PIXELS) -> bytes | Rejection:
    """An image without metadata, and without a byte that follows its picture.

    A JPEG, PNG or WebP keeps its compressed pixels. Of other formats, and of files whose structure
    cannot be followed, the picture is written anew, as PNG. JPEG and WebP are decoded to find their
    last pixel: call it in a process that may die.

    Args:
        data: the file's bytes.
        max_pixels: the largest width x height that is decoded.

    Returns:
        A file that gives the same features, or the reason why there is none.
    """
    name = sniff(data) or ""
    try:
        mended = jpeg.mended(data) if name == "JPEG" else None
        stripped = strip_metadata(mended or data)
        if name in _TRIMMERS:
            with open_image(stripped, name) as image:
                check_size(image, max_pixels)
            return _TRIMMERS[name](stripped, data)
    # Whatever is wrong, decoding it says what.
    except Exception:  # noqa: BLE001 - damaged data raise nearly anything
        return as_png(data, max_pixels)
    return stripped


def as_png(data: bytes, max_pixels: int = MAX_IMAGE_PIXELS) -> bytes | Rejection:
    """The picture that a run would see, upright and in 8-bit RGB, at its full size.

    It gives the same features, and has no room for metadata.
    """
    seen = decode(data, at_full_size, Rules(max_pixels))
    if isinstance(seen, Rejection):
        return seen
    stream = io.BytesIO()
    Image.fromarray(seen.pixels).save(stream, "PNG")
    return stream.getvalue()
