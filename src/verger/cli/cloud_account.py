"""The commands that set up, plan, upload and erase on AWS."""

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from verger.cli import console
from verger.cli.options import (
    Arch,
    Debug,
    Json,
    LabelFrom,
    MaxCost,
    Region,
    Spot,
    Workers,
)
from verger.cli.reporting import reporting
from verger.errors import SetupError, UsageError

if TYPE_CHECKING:
    from verger.cloud.account.stack import Stack


Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def init(
    *,
    bucket: Annotated[str, typer.Option(help="The bucket to make; a name nobody else has.")],
    region: Region = None,
    also: Annotated[
        list[str] | None, typer.Option(help="A bucket of yours that jobs may use too; repeat it.")
    ] = None,
    email: Annotated[str, typer.Option(help="Who is told when the month gets expensive.")] = "",
    monthly_usd: Annotated[float, typer.Option(help="What is expensive, in dollars.", min=1)] = 10,
    encrypt_disks: Annotated[
        bool, typer.Option(help="Have AWS encrypt all new disks of the account in the region.")
    ] = True,
    debug: Debug = False,
) -> None:
    """Make the bucket, roles, network and budget that a cluster needs; again to change them."""
    with reporting(debug):
        from verger.cloud.account import machines, stack
        from verger.cloud.money import budget
        from verger.store.session import make_session

        session = make_session(region)
        with console.stage("stack"):
            made = stack.create_stack(session, session.region_name, bucket, others=also or ())
            if email:
                budget.set_budget(session, made.account, email, monthly_usd)
            if encrypt_disks:
                machines.encrypt_disks(session, made.region)
        _show_stack(made, email, monthly_usd, encrypt_disks)


def destroy(
    *,
    region: Region = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Erase the images and all that was made from them.")
    ] = False,
    place: Annotated[
        list[str] | None,
        typer.Option(help="With --purge, s3://bucket/prefix to erase as well; repeat it."),
    ] = None,
    listing: Annotated[
        Path | None, typer.Option("--list", help="With --purge, a CSV file of all that is erased.")
    ] = None,
    yes: Yes = False,
    debug: Debug = False,
) -> None:
    """Remove what `init` made. The bucket stays with its data, unless --purge erases both."""
    with reporting(debug):
        from verger.cloud.account import stack
        from verger.cloud.money import budget
        from verger.store.session import make_session

        if (place or listing) and not purge:
            raise UsageError("--place and --list go with --purge.", "Add --purge to erase data.")
        session = make_session(region)
        existing = stack.find_stack(session, session.region_name)
        if running := stack.running_clusters(session, existing):
            raise SetupError(
                f"{len(running)} clusters still run: {', '.join(running)}.", "verger cloud stop"
            )
        if purge:
            _purge(session, existing.bucket, place or [], listing, yes)
        elif not yes:
            typer.confirm(f"Remove the stack {existing.name} in {existing.region}?", abort=True)
        with console.stage("unmake"):
            budget.delete_budget(session, existing.account)
            stack.delete_stack(session, existing.region)
        if purge:
            from verger.cloud.account.erase import delete_bucket

            delete_bucket(session, existing.bucket)
            console.say(f"The stack, the budget and the bucket {existing.bucket} are gone.")
        else:
            console.say(f"The stack and the budget are gone. The bucket {existing.bucket} stays.")


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
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a run would take and cost, before a euro is spent."""
    with reporting(debug):
        from verger.cli import cloud_plan

        cloud_plan.plan(
            source,
            images,
            region,
            workers=workers,
            arch=arch,
            spot=spot,
            max_cost=max_cost,
            as_json=json,
        )


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
        from verger.cloud.account.upload import upload_images, upload_packed
        from verger.store.location import Location
        from verger.store.session import make_session

        session = make_session()
        places = Location.parse(source), Location.parse(target)
        with console.progress() as shown:
            if pack:
                packed = upload_packed(session, *places, shown, label_from=label_from)
            else:
                done = upload_images(session, *places, shown)
        if pack:
            from verger.cli.pack import show_pack

            if json:
                console.write_json(packed)
            else:
                show_pack(packed, places[1])
            return
        if json:
            from pydantic import TypeAdapter

            sys.stdout.buffer.write(TypeAdapter(type(done)).dump_json(done, indent=2) + b"\n")
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
        from verger.store.session import make_session

        if refresh:
            with console.stage("prices"):
                prices_known = price_list.refresh(make_session(), region)
        else:
            prices_known = price_list.load()
        if json:
            console.write_json(prices_known)
        else:
            show_prices(prices_known)


def _show_stack(made: "Stack", email: str, monthly_usd: float, encrypted: bool) -> None:
    console.say(f"verger is ready in {made.region}, account {made.account}.")
    console.say(f"Bucket: {made.bucket}; jobs may use {', '.join(made.buckets)}")
    if email:
        console.say(
            f"{email} is told when the month passes {monthly_usd:g} USD, of the whole account."
        )
    else:
        console.say("Nobody is told when the month gets expensive: give --email.")
    if encrypted:
        console.say(f"AWS encrypts all new disks of the account in {made.region}.")
    console.say(
        "Only what the bucket holds costs anything. Take it all away: "
        f"verger cloud destroy --region {made.region}"
    )


def _purge(session: Any, bucket: str, more: list[str], listing: Path | None, yes: bool) -> None:
    """Erase the bucket's objects and other places, after asking; say what was erased."""
    from verger.cloud.account.buckets import check_buckets
    from verger.cloud.account.erase import by_folder, erase, list_versions
    from verger.store.location import Location

    places = [Location.parse(text) for text in dict.fromkeys((f"s3://{bucket}", *more))]
    for place in places:
        if not place.is_s3:
            raise UsageError(f"{place} is not on S3.", "Write s3://bucket/prefix.")
    check_buckets(session, [place.path.partition("/")[0] for place in places])
    for place in places:
        with console.stage("count"):
            count = sum(1 for _ in list_versions(session, place))
        console.say(f"{place}: {count:,} objects and versions")
    if not yes:
        typer.confirm("Erase them for good? There is no way back.", abort=True)
    rows: list[tuple[str, str, str, int]] = []
    for place in places:
        with console.progress() as shown:
            erased = erase(session, place, shown)
        name = place.path.partition("/")[0]
        rows += [(name, version.key, version.id, version.size) for version in erased]
        for folder, (count, size) in by_folder(erased).items():
            console.say(
                f"Erased s3://{name}/{folder}: {count:,} objects and versions, {size:,} bytes"
            )
    if listing is not None:
        with listing.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("bucket", "key", "version", "bytes"), *rows])
        console.say(f"All of them are listed in {listing}.")
