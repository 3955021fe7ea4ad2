"""Prices from the package, from AWS' list and from the bank; plans that are made with them."""

import http.server
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

import boto3
import pytest
from botocore.stub import ANY, Stubber

from helpers import verger
from stores import FAKE_KEYS
from verger.cloud.money import prices
from verger.cloud.money.plan import CORE_RATES, FIXED_MINUTES, START_MINUTES, make_plan
from verger.errors import RefusedError, SetupError, UsageError
from verger.store.regions import EU_REGIONS

RATES = b"""<?xml version="1.0" encoding="UTF-8"?>
<gesmes:Envelope><Cube><Cube time='2026-11-23'>
<Cube currency='JPY' rate='170.5'/><Cube currency='USD' rate='1.1600'/>
</Cube></Cube></gesmes:Envelope>"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


class Fake:
    """A session that gives one client."""

    def __init__(self, client) -> None:
        self.made = client

    def client(self, *_: object, **__: object):
        return self.made


@contextmanager
def bank(body: bytes, status: int = 200, seconds: float = 0) -> Iterator[str]:
    """Rates of the day on loopback; yields the URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(seconds)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/rates.xml"
    finally:
        server.shutdown()
        server.server_close()


def product(usd: float, **attributes: str) -> str:
    """A product as AWS gives it: JSON in a string."""
    steps = {"A.B.C": {"unit": "Hrs", "pricePerUnit": {"USD": f"{usd:.10f}"}}}
    terms = {"OnDemand": {"A.B": {"priceDimensions": steps}}} if usd else {"Reserved": {}}
    return json.dumps({"product": {"attributes": attributes}, "terms": terms})


def price_list(*, machine: float = 0.2, without: str = "") -> tuple[object, Stubber]:
    """The answers to `refresh` for one region."""
    client = boto3.client("pricing", region_name="eu-central-1", **FAKE_KEYS)
    stub = Stubber(client)
    usage = {
        "EUC1-BoxUsage:m7g.xlarge": 0.04, "EUC1-BoxUsage:m6i.xlarge": 0.05,
    }  # fmt: skip
    emr = [product(usd, usagetype=name) for name, usd in usage.items() if without != name]
    emr.append(product(9, usagetype="EUC1-BoxUsage:m7g.xlarge", softwareType="MapR M3"))
    stub.add_response("get_products", {"PriceList": emr[:3], "NextToken": "more"})
    stub.add_response("get_products", {"PriceList": emr[3:]})
    s3 = {"TimedStorage-ByteHrs": 0.025, "Requests-Tier1": 5e-6, "Requests-Tier2": 4e-7}
    stub.add_response(
        "get_products",
        {"PriceList": [product(usd, usagetype=f"EUC1-{name}") for name, usd in s3.items()]},
    )
    for name in ("m7g.xlarge", "m6g.xlarge", "m6i.xlarge"):
        found = [product(0), product(machine)] if name != "m6g.xlarge" else []
        stub.add_response(
            "get_products",
            {"PriceList": found},
            {"ServiceCode": "AmazonEC2", "FormatVersion": ANY, "Filters": ANY},
        )
    stub.add_response("get_products", {"PriceList": [product(0.09, volumeApiName="gp3")]})
    return client, stub


def test_the_package_has_prices_of_all_regions_but_the_sovereign_cloud() -> None:
    known = prices.load()
    assert set(known.regions) == set(EU_REGIONS) - {"eusc-de-east-1"}
    for region in known.regions:
        for arch in CORE_RATES:
            machine = known.machines(region, arch)[0]
            assert known.regions[region].emr_hour[machine] > 0
            assert (
                known.regions[region].emr_hour[machine]
                < known.regions[region].machine_hour[machine]
            )
    with pytest.raises(SetupError, match="eusc-de-east-1"):
        known.machines("eusc-de-east-1", "arm64")


