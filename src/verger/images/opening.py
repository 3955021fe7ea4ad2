"""Which formats are read, how a file is told to be of one, and opened."""

import ctypes
import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import ContextDecorator, ExitStack, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path

import PIL
from PIL import AvifImagePlugin, Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "HEIF", "AVIF", "JPEG2000")
"""Pillow's names; a JPEG may hold several pictures (MPO), of which the first is taken."""

READ = "JPEG, PNG, WebP, HEIC, AVIF, JPEG 2000, TIFF, BMP and GIF"
"""The same for people."""

NEEDS_HEIF = "HEIC needs the package pi-heif (pip install pi-heif), or convert it to JPEG or PNG"

_EXTENSIONS = re.compile(
    r"\.(jpe?g|jpe|jfif|mpo|a?png|webp|bmp|dib|gif|tiff?|hei[cf]s?|hif|avif|j2[kc]|jp2|jp[xf]|jxl)$",
    re.IGNORECASE,
)

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
    b"\0\0\0\x0cjP  ": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"8BPS": "Photoshop",
}

_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}
"""Sizes of the headers that follow a bitmap's 14 bytes: text that starts with BM has none."""

_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}


def sniff(data: bytes) -> str | None:
    """The format of a file by its first bytes, of those in `FORMATS` and some others, or None."""
    for signature, name in _SIGNATURES.items():
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS | _AVIF_BRANDS:
        # A major brand of mif1 says neither; the others that it is compatible with do.
        end = min(int.from_bytes(data[:4], "big"), 256)
        brands = {data[at : at + 4] for at in (8, *range(16, end, 4))}
        return "AVIF" if brands & _AVIF_BRANDS else "HEIF"
    return None


def looks_like(data: bytes) -> str:
    """What a file that is no image begins like; none of its words, which may be somebody's."""
    head = data[:64]
    if not head.strip(b"\0"):
        return "nothing but zeros"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "a web page or XML"
    words = head.decode(errors="ignore")
    whole = len(words.encode()) > len(head) - 4  # but for a letter that was cut
    is_text = whole and "".join(words.split()).isprintable()
    return "a text" if is_text else "no format that is read"


def claims_image(path: str) -> bool:
    """Whether a file is called as images are."""
    return bool(_EXTENSIONS.search(path))


_lifting = threading.Lock()


def open_image(data: bytes, kind: str) -> Image.Image:
    """Open an image of one of `FORMATS` with Pillow, of any size: its pixels are not decoded yet.

    Raises:
        ImportError: it is HEIF, and the package that reads it is not there.
        Exception: what Pillow raises of damaged files.
    """
    if kind == "HEIF":
        _register_heif()
    _silence_libtiff()
    with _any_size():
        threads, AvifImagePlugin.DEFAULT_MAX_THREADS = AvifImagePlugin.DEFAULT_MAX_THREADS, 1
        try:
            return Image.open(io.BytesIO(data), formats=(kind,))
        finally:
            AvifImagePlugin.DEFAULT_MAX_THREADS = threads


def check_size(image: Image.Image, max_pixels: int) -> None:
    """Refuse a picture that is too large to decode.

    Raises:
        Image.DecompressionBombError: it has more pixels.
    """
    if image.width * image.height > max_pixels:
        size = f"{image.width} x {image.height} pixels"
        raise Image.DecompressionBombError(f"{size}, more than {max_pixels:,}")


def load(image: Image.Image) -> None:
    """Decode the pixels of an opened image, of any size.

    Raises:
        Exception: what Pillow raises of damaged files.
    """
    # Of the formats that are read, TIFF alone looks at the limit again.
    with _any_size() if image.format == "TIFF" else nullcontext():
        image.load()


class _WithoutWarnings(ContextDecorator):
    """Pillow warns of damage; what is wrong with a file is said by us.

    Filters are those of the whole process: of threads, the first sets them and the last puts those
    of before back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._filters = ExitStack()
                self._filters.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.close()


without_warnings = _WithoutWarnings()


@contextmanager
def _any_size() -> Iterator[None]:
    """Lift Pillow's limit, which is one for the whole process, in which others may rely on it."""
    with _lifting:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@cache
def _register_heif() -> None:
    """Have Pillow read HEIF, on one thread: each processor has an image of its own."""
    from pi_heif import register_heif_opener

    register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


@cache
def _silence_libtiff() -> None:
    """Have libtiff, as Pillow brings it, print nothing: what is wrong with a file is said by us."""
    packages = Path(PIL.__file__).parent
    for folder in (packages.parent / "pillow.libs", packages / ".dylibs"):
        for file in folder.glob("libtiff*"):
            with suppress(OSError, AttributeError):
                library = ctypes.CDLL(str(file))
                for kind in ("Error", "Warning"):
                    function = library[f"TIFFSet{kind}Handler"]
                    function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_void_p
                    function(None)
