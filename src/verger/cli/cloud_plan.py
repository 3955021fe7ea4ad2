"""Plans and prices as tables."""

import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.table import Table

from verger.cli import console
from verger.cloud.money.plan import (
    CORE_RATES,
    ENDING_MINUTES,
    FIXED_MINUTES,
    PUBLISHED,
    START_MINUTES,
    Plan,
)
from verger.cloud.money.prices import MACHINES, Prices, spot_now
from verger.errors import SetupError, UsageError, VergerError
from verger.store.location import Location
from verger.store.regions import check_cloud_region
from verger.store.session import make_session

SHOWN = (
    "images", "region", "arch", "spot", "machine", "workers", "images_per_second", "minutes",
    "eur", "eur_per_hour", "max_cost", "deadline_minutes",
)  # fmt: skip
"""What `--json` has of a plan, beside its prices."""

ARCHITECTURES = {"arm64": "Graviton (arm64)", "x86_64": "Intel (x86_64)"}


def region_and_spot(source: str | None, region: str | None) -> tuple[str, dict[str, float] | None]:
    """Where to plan for, and the spot prices of now if the credentials allow to ask for them."""
    if region is not None:
        check_cloud_region(region)
    try:
        made = make_session(region)
    except SetupError:
        if region is None or (source is not None and source.startswith("s3://")):
            raise
        return region, None
    where: str = made.region_name
    if source is not None and source.startswith("s3://"):
        from verger.cloud.account.upload import check_place

        bucket_region = check_place(made, Location.parse(source))
        if region is not None and region != bucket_region:
            raise UsageError(
                f"{source} is in {bucket_region}, not in {region}.",
                "Machines read in their own region.",
            )
        where = bucket_region
    machines = [machine for types in MACHINES.values() for machine in types]
    try:
        return where, spot_now(made, where, machines)
    except VergerError as error:
        console.warn(
            f"Spot prices of now are not known ({error.message}); a typical share is taken."
        )
        return where, None


def count(source: str) -> int:
    """The images of an input: those that a pack names, or all files."""
    from verger.images.listing import list_images
    from verger.packs.format import read_pack

    place = Location.parse(source)
    with console.stage("count"):
        packed = read_pack(place)
        return packed.images if packed else sum(1 for _ in list_images(place))


def show_plans(chosen: Plan, plans: Iterable[Plan], live: dict[str, float] | None) -> None:
    """Print a plan beside its alternatives; `live` has the spot prices of now, if known."""
    table = Table(title=f"{chosen.images:,} images in {chosen.region}", title_justify="left")
    for name in ("", "processors", "machines", "images/s", "minutes", "EUR", "EUR an hour"):
        table.add_column(name, justify="left" if name in {"", "processors"} else "right")
    for plan in plans:
        table.add_row(
            "*" if plan is chosen else "",
            f"{ARCHITECTURES[plan.arch]}, {'spot' if plan.spot else 'on demand'}",
            f"1 + {plan.workers} {plan.machine}",
            "{:,.0f} to {:,.0f}".format(*plan.images_per_second),
            "{:.0f} to {:.0f}".format(*plan.minutes),
            "{:.2f} to {:.2f}".format(*plan.eur),
            f"{plan.eur_per_hour:.2f}",
        )
    console.stdout.print(table)
    prices = chosen.prices
    preferred = {prices.machines(chosen.region, arch)[0] for arch in CORE_RATES}
    is_live = preferred <= (live or {}).keys()
    spot = "of now" if is_live else f"typical, {prices.spot_share:.0%} of on demand"
    hours = chosen.deadline_minutes / 60
    start = "{:.0f} to {:.0f}".format(*START_MINUTES)
    fixed = "{:.0f} to {:.0f}".format(*FIXED_MINUTES)
    console.say(f"Published reference: {PUBLISHED}")
    console.say(
        f"Ceiling: {chosen.max_cost:.2f} EUR without tax; machines are told to end after "
        f"{hours:.1f} h, {ENDING_MINUTES} minutes before it would be reached."
    )
    console.say(
        f"Prices of {prices.dated_in(chosen.region)}, without tax (VAT comes on top): "
        f"{prices.source}. Spot prices: {spot}."
    )
    if caution := prices.caution(chosen.region):
        console.say(caution)
    console.say(f"1 USD = {prices.eur_per_usd} EUR on {prices.eur_dated} ({prices.eur_source}).")
    console.say(
        f"Minutes hold {start} to start the machines and {fixed} besides extraction (assumptions). "
        "Rates are those of whole cores: x86's measured with two workers and with one, on a "
        "machine with AVX-512; Graviton's assumed."
    )


def show_prices(prices: Prices) -> None:
    """Print the prices of all regions."""
    regions = prices.regions.values()
    table = console.table("USD an hour", *prices.regions)
    table.add_row("of", *(str(prices.dated_in(name)) for name in prices.regions))
    machines = sorted({name for known in regions for name in known.machine_hour})
    for name in machines:
        table.add_row(name, *(_usd(known.machine_hour.get(name)) for known in regions))
    for name in machines:
        table.add_row(f"EMR, {name}", *(_usd(known.emr_hour.get(name)) for known in regions))
    table.add_row("S3, GB a month", *(_usd(known.s3_gb_month) for known in regions))
    console.stdout.print(table)
    console.say(f"Without tax. Source: {prices.source}")
    console.say(f"1 USD = {prices.eur_per_usd} EUR on {prices.eur_dated} ({prices.eur_source})")


def _usd(price: float | None) -> str:
    return "-" if price is None else f"{price:.4f}"


def print_json(plans: Iterable[Plan]) -> None:
    """Print plans for scripts."""
    rows: list[dict[str, Any]] = [
        {
            **{name: getattr(plan, name) for name in SHOWN},
            "prices": str(plan.prices.dated_in(plan.region)),
            "prices_compared": plan.prices.region(plan.region).compared,
            "eur_per_usd": plan.prices.eur_per_usd,
        }
        for plan in plans
    ]
    sys.stdout.write(json.dumps(rows, indent=2) + "\n")
