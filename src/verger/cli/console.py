"""What a person sees: progress bars, or plain lines where there is no terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from verger.errors import VergerError
from verger.progress import Clock, Progress

if TYPE_CHECKING:
    from pydantic import BaseModel

STAGES = {
    "backbone": "Preparing the network",
    "list": "Listing images",
    "spark": "Starting Spark",
    "plan": "Comparing with what is done",
    "waves": "Planning",
    "extract": "Extracting features",
    "fidelity": "Comparing with float32",
    "account": "Accounting for every file",
    "fit": "Fitting the PCA",
    "project": "Projecting",
    "write": "Writing the matrix",
    "recognise": "Fitting the recogniser",
    "export": "Converting",
    "evaluate": "Looking at photographs",
    "tidy": "Tidying up",
    "demo": "Rendering photographs",
    "download": "Downloading",
    "unpack": "Unpacking",
    "pack": "Packing",
    "scores": "Reading scores",
    "compare": "Comparing images",
    "pictures": "Reading pictures",
    "report": "Writing the report",
    "explorer": "Installing the viewer (once)",
    "viewer": "Starting the viewer",
    "bundle": "Fetching packages for the cluster",
    "deliver": "Uploading packages and code",
    "machines": "Waiting for machines",
    "notebook": "Executing the notebook",
    "ending": "Ending machines",
    "upload": "Uploading",
    "erase": "Erasing",
    "count": "Counting",
    "stack": "Waiting for AWS to make it",
    "unmake": "Waiting for AWS to remove it",
    "look": "Looking into the regions",
    "check": "Looking at the account",
    "prices": "Asking for prices",
    "doctor": "Looking at this machine",
}

PLAIN_SECONDS = 5.0
"""Between two plain lines of one stage."""

# Paths and logs may hold `:key:`, which is no emoji there.
stdout = Console(emoji=False)
stderr = Console(stderr=True, emoji=False)


class CountColumn(ProgressColumn):
    """Images done of all, where they are counted."""

    def render(self, task: Task) -> Text:
        """Show nothing for a stage that has no images."""
        counted = task.fields["counted"]
        return Text(
            f"{task.completed:,.0f} of {task.total:,.0f}" if counted else "", justify="right"
        )


class RateColumn(ProgressColumn):
    """Images a second since the stage began."""

    def render(self, task: Task) -> Text:
        """Show nothing before the first images are done."""
        rate = _rate(task) if task.fields["counted"] else 0
        return Text(f"{rate:,.0f}/s" if rate else "", style="cyan", justify="right")


class TimeColumn(ProgressColumn):
    """The time that a stage took, or has taken and still needs."""

    def render(self, task: Task) -> Text:
        """Show what is left once there is a rate to tell it from."""
        text = _minutes(task.elapsed or 0)
        rate = _rate(task)
        if task.fields["counted"] and rate and not task.finished:
            text += f", {_minutes(task.remaining / rate if task.remaining else 0)} left"
        return Text(text, style="dim" if task.finished else "")


def _rate(task: Task) -> float:
    seconds = (task.finished_time if task.finished else task.elapsed) or 0
    return task.completed / seconds if seconds else 0


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes}:{rest:02}"


class BarProgress(Progress):
    """A bar a stage, on a terminal, of which it takes the lower lines while `bars` are entered."""

    def __init__(self) -> None:
        self.bars = Bars(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            CountColumn(),
            RateColumn(),
            TimeColumn(),
            TextColumn("[red]{task.fields[rejected]}[/]"),
            console=stderr,
        )
        self.task: TaskID | None = None

    def start(self, stage: str, total: int | None = None) -> None:
        """Show a bar, which moves to and fro while the total is not known."""
        self.task = self.bars.add_task(
            STAGES.get(stage, stage), total=total, rejected="", counted=bool(total)
        )

    def update(self, done: int, rejected: int = 0) -> None:
        """Move the bar."""
        if self.task is not None:
            text = f"{rejected:,} rejected" if rejected else ""
            self.bars.update(self.task, completed=done, rejected=text)

    def finish(self) -> None:
        """Fill the bar."""
        if self.task is not None:
            task = self.bars.tasks[self.task]
            done = task.total or task.completed or 1
            counted = bool(task.total or task.completed)
            self.bars.update(self.task, total=done, completed=done, counted=counted)
            self.task = None

    def note(self, text: str) -> None:
        """Print above the bars."""
        self.bars.console.print(text, markup=False)


class LineProgress(Progress):
    """A line when a stage begins and every few seconds, for logs."""

    def __init__(self) -> None:
        self.stage = ""
        self.total: int | None = None
        self.started = self.shown = 0.0

    def start(self, stage: str, total: int | None = None) -> None:
        """Print the stage."""
        self.stage, self.total = STAGES.get(stage, stage), total
        self.started = self.shown = monotonic()
        self.note(self.stage if total is None else f"{self.stage}: {total:,}")

    def update(self, done: int, rejected: int = 0) -> None:
        """Print how far it is, if the last line is old enough."""
        clock = monotonic()
        if clock - self.shown < PLAIN_SECONDS:
            return
        self.shown = clock
        rate = done / (clock - self.started)
        text = f"{self.stage}: {done:,}"
        if self.total:
            text += f" of {self.total:,}"
        text += f", {rate:,.0f}/s"
        if self.total and rate:
            text += f", {(self.total - done) / rate:,.0f} s left"
        if rejected:
            text += f", {rejected:,} rejected"
        self.note(text)

    def finish(self) -> None:
        """Say how long a long stage took."""
        elapsed = monotonic() - self.started
        if elapsed > PLAIN_SECONDS:
            self.note(f"{self.stage}: done in {elapsed:.0f} s")

    def note(self, text: str) -> None:
        """Print a line."""
        warn(text)


@contextmanager
def progress() -> Iterator[Progress]:
    """Bars on a terminal, lines elsewhere; both on stderr."""
    if not stderr.is_terminal:
        yield LineProgress()
        return
    shown = BarProgress()
    with shown.bars:
        yield shown


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Show that something takes its time, where nothing can be counted."""
    with progress() as shown, Clock(shown).stage(name):
        yield


def say(text: str) -> None:
    """Print a line as it is, however long."""
    stdout.print(text, markup=False, highlight=False, soft_wrap=True)


def warn(text: str) -> None:
    """Print a line beside what was asked for, on stderr."""
    stderr.print(text, markup=False, highlight=False, soft_wrap=True)


def table(*headings: str) -> Table:
    """A table without lines, whose first column is bold: two columns, unless it has headings."""
    made = Table(show_header=bool(headings), box=None, padding=(0, 2, 0, 0))
    for number, heading in enumerate(headings or ("", "")):
        made.add_column(heading, style="" if number else "bold", overflow="fold")
    return made


def write_json(record: "BaseModel") -> None:
    """Print a record for scripts."""
    say(record.model_dump_json(indent=2))


def show_error(error: VergerError) -> None:
    """Print what happened and what to do."""
    stderr.print(Text.assemble(("Error: ", "bold red"), error.message), soft_wrap=True)
    if error.hint:
        stderr.print(Text(error.hint), soft_wrap=True)
