"""The sub-command `cloud`, with its commands."""

import typer

from verger.cli.cloud_account import plan, prices, upload
from verger.cli.cloud_jobs import (
    costs,
    deliver,
    execute_notebook,
    logs,
    notebook,
    run,
    status,
    stop,
)
from verger.cli.cloud_setup import check, destroy, init, policy, smoke

cloud_app = typer.Typer(
    no_args_is_help=True,
    help="Run on AWS EMR inside the European Union: set up, plan, upload, run, stop, erase.",
)
COMMANDS = (
    check, smoke, policy, init, plan, prices, upload, deliver, run, notebook, status, logs, costs,
    stop, destroy,
)  # fmt: skip
for command in COMMANDS:
    cloud_app.command()(command)
cloud_app.command(hidden=True)(execute_notebook)
