"""The command that writes the page of an output."""

from verger.cli import console
from verger.cli.options import Debug, Language, Made
from verger.cli.reporting import reporting


def report(folder: Made, lang: Language = "en", debug: Debug = False) -> None:
    """Write the page that shows an output: report.html, one file."""
    with reporting(debug):
        from verger.output.layout import Output
        from verger.report.page import write_report
        from verger.store.location import Location

        output = Output(Location.parse(folder))
        with console.progress() as shown:
            write_report(output, lang, shown)
        console.say(str(output.report))
