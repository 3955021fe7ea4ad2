"""Prices of AWS in US dollars without tax: from a dated file, or from AWS' own price list."""

import json
import re
from collections.abc import Collection, Iterable
from datetime import date
from http.client import HTTPException
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from pydantic import BaseModel, ValidationError

from verger.errors import SetupError
from verger.progress import utc_now
from verger.store.errors import aws_errors
from verger.store.location import cache_folder
from verger.store.regions import check_cloud_region

MACHINES = {
    "arm64": ("m8g.xlarge", "m7g.xlarge", "m6g.xlarge", "m7gd.xlarge", "m6gd.xlarge"),
    "x86_64": ("m7i.xlarge", "m6i.xlarge", "m6a.xlarge", "m5.xlarge", "m7a.xlarge"),
}
"""4 processors and 16 GB each, the one to prefer first; not every region has each."""

PRICE_LIST_REGION = "eu-central-1"
"""One of the few regions that answer for the price list of all."""

RATES_URL = "https://www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml"
"""Reference rates of the European Central Bank."""

TIMEOUT_SECONDS = 10


# What an earlier version refreshed has prices that are not wanted any more.
class RegionPrices(BaseModel, extra="ignore", frozen=True):
    """Prices in a region; machines and EMR's share by type."""

    machine_hour: dict[str, float]
    """On demand, Linux."""
    emr_hour: dict[str, float]
    """What EMR adds to each machine."""
    ebs_gb_month: float
    """Disks, gp3."""
    s3_gb_month: float
    s3_put_thousand: float
    s3_get_thousand: float
    compared: bool = False
    """Whether AWS' own price list gave them; those of the package are partly remembered."""
    dated: date | None = None
    """When it gave them; the others have the date of all."""


class Prices(BaseModel, extra="ignore", frozen=True):
    """`prices.json`."""

    dated: date
    source: str
    spot_share: float
    """What spot machines typically cost, as a share of on demand."""
    eur_per_usd: float
    eur_dated: date
    eur_source: str
    regions: dict[str, RegionPrices]

    def caution(self, region: str) -> str:
        """What a plan has to say of the prices in a region; empty where AWS' list gave them."""
        if self.region(region).compared:
            return ""
        return f"Prices as remembered on {self.dated}: give verger cloud prices --refresh first."

    def dated_in(self, region: str) -> date:
        """The day of the prices in a region."""
        return self.region(region).dated or self.dated

    def region(self, name: str) -> RegionPrices:
        """The prices in a region.

        Raises:
            RefusedError: it is not inside the European Union, or the Sovereign Cloud.
            SetupError: its prices are not known.
        """
        check_cloud_region(name)
        if name not in self.regions:
            raise SetupError(
                f"The prices in {name} are not known.",
                f"Take one of {', '.join(self.regions)}, or look at AWS' own calculator.",
            )
        return self.regions[name]

    def machines(
        self, region: str, arch: str, offered: Collection[str] | None = None
    ) -> tuple[str, ...]:
        """Those of `MACHINES` that a region has, the one to prefer first.

        Args:
            region: where.
            arch: of the processors.
            offered: those that AWS offers there now; None where it was not asked.

        Raises:
            RefusedError, SetupError: as `region`, or there is none.
        """
        known = self.region(region)
        machines = tuple(
            machine
            for machine in MACHINES[arch]
            if machine in known.machine_hour
            and machine in known.emr_hour
            and (offered is None or machine in offered)
        )
        if not machines:
            raise SetupError(
                f"{region} offers no machine of {arch} whose price verger knows.",
                f"Take another --arch ({', '.join(MACHINES)}) or --region.",
            )
        return machines


def load() -> Prices:
    """The prices last refreshed on this machine, else those of the package.

    Raises:
        SetupError: what was refreshed is damaged.
    """
    packaged = Prices.model_validate_json(
        files("verger.cloud.money").joinpath("prices.json").read_text()
    )
    try:
        refreshed = Prices.model_validate_json(_cached().read_bytes())
    except FileNotFoundError:
        return packaged
    except (OSError, ValidationError) as error:
        raise SetupError(
            f"The prices in {_cached()} cannot be read.",
            "Delete that file, or give: verger cloud prices --refresh",
        ) from error
    return refreshed if refreshed.dated >= packaged.dated else packaged


def refresh(session: Any, regions: Iterable[str] | None = None) -> Prices:
    """Ask AWS for its prices and the European Central Bank for its rate, and keep both.

    Args:
        session: a session of boto3; its credentials need pricing:GetProducts.
        regions: whose prices; by default all that have some already.

    Raises:
        SetupError: one of them does not answer, or not as expected; nothing is changed then.
    """
    from botocore.config import Config

    old = load()
    today = utc_now().date()
    config = Config(
        connect_timeout=TIMEOUT_SECONDS,
        read_timeout=3 * TIMEOUT_SECONDS,
        retries={"max_attempts": 3},
    )
    client = session.client("pricing", region_name=PRICE_LIST_REGION, config=config)
    with aws_errors("show its price list"):
        fetched = {name: _ask(client, name, today) for name in regions or old.regions}
    regions = {**old.regions, **fetched}
    rate, rate_date = _euros(RATES_URL)
    from_aws = all(one.compared for one in regions.values())
    new = Prices(
        dated=today if from_aws else old.dated,
        source="AWS price list (pricing:GetProducts)" if from_aws else old.source,
        spot_share=old.spot_share,
        eur_per_usd=rate,
        eur_dated=rate_date,
        eur_source="European Central Bank, reference rate",
        regions=regions,
    )
    path = _cached()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(new.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror}.", "Look at it.") from error
    return new


