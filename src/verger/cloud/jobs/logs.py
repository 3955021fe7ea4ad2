"""Why a job failed, in its own words: from the logs in the bucket, once they are there."""

import gzip
import re
import zlib
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from io import BytesIO
from itertools import takewhile

from verger.store import storage
from verger.store.location import Location

MAX_LINES = 500_000
"""Of the end of a log: an error is the last thing that it says."""

LAST_LINES = 20

_LOG4J = re.compile(r"^\d\d(\d\d)?[/-]\d\d[/-]\d\d \d\d:\d\d:\d\d")


def read_log(file: Location) -> str:
    """The text of a log, of a large one its end; empty where it is not there.

    Raises:
        VergerError: the bucket is forbidden, or does not answer.
    """
    try:
        data = storage.read_bytes(file)
    except OSError:
        return ""
    lines: deque[bytes] = deque(maxlen=MAX_LINES)
    # Of a damaged log there is what comes before the damage.
    with suppress(OSError, EOFError, zlib.error), gzip.open(BytesIO(data)) as stream:
        lines.extend(stream)
    return b"".join(lines).decode(errors="replace")


def find_error(texts: Iterable[str]) -> list[str]:
    """The lines that say why a job failed: verger's own, else the last traceback, else the end.

    Of the logs, the one that knows best comes first.
    """
    texts = [text for text in texts if text.strip()]
    for find in (_own_words, _traceback):
        for text in texts:
            if lines := find(text.splitlines()):
                return lines
    return texts[0].splitlines()[-LAST_LINES:] if texts else []


def _own_words(lines: list[str]) -> list[str]:
    """`Error: …` and what follows it, up to the next line of Spark's log."""
    starts = [number for number, line in enumerate(lines) if line.startswith("Error: ")]
    if not starts:
        return []
    after = lines[starts[-1] + 1 :]
    more = takewhile(lambda line: line.strip() and not _LOG4J.match(line), after)
    return [lines[starts[-1]], *more]


def _traceback(lines: list[str]) -> list[str]:
    """The last traceback of Python, or the last exception of Java with its first cause."""
    starts = [n for n, line in enumerate(lines) if line.startswith("Traceback (most recent")]
    if starts:
        traceback = [lines[starts[-1]]]
        for line in lines[starts[-1] + 1 :]:
            if _LOG4J.match(line):
                break
            traceback.append(line)
            if line and not line.startswith(" "):
                break
        return traceback
    return [line for line in lines if line.startswith(("Exception in thread", "Caused by:"))][-2:]
