"""A loader in a process of its own: an image that kills it or hangs it costs only that image."""

import multiprocessing
import pickle
import resource
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from typing import Any

from verger.errors import SetupError, VergerError
from verger.output.layout import OUT_OF_MEMORY, Reason, Rejection

MEMORY_BYTES = 4 * 2**30
"""What the process may allocate: several times the largest image that is decoded by default."""


class Guard(AbstractContextManager["Guard"]):
    """Calls a function in a child process, which is replaced when it dies or takes too long.

    Nothing is started before it is needed.

    Args:
        function: pickled; called with one argument, it returns what can be pickled.
        seconds: what a call may take.
    """

    def __init__(self, function: bytes, seconds: float) -> None:
        self.function = function
        self.seconds = seconds
        self._child: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._served = 0

    def __exit__(self, *_: object) -> None:
        """End the child."""
        self.close()

    def __call__(self, argument: Any) -> Any:
        """The function's result, or a `Rejection` as `crashed` or `timeout`.

        Raises:
            VergerError: what the function raised of that kind: no fault of the argument.
        """
        served = self._served
        outcome = self._call(argument)
        if isinstance(outcome, Rejection) and outcome.reason is Reason.CRASHED and served:
            # The child may have died of what it did before.
            outcome = self._call(argument)
        if isinstance(outcome, VergerError):
            raise outcome
        return outcome

    def _call(self, argument: Any) -> Any:
        pipe = self._pipe or self._start()
        try:
            pipe.send(argument)
            if pipe.poll(self.seconds):
                outcome = pipe.recv()
                self._served += 1
                return outcome
        except (EOFError, OSError):
            return Rejection(Reason.CRASHED, f"decoding it {self.close()}")
        self.close()
        return Rejection(Reason.TIMEOUT, f"not decoded within {self.seconds:g} s")

    def _start(self) -> Connection:
        # Never fork: the engine's threads would not survive it.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, self.function, self.seconds)
        self._child = context.Process(target=_serve, args=arguments, daemon=True)
        self._child.start()
        theirs.close()
        try:
            if self._pipe.poll(STARTING_SECONDS):
                self._pipe.recv()
                return self._pipe
        except (EOFError, OSError) as error:
            raise SetupError(f"The process that guards the decoder {self.close()}.") from error
        self.close()
        raise SetupError("The process that guards the decoder does not start.")

    def close(self) -> str:
        """End the child; returns how it ended."""
        child, self._child = self._child, None
        pipe, self._pipe = self._pipe, None
        self._served = 0
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


def _serve(pipe: Connection, function: bytes, seconds: float) -> None:
    """What the child does: call and answer until the pipe is closed."""
    # Ctrl-C reaches all processes of a terminal; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(hard, MEMORY_BYTES)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    call: Callable[[Any], Any] = pickle.loads(function)  # noqa: S301 - from our own parent
    pipe.send(None)
    while True:
        try:
            argument = pipe.recv()
        except EOFError:
            return
        # Should the parent be killed meanwhile, nobody else would end a call that hangs.
        signal.setitimer(signal.ITIMER_REAL, seconds + 5)
        try:
            result = call(argument)
        except MemoryError:
            result = OUT_OF_MEMORY
        except VergerError as error:
            result = error
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send(result)
