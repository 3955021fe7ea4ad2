"""The command that shows the interactive map of all images."""

from contextlib import ExitStack, suppress
from typing import Annotated

import typer

from verger.cli import console

Folder = Annotated[str, typer.Argument(help="The output of a run.", metavar="OUTPUT")]
Port = Annotated[int, typer.Option(help="Of the viewer. Default: any that is free.", min=0)]


def explore(folder: str, port: int) -> None:
    """Show the map in the browser, until Ctrl-C.

    Raises:
        VergerError: it is no output, or the viewer cannot be installed or started.
    """
    from verger.output.layout import Output
    from verger.report import explorer
    from verger.store.location import Location

    output = Output(Location.parse(folder))
    with ExitStack() as stack:
        with console.progress() as shown:
            table = explorer.make_table(output, shown)
            viewer = explorer.install(shown)
            address = stack.enter_context(explorer.serving(viewer, table, port, shown))
        console.stdout.print(f"{address} (Ctrl-C ends it)", markup=False, highlight=False)
        with suppress(KeyboardInterrupt):
            explorer.wait()
