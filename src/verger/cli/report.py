"""The command that writes the page of an output."""

from typing import Annotated

import typer

from verger.cli import console
from verger.cli.options import Debug, Language
from verger.cli.reporting import reporting


def report(
    folder: Annotated[str, typer.Argument(help="The output of a run.", metavar="OUTPUT")],
    lang: Language = "en",
    debug: Debug = False,
) -> None:
    """Write the page that shows an output: report.html, one file."""
    with reporting(debug):
        from verger.output.layout import Output
        from verger.report.page import write_report
        from verger.store.location import Location

        output = Output(Location.parse(folder))
        with console.progress() as shown:
            write_report(output, lang, shown)
        console.say(str(output.report))
