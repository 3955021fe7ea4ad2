"""The command that says what photographs show."""

import json as json_format
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from verger.cli import console
from verger.cli.options import Debug, In, Json
from verger.cli.reporting import reporting
from verger.imports import import_openvino

if TYPE_CHECKING:
    from verger.recognise.recogniser import Answer


def classify(
    photographs: Annotated[
        list[str], typer.Argument(help="Files, here or on S3.", metavar="PHOTO...")
    ],
    folder: In,
    *,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what photographs show: the five likeliest classes, and the images most like them."""
    with reporting(debug):
        from verger.errors import InputError
        from verger.images.opening import READ
        from verger.output.layout import Output, Rejection
        from verger.recognise.photo import open_recogniser, read_photograph
        from verger.store.location import Location

        import_openvino()
        output = Output(Location.parse(folder))
        recogniser, photographer = open_recogniser(output)
        bad = 0
        for name in photographs:
            found = read_photograph(Location.parse(name), photographer)
            if isinstance(found, Rejection):
                bad += 1
                if json:
                    _say_json(photo=name, reason=str(found.reason), detail=found.detail)
                else:
                    console.stderr.print(
                        Text(f"{name}: {found.reason}: {found.detail}"), soft_wrap=True
                    )
                continue
            answer = recogniser.answer(found)
            if json:
                _say_json(photo=name, **answer.model_dump())
            else:
                _show(name, answer)
        if bad == len(photographs):
            raise InputError(
                "None of the files is a photograph that can be read.",
                f"{READ} are.",
            )


def _say_json(**fields: object) -> None:
    """A line of JSON a photograph, so that a script reads each as soon as it is done."""
    console.say(json_format.dumps(fields))


def _show(name: str, answer: "Answer") -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), title=Text(name), title_justify="left")
    table.add_column("It is" if answer.sure else "Not sure; nearest are", style="bold")
    table.add_column("Likely", justify="right")
    table.add_column("Most like", overflow="fold")
    table.add_column("Cosine", justify="right")
    for guess, similar in zip(answer.guesses, answer.similar, strict=False):
        table.add_row(
            Text(guess.label),
            f"{guess.confidence:.1%}",
            Text(similar.path),
            f"{similar.similarity:.2f}",
        )
    console.stdout.print(table)
