"""The commands that run on AWS, look at what runs there, and stop it."""

from datetime import timedelta, timezone
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from verger.cli import console
from verger.cli.options import (
    Arch,
    Debug,
    Json,
    MaxCost,
    Network,
    Region,
    Spot,
    Workers,
    with_settings,
)
from verger.cli.reporting import reporting
from verger.errors import InputError, SetupError, UsageError, VergerError
from verger.progress import TIME, utc_now
from verger.settings import options_for
from verger.store.location import Location
from verger.store.session import make_session

if TYPE_CHECKING:
    from verger.cloud.jobs.cluster import Cluster
    from verger.cloud.jobs.inventory import Inventory
    from verger.settings import RunSettings


NOTEBOOK = options_for("notebook")


@with_settings(options_for("cluster"), on_s3=True)
def run(
    settings: "RunSettings",
    *,
    workers: Workers = None,
    spot: Spot = False,
    arch: Arch = "arm64",
    max_cost: MaxCost = 10,
    download: Annotated[
        Path | None, typer.Option(help="Copy the results to this folder afterwards.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Start it and leave; the same command follows it.")
    ] = False,
    print_request: Annotated[
        bool, typer.Option("--print-request", help="Print EMR's RunJobFlow as JSON, start nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Run on a cluster that ends with the run; give it again to go on or add."""
    from verger.cli.summary import show_summary
    from verger.cloud.jobs.launch import launch, request, start
    from verger.cloud.jobs.prepare import Launch
    from verger.output.layout import Output

    wanted = Launch(
        run=settings,
        workers=workers,
        arch=arch,
        spot=spot,
        max_cost=max_cost,
        download=download,
        time=TIME,
    )
    if [print_request, detach, download is not None].count(True) > 1:
        raise UsageError(
            "--print-request, --detach and --download do not go together.", "Give one of them."
        )
    if print_request:
        with console.progress() as shown:
            wish = request(wanted, shown)
        console.say(dumps(wish, indent=2))
        return
    with console.progress() as shown:
        if detach:
            start(wanted, shown)
            return
        manifest, _ = launch(wanted, shown)
    if json:
        console.write_json(manifest)
    else:
        show_summary(manifest, Output(settings.output), settings.lang)


@with_settings(NOTEBOOK, on_s3=True)
def notebook(
    settings: "RunSettings",
    *,
    notebook: Annotated[Path, typer.Argument(help="Such as notebooks/verger_emr.ipynb.")],
    workers: Workers = None,
    spot: Spot = False,
    arch: Arch = "arm64",
    max_cost: MaxCost = 10,
    copy: Annotated[
        Path | None, typer.Option(help="The executed copy. Default: NAME-executed.ipynb, here.")
    ] = None,
) -> None:
    """Execute a notebook on a cluster that ends with it, and fetch the executed copy."""
    from verger.cloud.jobs.notebook import launch_notebook
    from verger.cloud.jobs.prepare import Launch

    wanted = Launch(
        run=settings, workers=workers, arch=arch, spot=spot, max_cost=max_cost, time=TIME
    )
    with console.progress() as shown:
        launch_notebook(wanted, notebook, copy or Path(f"{notebook.stem}-executed.ipynb"), shown)


@with_settings((*NOTEBOOK, "deadline"), on_s3=True)
def execute_notebook(
    settings: "RunSettings",
    *,
    notebook: Annotated[str, typer.Argument()],
    copy: Annotated[str, typer.Argument()],
    weights: Annotated[str, typer.Option(help="File of the backbone.")],
) -> None:
    """Execute a notebook as the driver of a cluster: what `notebook` has a cluster do."""
    from verger.cloud.jobs.notebook import execute_notebook

    given = settings.model_dump(include={*NOTEBOOK}, exclude_defaults=True)
    execute_notebook(
        Location.parse(notebook),
        Location.parse(copy),
        {"INPUT": str(settings.input), "OUTPUT": str(settings.output), "WEIGHTS": weights}
        | {name.upper(): value for name, value in given.items()},
        settings.deadline,
    )


def deliver(
    *,
    region: Region = None,
    arch: Arch = "arm64",
    network: Network = "mobilenet_v2",
    debug: Debug = False,
) -> None:
    """Upload packages, code and network, which the request of --print-request names."""
    with reporting(debug):
        from verger.cloud.account.stack import find_stack
        from verger.cloud.jobs.delivery import deliver as upload
        from verger.cloud.jobs.delivery import make_bundle

        session = make_session(region)
        stack = find_stack(session)
        with console.progress() as shown:
            uris = upload(session, stack, make_bundle(arch, shown, network), shown)
        for uri in uris.values():
            console.say(uri)


def status(*, debug: Debug = False) -> None:
    """Show what of ours runs, in all regions of the European Union."""
    with reporting(debug):
        inventory = _look()
        for one in inventory.running:
            console.say(f"{one.title}: {one.state().phase}, {_cost(one)}{_end(one)}")
        if inventory.running:
            console.say("Stop all of it: verger cloud stop")
        else:
            console.say(_nothing(inventory))


def stop(*, debug: Debug = False) -> None:
    """Stop all of ours that runs, in all regions of the European Union, and wait for it."""
    with reporting(debug):
        from verger.cloud.jobs.inventory import stop_all

        inventory = _look()
        with console.progress() as shown:
            stop_all(inventory.running, shown, TIME)
        if inventory.unseen:
            raise SetupError(
                _nothing(inventory), "Give the same command again, or look in the console."
            )
        console.say(_nothing(inventory))


def logs(
    *,
    job: Annotated[
        str | None, typer.Option(help="Id of a cluster or a job. Default: the latest.")
    ] = None,
    days: Annotated[int, typer.Option(help="How far to look back.", min=1)] = 7,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show all of its words as they come, until it ends.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Show why a job failed, in its own words."""
    with reporting(debug):
        from verger.cloud.account.stack import find_stack
        from verger.cloud.jobs.follow import follow_logs
        from verger.cloud.jobs.logs import find_error, read_log

        jobs = _look(days).running
        chosen = [one for one in jobs if job is None or one.id == job]
        if not chosen:
            raise InputError(
                f"There is no job {job}." if job else f"No job ran in the last {days} days.",
                "verger cloud costs lists all of them; --days looks further back.",
            )
        one = max(chosen, key=lambda each: each.tags.get("run", ""))
        stack = find_stack(make_session(one.region))
        if follow:
            state, lines = follow_logs(one, stack, console.say, TIME), []
        else:
            state, lines = one.state(), find_error(map(read_log, one.logs(stack)))
            lines = lines or ["There is no log yet; it comes within minutes."]
        for line in (f"{one.title}: {state.phase} {state.code} {state.reason}".rstrip(), *lines):
            console.say(line)


def costs(
    *,
    days: Annotated[int, typer.Option(help="How far to look back.", min=1)] = 30,
    debug: Debug = False,
) -> None:
    """Show what runs have cost, from the hours that machines were there."""
    with reporting(debug):
        from verger.cloud.money.prices import load

        known = load()
        table = console.table("Job", "Run", "Used", "EUR")
        total = 0.0
        for one in _look(days).running:
            try:
                cost = one.cost()
            except VergerError as error:
                table.add_row(one.title, one.tags.get("run", ""), Text(error.message), "?")
                continue
            total += cost.eur
            table.add_row(one.title, one.tags.get("run", ""), cost.usage, f"{cost.eur:.2f}")
        table.add_row("Together", "", "", f"{total:.2f}", style="bold")
        console.stdout.print(table)
        console.say(
            f"Without tax, at {known.eur_per_usd} EUR a USD of {known.eur_dated} and prices of "
            f"{known.dated}; spot machines at {known.spot_share:.0%} of the price on demand."
        )


def _look(days: int | None = None) -> "Inventory":
    from verger.cloud.jobs.inventory import take_inventory

    since = utc_now() - timedelta(days=days) if days else None
    with console.stage("look"):
        inventory = take_inventory(make_session(), since)
    for what, why in inventory.unseen.items():
        console.warn(f"{what}: not seen. {why}")
    if inventory.off:
        regions = " and ".join(inventory.off)
        console.warn(
            f"Not looked at, off in the account or unknown to these credentials: {regions}"
        )
    return inventory


def _nothing(inventory: "Inventory") -> str:
    where = ", as far as AWS answered" if inventory.unseen else ""
    return f"Nothing of verger runs on AWS{where}."


def _cost(running: "Cluster") -> str:
    try:
        return f"{running.cost().eur:.2f} EUR so far"
    except VergerError as error:  # it must be shown all the more
        return f"cost not known ({error.message})"


def _end(running: "Cluster") -> str:
    end = running.ends_at
    return f"; ends by {end.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC" if end else ""
