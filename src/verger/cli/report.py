"""The command that writes the page of an output."""

from typing import Annotated

import typer

from verger.cli import console
from verger.errors import UsageError

Folder = Annotated[str, typer.Argument(help="The output of a run.", metavar="OUTPUT")]
Language = Annotated[str, typer.Option("--lang", help="en or fr.")]

LANGUAGES = ("en", "fr")


def report(folder: str, language: str) -> None:
    """Write `report.html` into an output, and say where it is.

    Raises:
        UsageError: there is no page in that language.
        VergerError: it is no output, or the page cannot be written.
    """
    if language not in LANGUAGES:
        raise UsageError(f"--lang {language}: there is no such page.", "Give en or fr.")

    from verger.output.layout import Output
    from verger.report.page import write_report
    from verger.store.location import Location

    output = Output(Location.parse(folder))
    with console.progress() as shown:
        write_report(output, language, shown)
    console.say(str(output.report))