def test_refreshed_prices_replace_those_of_the_package() -> None:
    client, stub = price_list()
    old = prices.load()
    with stub, bank(RATES) as url:
        new = prices.refresh(Fake(client), ["eu-central-1"], rates_url=url)
    stub.assert_no_pending_responses()
    here = new.regions["eu-central-1"]
    assert here.machine_hour == {"m7g.xlarge": 0.2, "m6i.xlarge": 0.2}
    assert here.emr_hour == {"m7g.xlarge": 0.04, "m6i.xlarge": 0.05}
    assert here.ebs_gb_month == 0.09
    assert here.s3_put_thousand == pytest.approx(0.005)
    assert here.s3_get_thousand == pytest.approx(0.0004)
    assert new.eur_per_usd == round(1 / 1.16, 4)
    assert str(new.eur_dated) == "2026-11-23"
    assert new.regions["eu-west-1"] == old.regions["eu-west-1"]
    assert prices.load() == new


@pytest.mark.parametrize(
    ("without", "body", "status", "words"),
    [
        ("", b"<html>maintenance</html>", 200, "no rate of the US dollar"),
        ("", RATES, 503, "does not answer"),
    ],
)
def test_a_refresh_that_fails_changes_nothing(without, body, status, words) -> None:
    client, stub = price_list(without=without)
    old = prices.load()
    with stub, bank(body, status) as url, pytest.raises(SetupError, match=words):
        prices.refresh(Fake(client), ["eu-central-1"], rates_url=url)
    assert prices.load() == old


def test_a_bank_that_never_answers_is_not_waited_for(monkeypatch) -> None:
    monkeypatch.setattr(prices, "TIMEOUT_SECONDS", 0.1)
    client, stub = price_list()
    with stub, bank(RATES, seconds=0.5) as url, pytest.raises(SetupError, match="timed out"):
        prices.refresh(Fake(client), ["eu-central-1"], rates_url=url)


def test_a_refusal_of_the_price_list_is_explained() -> None:
    client = boto3.client("pricing", region_name="eu-central-1", **FAKE_KEYS)
    stub = Stubber(client)
    stub.add_client_error("get_products", "AccessDeniedException")
    with stub, pytest.raises(SetupError, match="price list") as raised:
        prices.refresh(Fake(client), ["eu-central-1"])
    assert "GetProducts" in raised.value.hint


def test_damaged_prices_are_named(tmp_path) -> None:
    (tmp_path / "verger").mkdir()
    (tmp_path / "verger/prices.json").write_text('{"dated": "2026-11-24"}')
    with pytest.raises(SetupError, match="cannot be read"):
        prices.load()


def test_spot_prices_of_now_are_the_mean_over_zones() -> None:
    client = boto3.client("ec2", region_name="eu-west-1", **FAKE_KEYS)
    stub = Stubber(client)
    stub.add_response(
        "describe_spot_price_history",
        {
            "SpotPriceHistory": [
                {"InstanceType": "m7g.xlarge", "AvailabilityZone": zone, "SpotPrice": price,
                 "Timestamp": datetime.now(timezone.utc)}
                for zone, price in (("eu-west-1a", "0.06"), ("eu-west-1b", "0.08"))
            ]
        },
    )  # fmt: skip
    with stub:
        found = prices.spot_now(Fake(client), "eu-west-1", ["m7g.xlarge", "m6i.xlarge"])
    assert found == {"m7g.xlarge": pytest.approx(0.07)}


@pytest.mark.parametrize("images", [67_692, 155_491])
def test_the_project_costs_less_than_the_published_run(images: int) -> None:
    plan = make_plan(images, "eu-west-1", prices=prices.load())
    assert plan.eur[1] < 1.60
    assert plan.minutes[1] < 83
    assert plan.minutes[0] < plan.minutes[1]
    plan.check_ceiling()


