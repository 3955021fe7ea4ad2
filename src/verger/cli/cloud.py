"""The sub-command `cloud`, with its commands."""

import typer

from verger.cli.cloud_account import plan, prices, upload
from verger.cli.cloud_jobs import costs, execute_notebook, logs, notebook, run, status, stop
from verger.cli.cloud_setup import destroy, init

cloud_app = typer.Typer(
    no_args_is_help=True,
    help="Run on AWS EMR inside the European Union: set up, plan, upload, run, stop, erase.",
)
for command in (init, destroy, plan, upload, prices, run, notebook, status, stop, logs, costs):
    cloud_app.command()(command)
cloud_app.command(hidden=True)(execute_notebook)