def spot_now(session: Any, region: str, machines: Iterable[str]) -> dict[str, float]:
    """What spot machines cost an hour at this moment, the mean over the zones of a region.

    Args:
        session: a session of boto3; its credentials need ec2:DescribeSpotPriceHistory.
        region: where.
        machines: their types.

    Returns:
        US dollars an hour of each type that has a price.

    Raises:
        SetupError: AWS does not say.
    """
    client = session.client("ec2", region_name=region)
    spot: dict[str, list[float]] = {}
    with aws_errors("show the prices of spot machines"):
        pages = client.get_paginator("describe_spot_price_history").paginate(
            InstanceTypes=list(machines), ProductDescriptions=["Linux/UNIX"], StartTime=utc_now()
        )
        for entry in pages.search("SpotPriceHistory[]"):
            spot.setdefault(entry["InstanceType"], []).append(float(entry["SpotPrice"]))
    return {machine: sum(prices) / len(prices) for machine, prices in spot.items()}


def _cached() -> Path:
    return cache_folder() / "prices.json"


def _ask(client: Any, region: str, today: date) -> RegionPrices:
    """The prices in a region, from AWS."""
    check_cloud_region(region)
    emr = _prices(client, "ElasticMapReduce", regionCode=region)
    s3 = _prices(client, "AmazonS3", regionCode=region)
    # A volume has three prices: of what it stores, of requests a second, of bytes a second.
    disks = _prices(client, "AmazonEC2", regionCode=region, volumeApiName="gp3")
    machine_hour = {}
    for machine in chain(*MACHINES.values()):
        offers = _prices(
            client,
            "AmazonEC2",
            regionCode=region,
            instanceType=machine,
            operatingSystem="Linux",
            tenancy="Shared",
            preInstalledSw="NA",
            capacitystatus="Used",
        )
        # Reserved capacity that is not used, and hosts of one's own, have other words.
        if usd := offers.get((f"BoxUsage:{machine}", "hrs")):
            machine_hour[machine] = usd
    return RegionPrices(
        machine_hour=machine_hour,
        emr_hour={name: _one(emr, f"BoxUsage:{name}", "Hrs", region) for name in machine_hour},
        ebs_gb_month=_one(disks, "EBS:VolumeUsage.gp3", "GB-Mo", region),
        s3_gb_month=_one(s3, "TimedStorage-ByteHrs", "GB-Mo", region),
        s3_put_thousand=1000 * _one(s3, "Requests-Tier1", "Requests", region),
        s3_get_thousand=1000 * _one(s3, "Requests-Tier2", "Requests", region),
        compared=True,
        dated=today,
    )


def _prices(client: Any, service: str, **filters: str) -> dict[tuple[str, str], float]:
    """On demand, by kind of usage and unit; of a price in steps, the dearest.

    Most kinds begin with the region, which is left out.
    """
    pages = client.get_paginator("get_products").paginate(
        ServiceCode=service,
        FormatVersion="aws_v1",
        Filters=[
            {"Type": "TERM_MATCH", "Field": field, "Value": value}
            for field, value in filters.items()
        ],
    )
    found: dict[tuple[str, str], float] = {}
    for text in pages.search("PriceList[]"):
        offer = json.loads(text)
        attributes = offer["product"]["attributes"]
        if attributes.get("softwareType", "EMR") != "EMR":
            continue
        usage = re.sub(r"^[A-Z]{2,4}\d?-", "", attributes.get("usagetype", ""))
        for term in offer.get("terms", {}).get("OnDemand", {}).values():
            for step in term["priceDimensions"].values():
                key = usage, step["unit"].lower()
                usd = float(step["pricePerUnit"].get("USD", 0))
                found[key] = max(usd, found.get(key, 0))
    return found


def _one(prices: dict[tuple[str, str], float], usage: str, unit: str, region: str) -> float:
    if usd := prices.get((usage, unit.lower())):
        return usd
    raise SetupError(
        f"AWS' price list has no price of {usage} by {unit} in {region}.",
        "The prices known before stay; the list may have changed its names.",
    )


def _euros(url: str) -> tuple[float, date]:
    """Euros for a US dollar, and the day of the rate."""
    try:
        with urlopen(url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - a constant, or a test
            text = answer.read(1_000_000).decode()
    except (OSError, HTTPException, UnicodeDecodeError) as error:
        raise SetupError(f"{url} does not answer: {error}.", "Try again later.") from error
    # A few lines whose form is known: no parser of XML, which would need a safe one.
    day = re.search(r"time=['\"](\d{4}-\d\d-\d\d)['\"]", text)
    rate = re.search(r"currency=['\"]USD['\"]\s+rate=['\"]([\d.]+)['\"]", text)
    if day is None or rate is None or not float(rate[1]):
        raise SetupError(f"{url} has no rate of the US dollar.", "Its form may have changed.")
    return round(1 / float(rate[1]), 4), date.fromisoformat(day[1])