def test_a_plan_is_its_parts() -> None:
    known = prices.load()
    plan = make_plan(
        3600, "eu-west-1", workers=2, arch="x86_64", rate_per_core=(0.5, 1.0), prices=known
    )
    assert plan.images_per_second == (2.0, 4.0)  # two machines of two cores
    assert plan.minutes[0] == START_MINUTES[0] + FIXED_MINUTES[0] + 15
    assert plan.minutes[1] == START_MINUTES[1] + FIXED_MINUTES[1] + 30
    here = known.regions["eu-west-1"]
    bare = 3 * (here.machine_hour["m6i.xlarge"] + here.emr_hour["m6i.xlarge"])
    assert bare < plan.usd_per_hour < 1.1 * bare
    hour = plan.deadline_minutes / 60 * plan.eur_per_hour + plan.usd_fixed * plan.eur_per_usd
    assert hour == pytest.approx(10)


def test_spot_is_cheaper_and_takes_the_price_of_now() -> None:
    given = {"workers": 4, "prices": prices.load()}
    full = make_plan(10_000, "eu-west-3", **given).usd_per_hour
    typical = make_plan(10_000, "eu-west-3", spot=True, **given).usd_per_hour
    now = make_plan(10_000, "eu-west-3", spot=True, spot_usd={"m7g.xlarge": 0.01}, **given)
    assert now.usd_per_hour < typical < full
    # Spot machines may become as dear as others, and the ceiling must hold then too.
    assert now.most_usd_per_hour == pytest.approx(full)
    on_demand = make_plan(10_000, "eu-west-3", **given)
    assert now.deadline_minutes == pytest.approx(on_demand.deadline_minutes)


def test_more_images_get_more_workers_up_to_a_usual_quota() -> None:
    workers = [make_plan(count, "eu-west-1").workers for count in (10, 10**6, 10**8)]
    assert workers == sorted(workers)
    assert workers[0] == 2
    assert (workers[-1] + 1) * 4 <= 32


@pytest.mark.parametrize(
    ("images", "options", "error"),
    [
        (0, {}, UsageError),
        (10, {"workers": 0}, UsageError),
        (10, {"arch": "riscv"}, UsageError),
        (10, {"max_cost": float("nan")}, UsageError),
        (10, {"region": "eu-west-2"}, RefusedError),
        (10, {"region": "eusc-de-east-1"}, SetupError),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(images: int, options: dict, error) -> None:
    region = options.pop("region", "eu-west-1")
    with pytest.raises(error):
        make_plan(images, region, **options)


def test_a_ceiling_that_cannot_hold_is_refused() -> None:
    with pytest.raises(RefusedError, match="ceiling"):
        make_plan(155_491, "eu-west-1", max_cost=0.05).check_ceiling()


@pytest.fixture
def env(tmp_path) -> dict[str, str]:
    """No credentials and no network: plans need neither."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "XDG_CACHE_HOME": str(tmp_path),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "COLUMNS": "120",
    }


def test_a_plan_is_shown_beside_its_alternatives_and_the_published_run(env, orchard) -> None:
    done = verger("cloud", "plan", orchard, "--region", "eu-west-3", env=env)
    assert done.returncode == 0, done.stderr
    for words in ("24 images in eu-west-3", "Graviton", "Intel", "spot", "1.60 EUR", "1 USD ="):
        assert words in done.stdout


def test_plans_for_scripts(env) -> None:
    done = verger("cloud", "plan", "--images", 67692, "--spot", "--json", env=env)
    rows = json.loads(done.stdout)
    assert [(row["arch"], row["spot"]) for row in rows] == [
        ("arm64", True), ("arm64", False), ("x86_64", True), ("x86_64", False),
    ]  # fmt: skip
    assert all(row["eur"][0] < row["eur"][1] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["plan"], 2, "--images"),
        (["plan", "--images", "10", "--region", "us-east-2"], 6, "us-east-2"),
        (["plan", "--images", "155491", "--max-cost", "0.01"], 6, "ceiling"),
        (["init", "--bucket", "b", "--region", "eu-west-1"], 5, "no AWS credentials"),
    ],
)
def test_a_mistake_is_a_line_and_an_exit_code(env, arguments, code: int, words: str) -> None:
    done = verger("cloud", *arguments, env=env)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_prices_are_shown_with_date_and_source(env) -> None:
    done = verger("cloud", "prices", env=env)
    known = prices.load()
    assert str(known.dated) in done.stdout
    assert known.source in done.stdout
