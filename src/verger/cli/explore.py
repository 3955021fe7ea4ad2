"""The command that shows the interactive map of all images."""

from contextlib import ExitStack, suppress
from typing import Annotated

import typer

from verger.cli import console
from verger.cli.options import Debug, Made
from verger.cli.reporting import reporting


def explore(
    folder: Made,
    port: Annotated[
        int, typer.Option(help="Of the viewer. Default: any that is free.", min=0, max=65535)
    ] = 0,
    debug: Debug = False,
) -> None:
    """Show the map of all images in the browser, with a viewer of its own, until Ctrl-C."""
    with reporting(debug):
        from verger.output.layout import Output
        from verger.report import explorer
        from verger.store.location import Location

        output = Output(Location.parse(folder))
        with ExitStack() as stack:
            with console.progress() as shown:
                table = explorer.make_table(output, shown)
                viewer = explorer.install(shown)
                serving = explorer.serving(viewer, table, port, shown)
                address, wait = stack.enter_context(serving)
            console.say(f"{address} (Ctrl-C ends it)")
            with suppress(KeyboardInterrupt):
                wait()
