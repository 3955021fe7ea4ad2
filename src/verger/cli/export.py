"""The command that writes the recogniser for phones."""

from pathlib import Path
from typing import Annotated

import typer

from verger.cli import console
from verger.cli.options import Debug, Made
from verger.cli.reporting import reporting


def export(
    folder: Made,
    file: Annotated[Path, typer.Argument(help="fruits.onnx or fruits.tflite.", metavar="FILE")],
    *,
    half: Annotated[bool, typer.Option("--half", help="16 bits a number: half the size.")] = False,
    debug: Debug = False,
) -> None:
    """Write network and recogniser as one file for phones.

    ONNX needs verger[onnx], TFLite verger[tensorflow].
    """
    with reporting(debug):
        from verger.errors import SetupError, UsageError
        from verger.output.layout import Output
        from verger.recognise.export_onnx import export_onnx
        from verger.recognise.export_tflite import export_tflite
        from verger.recognise.photo import open_recogniser
        from verger.store import storage
        from verger.store.location import Location

        exports = {".onnx": export_onnx, ".tflite": export_tflite}
        if file.suffix not in exports:
            raise UsageError(f"{file} is neither .onnx nor .tflite.", "Name it fruits.onnx.")
        output = Output(Location.parse(folder))
        recogniser, photographer = open_recogniser(output)
        with console.stage("export"):
            data, apart = exports[file.suffix](recogniser, photographer, half=half)
            try:
                storage.write_bytes(Location.parse(str(file)), data)
            except OSError as error:
                raise SetupError(
                    f"{file} cannot be written: {error.strerror}.",
                    "Give a place that this user may write, on a disk that is not full.",
                ) from error
        size = len(data) / 10**6
        console.say(f"{file}: {size:.1f} MB, cosines within {apart:.4f} of the server's")
