"""The commands. Spark and TensorFlow are loaded by the command that needs them, not before."""

from typing import Annotated

import typer

from verger.cli import console
from verger.cli.classify import classify
from verger.cli.cloud import cloud_app
from verger.cli.doctor import doctor
from verger.cli.evaluate import evaluate
from verger.cli.explore import explore
from verger.cli.export import export
from verger.cli.fetch import fetch
from verger.cli.pack import pack
from verger.cli.report import report
from verger.cli.run import demo, run, transform
from verger.cli.serve import serve
from verger.imports import leave_out_pandas
from verger.version import VERSION

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Pictures of fruit in, a matrix out: MobileNetV2 features and exact PCA on Spark.",
)
for command in (
    run,
    transform,
    classify,
    evaluate,
    serve,
    export,
    demo,
    fetch,
    pack,
    report,
    explore,
    doctor,
):
    app.command()(command)
app.add_typer(cloud_app, name="cloud")


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        console.say(f"verger {VERSION}")
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    leave_out_pandas()
    app()
