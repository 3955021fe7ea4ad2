"""A loader in a process of its own: an image that kills it or hangs it costs only that image."""

import multiprocessing
import pickle
import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Self

from verger.images.decoding import Rejection
from verger.results import Reason

MEMORY_BYTES = 4 * 2**30
"""What the process may allocate: several times the largest image that is decoded by default."""


class Guard:
    """Calls a function in a child process, which is replaced when it dies or takes too long.

    Args:
        function: pickled; called with one argument, it returns what can be pickled.
        seconds: what a call may take.
    """

    def __init__(self, function: bytes, seconds: float) -> None:
        self.function = function
        self.seconds = seconds
        self._child: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Self:
        """Nothing is started before it is needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child."""
        self._kill()

    def __call__(self, argument: Any) -> Any:
        """The function's result, or a `Rejection` as `crashed` or `timeout`."""
        pipe = self._pipe or self._start()
        try:
            pipe.send(argument)
            if pipe.poll(self.seconds):
                return pipe.recv()
        except (EOFError, OSError):
            return Rejection(Reason.CRASHED, f"decoding it {self._kill()}")
        self._kill()
        return Rejection(Reason.TIMEOUT, f"not decoded within {self.seconds:g} s")

    def _start(self) -> Connection:
        # Never fork: the engine's threads would not survive it.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._child = context.Process(target=_serve, args=(theirs, self.function), daemon=True)
        self._child.start()
        theirs.close()
        if not self._pipe.poll(STARTING_SECONDS):
            raise RuntimeError("the process that guards the decoder does not start")
        self._pipe.recv()
        return self._pipe

    def _kill(self) -> str:
        """End the child; returns how it ended."""
        child, self._child = self._child, None
        pipe, self._pipe = self._pipe, None
        if child is None or pipe is None:
            return "had ended"
        pipe.close()
        child.join(1)
        code = child.exitcode
        child.kill()
        child.join()
        if code is not None and code < 0:
            return f"ended its process with {signal.Signals(-code).name}"
        return f"ended its process with exit code {code}"


STARTING_SECONDS = 120.0
"""A machine under load is slow to start a process."""


def _serve(pipe: Connection, function: bytes) -> None:
    """What the child does: call and answer until the pipe is closed."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    call: Callable[[Any], Any] = pickle.loads(function)  # noqa: S301 - from our own parent
    pipe.send(None)
    while True:
        try:
            argument = pipe.recv()
        except EOFError:
            return
        try:
            result = call(argument)
        except MemoryError as error:
            result = Rejection(Reason.TOO_LARGE, f"more memory than there is: {error}")
        pipe.send(result)
