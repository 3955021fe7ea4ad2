"""Forty kinds of bad file in one run: each is used, or rejected with its reason."""

import gzip
import io
import os
import socket
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import features_of, go, rejected_of
from pictures import chunk, encoded

pytestmark = pytest.mark.usefixtures("spark")


def png(width: int, height: int, data: bytes, *, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def swapped(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new, 1)


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("inside.jpg", b"x")
    return stream.getvalue()


RNG = np.random.default_rng(1)
NOISE = Image.fromarray(RNG.integers(0, 256, (60, 80, 3), np.uint8))
JPEG, PNG, WEBP, BMP, GIF, TIFF = (
    encoded(NOISE, kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
)
BOMB = png(60_000, 60_000, b"")

BAD: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "empty"),
    "one-byte.jpg": (b"\xff", "corrupt"),
    "zeros.jpg": (bytes(5000), "corrupt"),
    "noise.jpg": (RNG.bytes(5000), "corrupt"),
    "text.jpg": (b"une pomme", "corrupt"),
    "page.jpg": (b"<!DOCTYPE html><html>404</html>", "corrupt"),
    "error.jpg": (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "corrupt"),
    "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
    "zeros": (bytes(5000), "not_an_image"),
    "_SUCCESS": (b"", "not_an_image"),
    "list.json": (b'{"a": 1}', "not_an_image"),
    "paper.pdf": (b"%PDF-1.7\n", "not_an_image"),
    "archive.zip": (zipped(), "not_an_image"),
    "packed.jpg.gz": (gzip.compress(JPEG), "not_an_image"),
    "program": (b"\x7fELF" + bytes(60), "not_an_image"),
    "film.mp4": (b"\0\0\0\x18ftypisom" + bytes(40), "not_an_image"),
    "sound.wav": (b"RIFF\x24\0\0\0WAVEfmt " + bytes(20), "not_an_image"),
    "begins-with-BM.txt": (b"BMW is a car, and this is a text about it.", "not_an_image"),
    "lfs-pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\n", "corrupt"),
    "cut.heic": (b"\0\0\0\x18ftypheic" + bytes(40), "corrupt"),
    "cut.avif": (b"\0\0\0\x18ftypavif" + bytes(40), "corrupt"),
    "photo.jxl": (b"\xff\x0a" + bytes(40), "unsupported"),
    "cut.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n", "corrupt"),
    "layers.psd": (b"8BPS\0\1" + bytes(40), "unsupported"),
    "floats.tif": (encoded(Image.new("F", (20, 20), 0.5), "TIFF"), "unsupported"),
    "header-only.jpg": (JPEG[:2] + b"\xff", "corrupt"),
    "half.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "nearly-whole.jpg": (JPEG[:-200], "truncated"),
    "no-tables.jpg": (swapped(JPEG, b"\xff\xdb", b"\xff\xfe"), "corrupt"),
    "wrong-precision.jpg": (swapped(JPEG, b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0d"), "corrupt"),
    "lossless.jpg": (swapped(JPEG, b"\xff\xc0", b"\xff\xc3"), "unsupported"),
    "half.png": (PNG[: len(PNG) // 2], "truncated"),
    "signature-only.png": (PNG[:8], "corrupt"),
    "bad-checksum.png": (swapped(PNG, b"IHDR\0\0\0\x50", b"IHDR\0\0\0\x51"), "corrupt"),
    "bad-stream.png": (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", b"not deflated")
        + chunk(b"IEND", b""),
        "corrupt",
    ),
    "zero-width.png": (png(0, 10, b""), "corrupt"),
    "odd-depth.png": (png(4, 4, b"\0" * 52, depth=3), "corrupt"),
    "bomb.png": (BOMB, "too_large"),
    "bomb.bmp": (b"BM" + struct.pack("<IHHIIiiHH", 0, 0, 0, 54, 40, 50_000, 50_000, 1, 24)
                 + bytes(24), "too_large"),
    "half.webp": (WEBP[: len(WEBP) // 2], "truncated"),
    "damaged.webp": (WEBP[:20] + bytes(60) + WEBP[80:], "corrupt"),
    "half.gif": (GIF[: len(GIF) // 2], "truncated"),
    "no-frame.gif": (GIF[:13] + b";", "corrupt"),
    "half.bmp": (BMP[: len(BMP) // 2], "truncated"),
    "header-only.bmp": (BMP[:20], "truncated"),
    "half.tif": (TIFF[: len(TIFF) // 2], "truncated"),
    "no-directory.tif": (b"II*\0" + struct.pack("<I", 4_000_000) + bytes(20), "corrupt"),
    "loop.tif": (b"II*\0" + struct.pack("<IH", 8, 0) + struct.pack("<I", 8), "corrupt"),
}  # fmt: skip

ODD: dict[str, bytes] = {
    "cmyk.jpg": encoded(NOISE.convert("CMYK"), "JPEG"),
    "grey.jpg": encoded(NOISE.convert("L"), "JPEG"),
    "progressive.jpg": encoded(NOISE, "JPEG", progressive=True),
    "trailing-bytes.jpg": JPEG + b"appended by a camera",
    "palette.png": encoded(NOISE.convert("P"), "PNG"),
    "transparent.png": encoded(NOISE.convert("RGBA"), "PNG"),
    "one-bit.png": encoded(NOISE.convert("1"), "PNG"),
    "sixteen-bit.png": encoded(Image.fromarray(np.full((9, 9), 4096, np.uint16)), "PNG"),
    "one-pixel.png": encoded(Image.new("RGB", (1, 1), "red"), "PNG"),
    "thin.png": encoded(Image.new("RGB", (3000, 1), "red"), "PNG"),
    "animated.gif": encoded(NOISE, "GIF", save_all=True, append_images=[NOISE.rotate(90)]),
    "animated.webp": encoded(NOISE, "WEBP", save_all=True, append_images=[NOISE.rotate(90)]),
    "wrong-suffix.txt": JPEG,
    "no-suffix": PNG,
    "phone.heic": (Path(__file__).parents[1] / "golden/phone.heic").read_bytes(),
    "photo.avif": encoded(NOISE, "AVIF"),
    "photo.jp2": encoded(NOISE, "JPEG2000"),
    "no-end.jpg": JPEG[:-2],
    "deflated.tif": encoded(NOISE, "TIFF", compression="tiff_adobe_deflate"),
}


def test_every_kind_of_bad_file_is_rejected_with_its_reason(tmp_path: Path) -> None:
    assert len(BAD) >= 40
    folder = tmp_path / "in/class"
    folder.mkdir(parents=True)
    for name, data in ODD.items():
        (folder / name).write_bytes(data)
    for name, (data, _) in BAD.items():
        (folder / name).write_bytes(data)
    large = folder / "sparse.jpg"
    with large.open("wb") as sparse:
        sparse.write(JPEG)
        sparse.truncate(300 * 2**20)
    not_utf8 = os.fsencode(folder) + b"/latin-\xe9.jpg"
    Path(os.fsdecode(not_utf8)).write_bytes(JPEG)
    # What is no file at all is not listed.
    os.mkfifo(folder / "pipe.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "up").symlink_to("..")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket.jpg"))

    manifest = go(tmp_path / "in", tmp_path / "out", max_rejected=1)
    listener.close()

    expected = {f"class/{name}": reason for name, (_, reason) in BAD.items()}
    expected |= {"class/sparse.jpg": "too_large", r"class/latin-\xe9.jpg": "unreadable"}
    assert rejected_of(tmp_path / "out") == expected
    assert set(features_of(tmp_path / "out").path) == {f"class/{name}" for name in ODD}
    counts = manifest.counts
    assert (counts.listed, counts.rejected) == (len(BAD) + 2 + len(ODD), len(BAD) + 2)
