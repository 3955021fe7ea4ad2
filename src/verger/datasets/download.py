"""A download that goes on after interruptions, over attempts and over processes."""

import base64
import json
import re
import shutil
import string
import time
from collections.abc import Iterator
from email.message import Message
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit

from verger.errors import InputError, SetupError, UsageError
from verger.progress import Progress
from verger.store import storage
from verger.store.location import Location

PUBLISHED = (
    "https://s3.eu-west-1.amazonaws.com/course.oc-static.com/projects/Data_Scientist_P8/fruits.zip"
)
KAGGLE = "Download https://www.kaggle.com/datasets/moltean/fruits by hand; give the zip by --from."

CHUNK = 2**20
TIMEOUT_SECONDS = 30.0
ATTEMPTS = 5
"""Failures in a row, with nothing gained, that end the download."""
BACKOFF_SECONDS = 1.0
"""Before the second attempt; doubled before each further one."""
TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})


class Origin(NamedTuple):
    """Where the archive is; `shown` has no secrets, and is the path of a file that has no URL."""

    shown: str
    url: str = ""
    authorization: str = ""

    @property
    def hint(self) -> str:
        """What to do when it cannot be had."""
        return KAGGLE if self.url == PUBLISHED else "Check the address, or give a zip by --from."


def parse_source(source: str) -> Origin:
    """Read a URL, whose user and password go into a header, or the path of a file.

    Raises:
        UsageError: another scheme, or no valid URL.
        InputError: the file is missing.
    """
    try:
        parts = urlsplit(source)
        host, _ = (parts.hostname or "").encode("idna"), parts.port
    except ValueError as error:
        raise UsageError("The source is no valid URL.", "Give a URL or a zip file.") from error
    if parts.scheme in {"http", "https"} and host:
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        url = quote(f"{shown}?{parts.query}".rstrip("?"), safe=string.punctuation)
        user = unquote(f"{parts.username}:{parts.password or ''}").encode()
        basic = f"Basic {base64.b64encode(user).decode()}"
        return Origin(shown, url, basic if parts.username else "")
    file = Path(source).expanduser().resolve()
    if parts.scheme and not file.is_file():
        raise UsageError(
            f"The source has the scheme {parts.scheme}: or no host.",
            "Give an http or https URL, or a zip file on this machine.",
        )
    if not file.is_file():
        raise InputError(f"{file} is not a file.", "Give a zip file or a URL by --from.")
    return Origin(str(file))


class _DroppedError(Exception):
    """An attempt failed, and another may succeed."""


