"""One writer at a time: a lock of the system on this machine, a lease on S3."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from verger.errors import SetupError
from verger.store.lease import Lease
from verger.store.location import Location


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
