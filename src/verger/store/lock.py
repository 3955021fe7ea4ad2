"""One writer at a time: a lock of the system on this machine, a lease on S3."""

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from verger.errors import SetupError, VergerError
from verger.store.client import s3_client
from verger.store.errors import bucket_errors
from verger.store.location import Location, bucket_and_key

LEASE_SECONDS = 120.0
"""A lease that was not renewed for so long has lost its owner."""

RELEASE_SECONDS = 5.0
"""What giving a lease back may wait for a renewal that is under way."""


@contextmanager
def held(place: Location, file: Location) -> Iterator[Callable[[], None]]:
    """Hold a folder for this process.

    Args:
        place: the folder, as it is shown.
        file: in it, what the lock or the lease is put on.

    Yields:
        A function that raises `SetupError` if the folder is not held any more; call it before
        anything is committed.

    Raises:
        SetupError: another process holds it, or it cannot be written.
    """
    with (_leased if file.is_s3 else _locked)(place, file) as check:
        yield check


@contextmanager
def flock(handle: int, place: str, in_use: SetupError) -> Iterator[None]:
    """Lock what a handle is of, and close it at the end.

    Raises:
        SetupError: `in_use` when it is locked already; another where there are no locks.
    """
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise in_use from error
        except OSError as error:
            raise SetupError(
                f"{place} cannot be locked: {error.strerror}.",
                "Give a folder on a file system with locks, such as a local disk.",
            ) from error
        yield
    finally:
        os.close(handle)


@contextmanager
def _locked(place: Location, file: Location) -> Iterator[Callable[[], None]]:
    path = Path(file.path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise SetupError(
            f"The output {place} cannot be written: {error.strerror}.",
            "Give a folder that this user may write, on a disk that is not full.",
        ) from error
    with flock(handle, f"The output {place}", _in_use(place)):
        yield lambda: None


@contextmanager
def _leased(place: Location, file: Location) -> Iterator[Callable[[], None]]:
    lease = Lease(file.path)
    if not lease.acquire():
        raise _in_use(place, " If its machine died, the output is free two minutes later.")

    def check() -> None:
        if not lease.is_held():
            raise SetupError(
                f"Another process took the output {place} over: this one was not heard of for two "
                "minutes.",
                "Let the other one end.",
            )

    try:
        yield check
    finally:
        lease.release()


def _in_use(place: Location, more: str = "") -> SetupError:
    return SetupError(
        f"The output {place} is in use by another process.",
        f"Wait until it has ended, or give another output folder.{more}",
    )


class Lease:
    """The right to write to an output, held by an object that its owner keeps renewing.

    It is taken by a conditional put, so that one of two wins; whoever finds that it was not renewed
    for `LEASE_SECONDS`, by the store's own clock, may take it over.
    """

    def __init__(self, path: str, seconds: float = LEASE_SECONDS) -> None:
        self.path = path
        self._place = dict(zip(("Bucket", "Key"), bucket_and_key(path), strict=True))
        self.seconds = seconds
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "id": uuid.uuid4().hex}
        self._body = json.dumps(owner).encode()
        self._etag = ""
        self._renewed = 0.0
        self._lost = False
        self._renewing = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def acquire(self) -> bool:
        """Take it; False when another owner has it."""
        if not self._put(IfNoneMatch="*"):
            etag = self._abandoned()
            if etag is None or not self._put(IfMatch=etag):
                return False
        self._thread.start()
        return True

    def is_held(self) -> bool:
        """Whether it is still ours; asks the store when it was not renewed for a while."""
        # The clock of the wall: a laptop that slept has lost its lease meanwhile.
        if time.time() - self._renewed > self.seconds / 2:
            self._renew()
        return not self._lost and time.time() - self._renewed < self.seconds

    def release(self) -> None:
        """Give it back, if it is still ours; a store that does not answer lets it expire."""
        self._stopped.set()
        self._thread.join(RELEASE_SECONDS)
        with suppress(VergerError), bucket_errors(self.path):
            # Whoever pressed Ctrl-C does not wait for minutes.
            quick = s3_client(patient=False)
            if not self._lost and self._read(quick) == self._body:
                quick.delete_object(**self._place)

    def _keep(self) -> None:
        while not self._stopped.wait(self.seconds / 4) and not self._lost:
            with suppress(VergerError):  # the store may answer again before the lease ends
                self._renew()

    def _renew(self) -> None:
        with self._renewing:
            self._lost = self._lost or not self._put(IfMatch=self._etag)

    def _put(self, **condition: str) -> bool:
        """Write it on a condition; whether it is ours now."""
        from botocore.exceptions import ClientError

        at = time.time()
        with bucket_errors(self.path):
            try:
                answer = s3_client().put_object(**self._place, Body=self._body, **condition)
                self._etag = answer["ETag"]
            except ClientError as error:
                code = error.response["Error"]["Code"]
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status not in {404, 409, 412} or code == "NoSuchBucket":
                    raise
                # A put whose answer was lost is repeated, and then meets its own work.
                if self._read(s3_client()) != self._body:
                    return False
                self._etag = s3_client().head_object(**self._place)["ETag"]
        self._renewed = at
        return True

    def _read(self, client: Any) -> bytes | None:
        try:
            return bytes(client.get_object(**self._place)["Body"].read())
        except client.exceptions.NoSuchKey:
            return None

    def _abandoned(self) -> str | None:
        """The ETag of a lease that its owner no longer renews."""
        with bucket_errors(self.path):
            try:
                answer = s3_client().get_object(**self._place)
            except s3_client().exceptions.NoSuchKey:
                return None  # given back just now
        date = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        age = (date - answer["LastModified"]).total_seconds()
        return str(answer["ETag"]) if age > self.seconds else None
