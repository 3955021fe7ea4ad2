"""What a failure of Spark means for the reader."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from subprocess import TimeoutExpired

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException

from verger.errors import InputError, SetupError, VergerError
from verger.spark.java import java_process


@contextmanager
def spark_errors() -> Iterator[None]:
    """Say what a failure of Spark, disk or memory means.

    Raises:
        VergerError: of the kind that fits.
    """
    try:
        yield
    except (PySparkException, Py4JError, OSError, EOFError) as error:
        raise _meaning(error) from error
    except MemoryError as error:
        raise SetupError(
            "There is not enough memory.", "Look at `verger doctor`; the same command goes on."
        ) from error


def _meaning(error: Exception) -> VergerError:
    """What a failure of Spark, or of the system under it, means for the reader."""
    text = str(error)
    # Java's answers end a moment before Java is seen to have ended.
    cut_off = isinstance(error, Py4JError) and not isinstance(error, Py4JJavaError)
    if isinstance(error, (ConnectionError, EOFError)) or _java_ended(2.0 if cut_off else 0.0):
        # Whatever was asked of it, such as whether it knows a class.
        text = f"Error while sending or receiving: {text}"
    of_connect = type(error).__module__.endswith("exceptions.connect") and not _TOLD.search(text)
    for words, message, hint in (*(_CONNECT_FAILURES if of_connect else ()), *_KNOWN_FAILURES):
        if any(word in text for word in words):
            return SetupError(message, hint)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for index, line in enumerate(lines):
        # A worker's traceback ends with the error and its hint.
        if told := _TOLD.match(line):
            kind = SetupError if told[1] == "SetupError" else InputError
            hint = lines[index + 1] if index + 1 < len(lines) else ""
            # After an error without a hint comes what Java has to say.
            return kind(told[2], "" if hint.startswith(("at ", "Driver stacktrace")) else hint)
    if isinstance(error, OSError):
        return SetupError(f"{text}.", f"When that is mended, {GOES_ON}.")
    return VergerError(
        f"Spark failed: {lines[0] if lines else type(error).__name__}",
        "What was committed is kept; --debug shows Spark's own log.",
    )


def _java_ended(seconds: float) -> bool:
    """Whether the Java machine that this process started has ended, or does within some seconds."""
    started = java_process()
    if started is None:
        return False
    with suppress(TimeoutExpired):
        started.wait(seconds)
    return started.poll() is not None


_TOLD = re.compile(r"verger\.errors\.(SetupError|InputError): (.*)")
GOES_ON = "the same command goes on from the last wave"
_SESSION_ENDED = ("INVALID_HANDLE", "SESSION_CLOSED", "SESSION_CHANGED", "SESSION_NOT_FOUND")
_CONNECT_FAILURES = (
    (
        ("message larger than max", "gRPC message exceeds maximum size"),
        "A function is larger than the message limit of Spark Connect: the network is too large.",
        "Take a smaller --network, or raise the server's spark.connect.grpc.maxInboundMessageSize.",
    ),
    (
        _SESSION_ENDED,
        "The session on the Connect server has ended: it expired, or the server was started anew.",
        f"See that the server runs; {GOES_ON}.",
    ),
    (
        ("StatusCode.UNAVAILABLE", "failed to connect to all addresses", "RETRIES_EXCEEDED"),
        "The Connect server cannot be reached any more.",
        f"See that it runs, and that the network is there; {GOES_ON}.",
    ),
    (
        ("UNAUTHENTICATED", "Unauthenticated", "Invalid access token"),
        "The Connect server does not know who asks.",
        "Give a token that is valid: sc://host:443/;token=...",
    ),
    (
        ("PERMISSION_DENIED", "INSUFFICIENT_PERMISSIONS", "does not have permission"),
        "The Connect server does not permit this.",
        "Ask for its compute and data; on Databricks CAN ATTACH TO, READ VOLUME, WRITE VOLUME.",
    ),
    (
        ("PYTHON_VERSION_MISMATCH", "Python in worker has different version"),
        "The workers of the Connect server run another Python than this one.",
        f"Take the server's Python here; this is {sys.version.split()[0]}.",
    ),
    (
        ("No module named 'verger'",),
        "The workers of the Connect server have no verger.",
        "Install the same verger where the server's Python workers run.",
    ),
)
"""What a server of Spark Connect says, or PySpark of it."""

_KNOWN_FAILURES = (
    (
        ("No space left on device", "Disk quota exceeded"),
        "The disk is full.",
        f"Free some space, in the output and in the folder for temporary files; {GOES_ON}.",
    ),
    (
        ("Read-only file system", "Permission denied", "Mkdirs failed to create"),
        "The output cannot be written any more: it is read-only, or permission is denied.",
        f"Make it writable; {GOES_ON}.",
    ),
    (
        ("java.lang.OutOfMemoryError", "GC overhead limit"),
        "Spark's Java machine has too little memory.",
        f"Give it more with --driver-memory; {GOES_ON}.",
    ),
    (
        ("Cannot allocate memory", "std::bad_alloc", "MemoryError"),
        "This machine has no memory left.",
        f"End other programs, or take a machine with more; {GOES_ON}.",
    ),
    (
        ("Answer from Java side is empty", "Error while sending or receiving"),
        "Spark's Java machine has ended: it was killed, or the system had no memory left.",
        f"Look at the memory of this machine (`verger doctor`); {GOES_ON}.",
    ),
)


def session_ended(error: Exception) -> bool:
    """Whether a server of Spark Connect has ended the session."""
    return any(words in str(error) for words in _SESSION_ENDED)


def workers_died(error: Exception) -> bool:
    """Whether a job failed because processes that computed for it died."""
    text = str(error)
    # A worker that told why it could not go on may have met a reset itself.
    return not _TOLD.search(text) and any(words in text for words in _DEATHS)


_DEATHS = (
    "Python worker exited unexpectedly", "ExecutorLostFailure", "Broken pipe", "Connection reset",
)  # fmt: skip
