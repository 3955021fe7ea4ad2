"""What every command does with what is raised in it."""

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import typer

from verger.cli import console
from verger.errors import INTERRUPTED, DefectError, VergerError


@contextmanager
def reporting(debug: bool) -> Iterator[None]:
    """Turn what is raised into a line or two and an exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    answer_sigquit()
    if not debug:
        # What py4j logs of an interrupted call would bury the line that explains it.
        logging.disable()
    try:
        yield
    except VergerError as error:
        if debug:
            traceback.print_exc()
        console.show_error(error)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt:
        console.stderr.print("Interrupted. The same command goes on from whatever is done.")
        raise typer.Exit(INTERRUPTED) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        defect = DefectError(
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            "This is a defect of verger; --debug shows where it happened.",
        )
        console.show_error(defect)
        raise typer.Exit(defect.exit_code) from error


@cache
def answer_sigquit() -> None:
    """Print where each thread is on SIGQUIT, as Java does, and go on.

    A thread of its own prints, so that a main thread that hangs in C is shown too. `faulthandler`
    would print in the middle of a change of threads, and then end the process at times.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def tell(number: int, _: object) -> None:
        # A loop of asyncio takes the place of this pipe, and leaves none when it ends.
        if (woken := signal.set_wakeup_fd(-1)) != writer:
            os.write(writer, bytes([number]))
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)

    signal.signal(signal.SIGQUIT, tell)
    threading.Thread(target=_print_threads, args=(reader,), name="SIGQUIT", daemon=True).start()


def _print_threads(signals: int) -> None:
    while number := os.read(signals, 1):
        if number[0] != signal.SIGQUIT or not sys.__stderr__:
            continue
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        frames = sys._current_frames()
        del frames[threading.get_ident()]
        for ident, frame in frames.items():
            stack = "".join(traceback.format_stack(frame))
            print(f"Thread {names.get(ident, ident)}:\n{stack}", file=sys.__stderr__, flush=True)
