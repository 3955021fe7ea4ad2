"""What every command does with what is raised in it."""

import faulthandler
import logging
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from verger.cli import console
from verger.errors import INTERRUPTED, VergerError


@contextmanager
def reporting(debug: bool) -> Iterator[None]:
    """Turn what is raised into a line or two and an exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # As Java does: where each thread is, without ending it.
    if sys.__stderr__:
        faulthandler.register(signal.SIGQUIT, sys.__stderr__)
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
        console.stderr.print("Interrupted. Run the same command again and it goes on from here.")
        raise typer.Exit(INTERRUPTED) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        defect = VergerError(
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            "This is a defect of verger; --debug shows where it happened.",
        )
        console.show_error(defect)
        raise typer.Exit(defect.exit_code) from error
