"""The command that measures how often the recogniser is right."""

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from verger.cli import console
from verger.cli.options import Debug, In, Input, Json
from verger.cli.reporting import reporting
from verger.progress import Clock

if TYPE_CHECKING:
    from verger.output.evaluation import Evaluation

SHOWN = 10
"""Classes and pairs that the table names."""


def evaluate(
    source: Input,
    folder: In,
    *,
    label_from: Annotated[
        str | None, typer.Option(help="As for `run`. Default: as the output was made.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Take the first N files only.", min=1)] = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Set confidence and 'not sure' by these photographs."),
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure how often the recogniser of an output is right on other photographs with classes."""
    with reporting(debug):
        from verger.errors import UsageError
        from verger.images.listing import list_input
        from verger.output.evaluation import write_evaluation
        from verger.output.layout import Output
        from verger.recognise import evaluate as measuring
        from verger.recognise.photo import open_recogniser
        from verger.recognise.recogniser import read_record, write_record
        from verger.store.location import Location

        output, place = Output(Location.parse(folder)), Location.parse(source)
        recogniser, photographer = open_recogniser(output)
        rule = label_from or recogniser.record.identity.label_from
        images = list(islice(list_input(place, rule), limit))
        with console.progress() as shown:
            clock = Clock(shown)
            with clock.stage("evaluate", len(images)):
                photographs = measuring.read_photographs(place, images, photographer, shown)
        if read_record(output) != recogniser.record:
            raise UsageError(
                f"{output.location} has another recogniser by now: a run has ended meanwhile.",
                "Give the same command again.",
            )
        if calibrate:
            recogniser = measuring.calibrated(recogniser, photographs)
            write_record(recogniser.record, output)
        measured = measuring.evaluate(recogniser, photographs, clock.timings["evaluate"])
        write_evaluation(measured, output)
        if json:
            console.write_json(measured)
        else:
            _show(measured)
            console.say(f"With the pictures that were confused: verger report {output.location}")


def _show(measured: "Evaluation") -> None:
    low, high = measured.top1_interval
    table = console.table()
    table.add_row("Images", f"{measured.images:,} in {measured.classes} classes")
    table.add_row("Top 1", f"{measured.top1:.2%} ({low:.1%} to {high:.1%})")
    table.add_row("Top 5", f"{measured.top5:.2%}")
    table.add_row("Calibration error", f"{measured.ece:.3f}")
    sure = f"{measured.answered:.1%} of images, {measured.answered_accuracy:.2%} of them right"
    table.add_row("Sure of", sure)
    table.add_row("Not sure of", f"{measured.unknown_refused:.1%} when their class is left out")
    if measured.foreign_refused is not None:
        foreign = f"{measured.foreign:,} images, not sure of {measured.foreign_refused:.1%}"
        table.add_row("Unknown classes", foreign)
    if measured.rejected:
        rejected = (f"{count:,} {reason}" for reason, count in measured.rejected.items())
        table.add_row("Rejected", ", ".join(rejected))
    table.add_row("Speed", f"{measured.images_per_second:,} images/s")
    console.stdout.print(table)
    worst = sorted(measured.by_class, key=lambda score: (score.top1, score.label))[:SHOWN]
    table = console.table("Hardest classes", "Top 1", "Images")
    for score in worst:
        table.add_row(Text(score.label), f"{score.top1:.0%}", f"{score.images:,}")
    console.stdout.print(table)
    if measured.confused:
        table = console.table("Confused", "Taken for", "Images", "Such as")
        for pair in measured.confused[:SHOWN]:
            names = (pair.label, pair.taken_for, f"{pair.images:,}", pair.examples[0])
            table.add_row(*map(Text, names))
        console.stdout.print(table)
