"""The commands that plan, upload and show prices."""

from typing import Annotated

import typer

from verger.cli import console
from verger.cli.options import (
    Arch,
    Debug,
    Json,
    LabelFrom,
    MaxCost,
    Network,
    Region,
    Spot,
    Workers,
)
from verger.cli.reporting import reporting
from verger.errors import UsageError
from verger.networks.registry import work_of
from verger.settings import MOST_VIEWS
from verger.store.location import Location
from verger.store.session import make_session


def plan(
    source: Annotated[
        str | None, typer.Argument(help="A folder, or s3://bucket/prefix.", metavar="INPUT")
    ] = None,
    *,
    images: Annotated[int | None, typer.Option(help="How many, instead of INPUT.")] = None,
    region: Region = None,
    workers: Workers = None,
    arch: Arch = "arm64",
    spot: Spot = False,
    max_cost: MaxCost = 10,
    network: Network = "mobilenet_v2",
    views: Annotated[int, typer.Option(help="As for `run`.", min=1, max=MOST_VIEWS)] = 1,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a run would take and cost, before a euro is spent."""
    with reporting(debug):
        from verger.cli import cloud_plan
        from verger.cloud.money.plan import CORE_RATES, make_plan, time_caution
        from verger.cloud.money.prices import load

        if caution := time_caution(network):
            console.warn(caution)
        if (source is None) == (images is None):
            raise UsageError("Give either INPUT or --images.", "verger cloud plan --images 67692")
        where, live = cloud_plan.region_and_spot(source, region)
        count = images if source is None else cloud_plan.count(source)
        known = load()
        plans = {
            (kind, on_spot): make_plan(
                count or 0,
                where,
                workers=workers,
                arch=kind,
                spot=on_spot,
                work=work_of(network, views),
                max_cost=max_cost,
                prices=known,
                spot_usd=live,
            )
            for kind in dict.fromkeys((arch, *CORE_RATES))
            for on_spot in (spot, not spot)
        }
        chosen = plans[arch, spot]
        if json:
            cloud_plan.print_json(plans.values())
        else:
            cloud_plan.show_plans(chosen, plans.values(), live)
        chosen.check_ceiling()


def upload(
    source: Annotated[str, typer.Argument(help="A folder of images.", metavar="DIR")],
    target: Annotated[str, typer.Argument(help="s3://bucket/prefix, inside the EU.")],
    *,
    pack: Annotated[
        bool, typer.Option(help="Pack them into a few files, or upload them one by one.")
    ] = True,
    label_from: LabelFrom = "parent",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Upload images without their metadata; give it again to go on or add."""
    with reporting(debug):
        from verger.cli.pack import show_pack
        from verger.cloud.account.upload import upload_images, upload_packed

        session = make_session()
        places = Location.parse(source), Location.parse(target)
        if pack:
            with console.progress() as shown:
                packed = upload_packed(session, *places, shown, label_from=label_from)
            if json:
                console.write_json(packed)
            else:
                show_pack(packed, places[1])
            return
        with console.progress() as shown:
            done = upload_images(session, *places, shown)
        if json:
            console.write_json(done)
            return
        size = done.bytes_sent / 2**20
        console.say(f"{done.sent:,} sent ({size:,.1f} MiB), {done.present:,} were there already")
        for path, reason in done.refused.items():
            console.say(f"left out: {path}: {reason}")


def prices(
    *,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask AWS and the European Central Bank.")
    ] = False,
    region: Annotated[
        list[str] | None, typer.Option(help="With --refresh, only this region; repeat it.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show the prices that plans are made with."""
    with reporting(debug):
        from verger.cli.cloud_plan import show_prices
        from verger.cloud.money import prices as price_list

        if region and not refresh:
            raise UsageError("--region is for --refresh only.", "Give both, or none.")
        if refresh:
            with console.stage("prices"):
                prices_known = price_list.refresh(make_session(), region)
        else:
            prices_known = price_list.load()
        if json:
            console.write_json(prices_known)
        else:
            show_prices(prices_known)
