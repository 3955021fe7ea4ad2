"""What a zip archive holds: its names as people wrote them, and whether it is safe to unpack."""

import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from contextlib import suppress
from pathlib import PurePosixPath

from verger.datasets.download import KAGGLE
from verger.errors import InputError
from verger.images.listing import is_passed_over
from verger.images.opening import claims_image

MAX_BYTES, MAX_RATIO = 100 * 10**9, 200
"""Of all that is unpacked, and of that to the archive; photographs have a ratio of about 1."""

STATE, RECORD = ".download", ".fetched.json"
"""Names at the top of a folder that are verger's own: what is being done, and what was."""

_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}

_ENCRYPTED, _UTF8 = 0x1, 0x800
"""Flags of an entry; without the second, nobody knows what its name is written in."""

_FIELD = struct.Struct("<HH")
"""The head of an extra field: its kind, and the length of its body."""

_UNICODE_PATH = 0x7075
"""The extra field in which Info-ZIP has the name again, in UTF-8."""

_CODE_PAGES = ("cp437", "cp850", "cp1252")
"""Of DOS, which the format names, of DOS in Europe, and of Windows."""


def checked_files(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The files to unpack of an archive of `size` bytes, by path.

    Raises:
        InputError: it is unsafe, or holds no image.
    """
    entries = archive.infolist()
    named = [*zip(entries, names_of(entries), strict=True)]
    refused = next(((entry, why) for entry, name in named if (why := _fault(entry, name))), None)
    total = sum(entry.file_size for entry in entries)
    # Entries that overlap have more packed bytes than the archive has.
    packed = min(size, sum(entry.compress_size for entry in entries))
    if not refused and total > min(MAX_BYTES, MAX_RATIO * packed):
        largest = max(entries, key=lambda entry: entry.file_size)
        refused = (largest, f"is the largest in a zip bomb: {size:,} bytes make {total:,}")
    if refused:
        raise InputError(
            f"The archive is refused: {refused[0].orig_filename!r} {refused[1]}.",
            "Nothing was unpacked. Give an archive that you trust.",
        )
    files = {
        str(PurePosixPath(name)): entry
        for entry, name in named
        if PurePosixPath(name).parts and not name.endswith("/") and not is_passed_over(name)
    }
    if not any(claims_image(name) or name.lower().endswith(".zip") for name in files):
        raise InputError("The archive holds no image.", KAGGLE)
    return files


def names_of(entries: list[zipfile.ZipInfo]) -> list[str]:
    r"""The names of entries, with `/` between their parts, composed (NFC).

    Some Windows tools write `\\`, and nearly all write names that are not ASCII without saying in
    which code page: UTF-8 is taken where all of them are, else the page that gives most letters.
    """
    raw = [_raw_name(entry) for entry in entries]
    page = _guess(b"\n".join(name for name in raw if isinstance(name, bytes)))
    names = [name if isinstance(name, str) else name.decode(page) for name in raw]
    return [unicodedata.normalize("NFC", name.replace("\\", "/")) for name in names]


def _raw_name(entry: zipfile.ZipInfo) -> str | bytes:
    """The name as it was written, or its text where that is known."""
    if entry.flag_bits & _UTF8:
        return entry.orig_filename
    raw = entry.orig_filename.encode("cp437")  # as zipfile has decoded it
    extra = entry.extra
    while len(extra) >= _FIELD.size:
        kind, length = _FIELD.unpack_from(extra)
        body, extra = extra[_FIELD.size :][:length], extra[_FIELD.size + length :]
        # It is of this name, and not of the one before somebody renamed the entry.
        if kind == _UNICODE_PATH and body[1:5] == struct.pack("<I", zlib.crc32(raw)):
            return body[5:].decode(errors="replace")
    return raw


def _guess(names: bytes) -> str:
    """The encoding of some names."""
    texts = {}
    for page in ("utf-8", *_CODE_PAGES):
        with suppress(UnicodeDecodeError):
            texts[page] = names.decode(page)
    return "utf-8" if "utf-8" in texts else max(texts, key=lambda page: _likelihood(texts[page]))


def _likelihood(text: str) -> int:
    """How many characters beyond ASCII are letters where one may stand, less those that are not."""
    total = 0
    for before, character in zip(" " + text, text, strict=False):
        if not character.isascii():
            latin = unicodedata.name(character, "").startswith("LATIN")
            total += 1 if latin and not (before.islower() and character.isupper()) else -1
    return total


def _fault(entry: zipfile.ZipInfo, name: str) -> str:
    """What is unsafe about an entry; empty for nothing."""
    if leaves(name) or "\0" in entry.orig_filename:
        return "leaves the folder"
    if PurePosixPath(name).parts[:1] in {(STATE,), (RECORD,)}:
        return "has a name that verger keeps for itself"
    if stat.S_IFMT(entry.external_attr >> 16) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return "is a symlink or a device"
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted"
    return "" if entry.compress_type in _METHODS else "is packed by an unusual method"


def leaves(name: str) -> bool:
    """Whether a path is absolute or climbs, here or on another system."""
    return bool(re.search(r"^/|^[A-Za-z]:|\\|\0|(^|/)\.\.(/|$)", name))
