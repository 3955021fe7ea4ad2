"""Everything that verger raises on purpose, each with the exit code of its kind."""


class VergerError(Exception):
    """A failure that is explained to the reader.

    Args:
        message: what happened, and to which file or setting.
        hint: what to do about it; shown on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)  # both, so that a pickle of it has both
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class DefectError(VergerError):
    """Something that should be impossible, such as counts that do not reconcile: our fault."""


class UsageError(VergerError):
    """A bad option, an output inside its input, or an old output that does not fit the command."""

    exit_code = 2


class InputError(VergerError):
    """Nothing to read or to reduce: no image, a missing or forbidden bucket, identical images."""

    exit_code = 3


class TooManyRejectedError(VergerError):
    """More images were rejected than `--max-rejected` allows; the work done is kept."""

    exit_code = 4


class SetupError(VergerError):
    """The environment lacks something: Java, weights, disk space, a free output folder."""

    exit_code = 5


class RefusedError(VergerError):
    """Refused before anything was created: a region outside the EU, or a budget too small."""

    exit_code = 6


class DeadlineReached(VergerError):  # noqa: N818 - an outcome that can be resumed, not a fault
    """The deadline came before the work was done; the same command goes on from here."""

    exit_code = 7


INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM: 128 + SIGINT, as shells report it."""
