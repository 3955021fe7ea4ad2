"""The boxes that HEIF, AVIF (ISO 14496-12) and JPEG 2000 (ISO 15444-1) files are made of."""

from collections.abc import Iterator

_RESTRICTED, _ANY = 2, 3
"""How a JPEG 2000 says that its colours are those of a profile."""


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each box, and where its body begins and ends, which may be beyond the data."""
    while at + 8 <= end:
        size, kind, start = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], at + 8
        if size == 1:
            size, start = int.from_bytes(data[start : start + 8], "big"), at + 16
        at = end if size == 0 else at + max(size, 8)
        yield kind, start, at


def is_cut(data: bytes) -> bool:
    """Whether the last box is longer than the file."""
    return any(stop > len(data) for _, _, stop in _boxes(data, 0, len(data)))


def without_metadata(data: bytes) -> bytes:
    """A HEIF file in which no EXIF or XMP belongs to a picture; not a byte is moved.

    Damaged metadata crash pi-heif 1.4.0, which reads them first; nothing of them is wanted, since
    the boxes themselves say how a picture is turned (ISO 23008-12, 6.5.10).
    """
    for kind, start, stop in _boxes(data, 0, len(data)):
        if kind == b"meta":
            return data[:start] + data[start:stop].replace(b"cdsc", b"none") + data[stop:]
    return data


def jp2_profile(data: bytes) -> bytes:
    """The ICC profile of a JPEG 2000 file, which Pillow does not give; empty for none."""
    for kind, start, stop in _boxes(data, 0, len(data)):
        if kind == b"jp2h":
            for inner, begin, end in _boxes(data, start, min(stop, len(data))):
                if inner == b"colr":
                    by_profile = data[begin : begin + 1] in {bytes((_RESTRICTED,)), bytes((_ANY,))}
                    return data[begin + 3 : end] if by_profile else b""
    return b""
