"""How the work tells how far it is, without knowing who listens."""


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
