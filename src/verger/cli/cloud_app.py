"""The sub-command `cloud`, to which its commands are added."""

import typer

cloud_app = typer.Typer(
    no_args_is_help=True,
    help="Run on AWS EMR inside the European Union: set up, plan, upload, run, stop, erase.",
)