class Download:
    """A file that grows over attempts and processes; a sidecar says what it is a part of."""

    def __init__(self, origin: Origin, state: Path, shown: Progress) -> None:
        self.origin, self.shown = origin, shown
        name = re.sub(r"[^\w.-]", "_", origin.shown.rpartition("/")[2])[:100]
        self.partial, self.sidecar = state / f"{name}.partial", state / f"{name}.json"
        self.known = read_json(self.sidecar)
        self.answered = self.started = False
        # Not build_opener: after a redirect, it would follow ftp: too.
        self.opener = request.OpenerDirector()
        for kind in ("Proxy", "Unknown", "HTTP", "HTTPS", "HTTPRedirect", "HTTPDefaultError"):
            self.opener.add_handler(getattr(request, f"{kind}Handler")())
        self.opener.add_handler(request.HTTPErrorProcessor())

    def run(self) -> Path:
        """Download until it is whole."""
        best, failures = size_of(self.partial), 0
        while True:
            try:
                self._attempt()
            except _DroppedError as error:
                # Against the best so far: a server that always starts over gains nothing.
                have = size_of(self.partial)
                best, failures = max(best, have), 1 if have > best else failures + 1
                if failures == ATTEMPTS:
                    raise SetupError(
                        f"{self.origin.shown}: {error}, {ATTEMPTS} times without progress.",
                        f"The same command goes on from there. {self.origin.hint}",
                    ) from error
                self.shown.note(f"Trying again: {error}.")
                time.sleep(BACKOFF_SECONDS * 2 ** (failures - 1))
            else:
                if self.started:
                    self.shown.finish()
                return self.partial

    def _attempt(self) -> None:
        known, have = self.known, max(0, size_of(self.partial))
        _, validator = self._validator()
        if not validator or not known.get("size") or known.get("source") != self.origin.shown:
            have = 0
        wanted = request.Request(self.origin.url)  # noqa: S310 - the opener has no other scheme
        if have:
            wanted.add_header("Range", f"bytes={have}-")
            wanted.add_header("If-Range", validator)
        if self.origin.authorization:
            wanted.add_unredirected_header("Authorization", self.origin.authorization)
        try:
            response = self.opener.open(wanted, timeout=TIMEOUT_SECONDS)
        except HTTPError as error:
            error.close()
            self.answered = True
            if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise self._refusal(error.code) from error
            whole = have and have == known.get("size")
            if not whole or error.headers.get("Content-Range") not in {None, f"bytes */{have}"}:
                raise self._start_over() from error
        except (OSError, HTTPException) as error:
            raise self._failure(error) from error
        else:
            with response:
                self.answered = True
                self._receive(response, have)

    def _receive(self, response: HTTPResponse, have: int) -> None:
        """Append a part, or write the file anew when the answer is all of it."""
        if response.status == HTTPStatus.PARTIAL_CONTENT and have:
            total = self.known["size"]
            header, validator = self._validator()
            same = response.headers.get(header, validator) == validator
            part = response.headers.get("Content-Range", "")
            if not same or not re.fullmatch(rf"bytes {have}-\d+/{total}", part):
                raise self._start_over()
        elif response.status == HTTPStatus.OK:
            have, total = 0, response.length
        else:
            raise self._refusal(response.status)
        require_space(
            self.partial.parent, (total or 0) - max(0, size_of(self.partial)), "The download"
        )
        with self.partial.open("ab" if have else "wb") as out:
            if not have:
                # After the file was emptied, so that it never describes older bytes.
                self._describe(response.headers, total)
            if not self.started:
                self.shown.start("download", total)
            self.started = True
            self.shown.update(have)
            for chunk in self._chunks(response):
                have += out.write(chunk)
                self.shown.update(have)
        if total is not None and have != total:
            raise _DroppedError(f"the connection dropped at {have:,} of {total:,} bytes")

    def _chunks(self, response: HTTPResponse) -> Iterator[bytes]:
        try:
            while chunk := response.read1(CHUNK):
                yield chunk
        except (OSError, HTTPException) as error:
            raise self._failure(error) from error

    def _describe(self, headers: Message, size: int | None) -> None:
        etag = headers.get("ETag", "")
        self.known = {
            "source": self.origin.shown,
            "etag": None if etag.startswith("W/") else etag,  # If-Range takes no weak one
            "modified": headers.get("Last-Modified"),
            "size": size,
        }
        write_json(self.sidecar, self.known)

    def _validator(self) -> tuple[str, str]:
        """The header that would change with the file, and what it was."""
        etag = self.known.get("etag")
        return ("ETag", etag) if etag else ("Last-Modified", self.known.get("modified") or "")

    def _start_over(self) -> _DroppedError:
        self.partial.unlink(missing_ok=True)
        return _DroppedError("the file has changed, or another part came than was asked for")

    def _refusal(self, code: int) -> Exception:
        phrase = HTTPStatus(code).phrase if code in set(HTTPStatus) else ""
        answer = f"the server answered {code} {phrase}".rstrip()
        if code in TRANSIENT:
            return _DroppedError(answer)
        return InputError(f"{self.origin.shown}: {answer}.", self.origin.hint)

    def _failure(self, error: Exception) -> Exception:
        cause = error.reason if isinstance(error, URLError) else error
        # The text of an HTTPException may hold the URL with its secrets.
        told = type(cause).__name__ if isinstance(cause, HTTPException) else str(cause)
        why = getattr(cause, "strerror", None) or told
        if isinstance(error, URLError) and not self.answered:
            return SetupError(f"{self.origin.shown} cannot be reached: {why}.", self.origin.hint)
        return _DroppedError(f"the connection dropped ({why})")


def require_space(folder: Path, needed: int, what: str) -> None:
    """See that `needed` bytes are free.

    Raises:
        SetupError: they are not.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise SetupError(
            f"{what} needs {needed / 1e6:,.1f} MB; {folder} has {free / 1e6:,.1f} MB free.",
            "Make room and give the same command again, or give a folder on another disk.",
        )


def size_of(file: Path) -> int:
    """Bytes; -1 where there is no file."""
    return file.stat().st_size if file.is_file() else -1


def read_json(file: Path) -> dict[str, Any]:
    """What is in a file; nothing where it is missing or damaged."""
    try:
        read = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def write_json(file: Path, data: dict[str, Any]) -> None:
    """Put a small file in place, whole."""
    storage.write_bytes(Location(str(file)), json.dumps(data, indent=1).encode())
