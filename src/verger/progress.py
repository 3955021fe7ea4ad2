"""How the work tells how far it is, without knowing who listens, and how long its stages take."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from time import monotonic, sleep


class Progress:
    """A listener that ignores everything; the command line shows it instead.

    One stage runs at a time.
    """

    def start(self, stage: str, total: int | None = None) -> None:
        """A stage begins; `total` is in images where it is known."""

    def update(self, done: int, rejected: int = 0) -> None:
        """So many images are done in this stage, and so many of them rejected."""

    def finish(self) -> None:
        """The stage is over."""

    def note(self, text: str) -> None:
        """Something that the reader should know."""


class Clock:
    """Times the stages of a run.

    Attributes:
        progress: who is told of them.
        timings: seconds of each stage so far.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.timings: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        """Time a stage, and tell that it runs; `total` is in images. One that fails has no end."""
        self.progress.start(name, total)
        with self.timed(name):
            yield
        self.progress.finish()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time what tells of its own stages."""
        started = monotonic()
        try:
            yield
        finally:
            elapsed = monotonic() - started
            self.timings[name] = round(self.timings.get(name, 0.0) + elapsed, 3)


def utc_now() -> datetime:
    """The time, with its zone."""
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class Time:
    """The time, for what waits: tests give another.

    Attributes:
        now: the time, with its zone.
        sleep: waits for so many seconds.
        poll_seconds: between two looks at something that takes minutes.
    """

    now: Callable[[], datetime] = utc_now
    sleep: Callable[[float], None] = sleep
    poll_seconds: float = 15.0


TIME = Time()
"""As it is."""
