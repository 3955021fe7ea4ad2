"""The command that writes the recogniser for phones."""

from pathlib import Path
from typing import Annotated

import typer

from verger.cli import console
from verger.cli.options import Debug
from verger.cli.reporting import reporting

MEGABYTE = 10**6


def export(
    folder: Annotated[str, typer.Argument(help="The output of a run.", metavar="OUTPUT")],
    file: Annotated[Path, typer.Argument(help="Such as fruits.tflite.", metavar="FILE")],
    *,
    half: Annotated[bool, typer.Option("--half", help="16 bits a number: half the size.")] = False,
    debug: Debug = False,
) -> None:
    """Write network and recogniser as one TFLite file for phones; it needs verger[tensorflow]."""
    with reporting(debug):
        from verger.output.layout import Output
        from verger.recognise.export import export_tflite
        from verger.recognise.photo import Photographer
        from verger.recognise.recogniser import load_recogniser
        from verger.store.location import Location

        output = Output(Location.parse(folder))
        recogniser = load_recogniser(output)
        photographer = Photographer.of(output, recogniser.record)
        with console.stage("export"):
            apart = export_tflite(recogniser, photographer, file, half=half)
        size = file.stat().st_size / MEGABYTE
        console.say(f"{file}: {size:.1f} MB, cosines within {apart:.4f} of the server's")
