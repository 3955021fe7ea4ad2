"""Prices from the package, from AWS' list and from the bank; plans that are made with them."""

import gzip
import http.server
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from unittest import mock

import moto.ec2
import pytest

from helpers import verger
from stores import Stubs
from verger.cloud.money import prices
from verger.cloud.money.plan import (
    CORE_RATES,
    CORES,
    ENDING_MINUTES,
    FIXED_MINUTES,
    PROCESSORS,
    START_MINUTES,
    make_plan,
)
from verger.errors import RefusedError, SetupError, UsageError
from verger.networks.registry import EFFICIENTNET_LITE2, work_of
from verger.progress import utc_now
from verger.store.regions import EU_REGIONS

RATES = b"""<?xml version="1.0" encoding="UTF-8"?>
<gesmes:Envelope><Cube><Cube time='2026-11-23'>
<Cube currency='JPY' rate='170.5'/><Cube currency='USD' rate='1.1600'/>
</Cube></Cube></gesmes:Envelope>"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@contextmanager
def bank(body: bytes, status: int | str = 200, seconds: float = 0) -> Iterator[None]:
    """Rates of the day on loopback, in the place of the bank's."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(seconds)
            if isinstance(status, str):
                self.wfile.write(status.encode())
                return
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/rates.xml"
    try:
        with mock.patch.object(prices, "RATES_URL", url):
            yield
    finally:
        server.shutdown()
        server.server_close()


def product(usd: float, unit: str = "Hrs", *, reserved: float = 0, **attributes: str) -> str:
    """A product as AWS gives it: JSON in a string, with the terms of each kind of offer."""

    def terms(code: str, price: float) -> dict:
        step = {"unit": unit, "beginRange": "0", "pricePerUnit": {"USD": f"{price:.10f}"}}
        offer = {"offerTermCode": code, "priceDimensions": {f"SKU.{code}.6YS6EN2CT7": step}}
        return {f"SKU.{code}": offer}

    offers = {"OnDemand": terms("JRTCKXETXF", usd)} if usd else {}
    if reserved:
        offers["Reserved"] = terms("38NPMPTW36", reserved)
    return json.dumps({"serviceCode": "x", "product": {"attributes": attributes}, "terms": offers})


EMR = {"BoxUsage:m7g.xlarge": 0.04, "BoxUsage:m6i.xlarge": 0.05}
S3 = {
    ("TimedStorage-ByteHrs", "GB-Mo"): 0.025,
    ("TimedStorage-INT-FA-ByteHrs", "GB-Mo"): 0.9,
    ("Requests-Tier1", "Requests"): 5e-6,
    ("Requests-Tier2", "Requests"): 4e-7,
}
GP3 = {
    # What is provisioned of throughput has the highest number by far, and is no storage.
    ("EBS:VolumeUsage.gp3", "GB-Mo"): 0.0952,
    ("EBS:VolumeP-IOPS.gp3", "IOPS-Mo"): 0.0060,
    ("EBS:VolumeP-Throughput.gp3", "GiBps-mo"): 48.7424,
}


def price_list(*, machine: float = 0.2, without: str = "") -> Stubs:
    """The answers to `refresh` for one region, in the shapes of AWS' list."""
    stubs = Stubs()
    stub = stubs.on("pricing")

    def answer(products: list[str], **more: str) -> None:
        given = [text for text in products if not (without and without in text)]
        stub.add_response("get_products", {"PriceList": given, **more})

    emr = [product(usd, usagetype=f"EUC1-{name}") for name, usd in EMR.items()]
    mapr = product(9, usagetype="EUC1-BoxUsage:m7g.xlarge", softwareType="MapR M3")
    answer(emr[:1], NextToken="more")
    answer([*emr[1:], mapr])
    answer([product(usd, unit, usagetype=f"EUC1-{name}") for (name, unit), usd in S3.items()])
    answer([product(usd, unit, usagetype=f"EUC1-{name}") for (name, unit), usd in GP3.items()])
    for name in (name for types in prices.MACHINES.values() for name in types):
        offers = [
            product(machine, reserved=0.09, usagetype=f"EUC1-BoxUsage:{name}"),
            product(0, reserved=0.08, usagetype=f"EUC1-HeavyUsage:{name}"),
            product(0.99, usagetype=f"EUC1-UnusedBox:{name}"),
            product(0.31, usagetype=f"EUC1-Reservation:{name}"),
            product(7.7, "Quantity", usagetype=f"EUC1-BoxUsage:{name}"),
        ]
        answer(offers if f"BoxUsage:{name}" in EMR else [])
    return stubs


def test_the_package_has_prices_of_all_regions_but_the_sovereign_cloud() -> None:
    known = prices.load()
    assert set(known.regions) == set(EU_REGIONS) - {"eusc-de-east-1"}
    for region in known.regions:
        for arch in CORE_RATES:
            for machine in known.machines(region, arch):
                here = known.regions[region]
                assert 0 < here.emr_hour[machine] < here.machine_hour[machine]
    with pytest.raises(RefusedError, match="starts no machines in the European Sovereign Cloud"):
        known.machines("eusc-de-east-1", "arm64")


def test_refreshed_prices_replace_those_of_the_package() -> None:
    stubs = price_list()
    old = prices.load()
    with stubs.active(), bank(RATES):
        new = prices.refresh(stubs, ["eu-central-1"])
    here = new.regions["eu-central-1"]
    assert here.machine_hour == {"m7g.xlarge": 0.2, "m6i.xlarge": 0.2}
    assert here.emr_hour == {"m7g.xlarge": 0.04, "m6i.xlarge": 0.05}
    assert here.ebs_gb_month == 0.0952, "storage, and neither requests nor bytes a second"
    assert here.s3_gb_month == 0.025
    assert here.s3_put_thousand == pytest.approx(0.005)
    assert here.s3_get_thousand == pytest.approx(0.0004)
    assert new.eur_per_usd == round(1 / 1.16, 4)
    assert str(new.eur_dated) == "2026-11-23"
    assert new.regions["eu-west-1"] == old.regions["eu-west-1"]
    assert prices.load() == new
    plan = make_plan(67_692, "eu-central-1", workers=2, prices=new)
    assert plan.usd_per_hour == pytest.approx(3 * (0.2 + 0.04 + 0.0952 * 79 / 730))
    assert new.caution("eu-central-1") == ""
    assert new.dated_in("eu-central-1") == utc_now().date()
    assert f"as remembered on {old.dated}" in new.caution("eu-west-1"), "it is as it was"


@pytest.mark.parametrize(
    ("without", "body", "status", "words"),
    [
        ("", b"<html>maintenance</html>", 200, "no rate of the US dollar"),
        ("", RATES, 503, "does not answer"),
        ("", RATES, "nonsense", "does not answer"),
        ("VolumeUsage", RATES, 200, "no price of EBS:VolumeUsage.gp3 by GB-Mo"),
        ("Requests-Tier2", RATES, 200, "no price of Requests-Tier2"),
    ],
)
def test_a_refresh_that_fails_changes_nothing(without, body, status, words) -> None:
    stubs = price_list(without=without)
    old = prices.load()
    with stubs.active(), bank(body, status), pytest.raises(SetupError, match=words):
        prices.refresh(stubs, ["eu-central-1"])
    assert prices.load() == old


def test_a_bank_that_never_answers_is_not_waited_for(monkeypatch) -> None:
    monkeypatch.setattr(prices, "TIMEOUT_SECONDS", 0.1)
    stubs = price_list()
    with stubs.active(), bank(RATES, seconds=0.5), pytest.raises(SetupError, match="timed out"):
        prices.refresh(stubs, ["eu-central-1"])


def test_a_refusal_of_the_price_list_is_explained() -> None:
    stubs = Stubs()
    stubs.on("pricing").add_client_error("get_products", "AccessDeniedException")
    with stubs.active(), pytest.raises(SetupError, match="price list") as raised:
        prices.refresh(stubs, ["eu-central-1"])
    assert "GetProducts" in raised.value.hint


def test_damaged_prices_are_named(tmp_path) -> None:
    (tmp_path / "verger").mkdir()
    (tmp_path / "verger/prices.json").write_text('{"dated": "2026-11-24"}')
    with pytest.raises(SetupError, match="cannot be read"):
        prices.load()


def test_spot_prices_of_now_are_the_mean_over_zones() -> None:
    stubs = Stubs()
    stubs.on("ec2").add_response(
        "describe_spot_price_history",
        {
            "SpotPriceHistory": [
                {"InstanceType": "m7g.xlarge", "AvailabilityZone": zone, "SpotPrice": price,
                 "Timestamp": datetime.now(timezone.utc)}
                for zone, price in (("eu-west-1a", "0.06"), ("eu-west-1b", "0.08"))
            ]
        },
    )  # fmt: skip
    with stubs.active():
        found = prices.spot_now(stubs, "eu-west-1", ["m7g.xlarge", "m6i.xlarge"])
    assert found == {"m7g.xlarge": pytest.approx(0.07)}


@pytest.mark.parametrize("images", [67_692, 155_491])
def test_the_project_costs_less_than_the_published_run(images: int) -> None:
    plan = make_plan(images, "eu-west-1", prices=prices.load())
    assert plan.eur[1] < 1.60
    assert plan.minutes[1] < 83
    assert plan.minutes[0] < plan.minutes[1]
    plan.check_ceiling()


def test_a_plan_is_its_parts(monkeypatch) -> None:
    monkeypatch.setitem(CORE_RATES, "x86_64", (0.5, 1.0))
    known = prices.load()
    plan = make_plan(
        3600, "eu-west-1", workers=2, arch="x86_64", prices=known,
        offered={"m6i.xlarge"},
    )  # fmt: skip
    assert plan.images_per_second == (2.0, 4.0)  # two machines of two cores
    assert plan.minutes[0] == START_MINUTES[0] + FIXED_MINUTES[0] + 15
    assert plan.minutes[1] == START_MINUTES[1] + FIXED_MINUTES[1] + 30
    here = known.regions["eu-west-1"]
    bare = 3 * (here.machine_hour["m6i.xlarge"] + here.emr_hour["m6i.xlarge"])
    assert bare < plan.usd_per_hour < 1.1 * bare
    paid = (plan.deadline_minutes + ENDING_MINUTES) / 60 * plan.eur_per_hour
    assert paid + plan.usd_fixed * known.eur_per_usd == pytest.approx(10)


def test_the_ceiling_holds_for_the_dearest_machine_that_a_fleet_may_take() -> None:
    known = prices.load()
    plan = make_plan(67_692, "eu-west-3", workers=3, prices=known)
    here = known.regions["eu-west-3"]
    disks = here.ebs_gb_month * 79 / 730
    dearest = max(here.machine_hour[name] + here.emr_hour[name] for name in plan.machines)
    assert len(plan.machines) == 5
    assert plan.most_usd_per_hour == pytest.approx(4 * (dearest + disks))
    assert plan.eur[0] < plan.eur[1]


def recorded(name: str) -> list[dict]:
    """What AWS answered to the makers of moto."""
    folder = Path(moto.ec2.__file__).parent / "resources"
    with gzip.open(folder / f"{name}.json.gz") as file:
        found = json.load(file)
    return list(found.values()) if isinstance(found, dict) else found


def test_machines_have_the_processors_and_the_memory_that_plans_count_on() -> None:
    described = {one["InstanceType"]: one for one in recorded("instance_types")}
    for machine, cores in CORES.items():
        assert described[machine]["VCpuInfo"]["DefaultCores"] == cores
        assert described[machine]["VCpuInfo"]["DefaultVCpus"] == PROCESSORS
        assert described[machine]["MemoryInfo"]["SizeInMiB"] == 16 * 1024


def test_rates_are_those_that_were_measured() -> None:
    data = Path(__file__).parents[2] / "presentation/data/workers.json"
    measured = json.loads(data.read_text())["images_per_second"]
    least, most = min(measured["2"]) / 2, max(measured["1"])
    assert CORE_RATES["x86_64"] == (round(least, 1), round(most, 1))
    assert CORE_RATES["arm64"] == (round(least / 2, 1), round(least, 1))


@pytest.mark.parametrize("region", prices.load().regions)
def test_a_region_has_the_machines_that_it_has_prices_of(region: str) -> None:
    offers = recorded(f"instance_type_offerings/availability-zone/{region}")
    offered = {one["InstanceType"] for one in offers}
    assert prices.load().regions[region].machine_hour.keys() <= offered


def test_data_protection_names_the_machines_that_do_not_encrypt_between_themselves() -> None:
    described = {one["InstanceType"]: one for one in recorded("instance_types")}
    plain = [
        machine
        for types in prices.MACHINES.values()
        for machine in types
        if not described[machine]["NetworkInfo"]["EncryptionInTransitSupported"]
    ]
    said = (Path(__file__).parents[2] / "docs/gdpr.md").read_text()
    families = ", ".join(machine.removesuffix(".xlarge") for machine in plain)
    assert f"({families})" in said


@pytest.mark.parametrize(
    ("region", "missing"), [("eu-south-1", "m7g.xlarge"), ("eu-south-2", "m6i.xlarge")]
)
def test_a_region_without_a_type_takes_others(region: str, missing: str) -> None:
    arch = "arm64" if missing.startswith("m7g") else "x86_64"
    machines = prices.load().machines(region, arch)
    assert missing not in machines
    assert len(machines) >= 2


@pytest.mark.parametrize(("processors", "workers"), [(5, 0), (8, 1), (16, 3), (32, 7), (640, 7)])
def test_a_cluster_fits_the_quota(processors: int, workers: int) -> None:
    plan = make_plan(10**7, "eu-west-3", most_machines=processors // 4)
    assert plan.workers == workers
    small = make_plan(1000, "eu-west-3", most_machines=processors // 4)
    assert small.workers <= workers


def test_one_machine_that_is_primary_and_worker_is_slower_than_a_worker() -> None:
    alone = make_plan(1000, "eu-west-3", most_machines=1)
    beside = make_plan(1000, "eu-west-3", workers=1)
    assert alone.images_per_second[0] == beside.images_per_second[0] / 2
    assert alone.usd_per_hour == pytest.approx(beside.usd_per_hour / 2)


def test_more_workers_than_the_quota_allows_are_refused() -> None:
    with pytest.raises(RefusedError, match="16 processors; the account's quota has 8"):
        make_plan(1000, "eu-west-3", workers=3, most_machines=2)


def test_spot_is_cheaper_and_takes_the_price_of_now() -> None:
    given = {"workers": 4, "prices": prices.load()}
    full = make_plan(10_000, "eu-west-3", **given).usd_per_hour
    typical = make_plan(10_000, "eu-west-3", spot=True, **given).usd_per_hour
    now = make_plan(10_000, "eu-west-3", spot=True, spot_usd={"m8g.xlarge": 0.01}, **given)
    assert now.usd_per_hour < typical < full
    # Spot machines may become as dear as others, and the ceiling must hold then too.
    assert now.most_usd_per_hour >= full
    on_demand = make_plan(10_000, "eu-west-3", **given)
    assert now.deadline_minutes == pytest.approx(on_demand.deadline_minutes)


@pytest.mark.parametrize(
    ("network", "views", "longer"),
    [
        ("mobilenet_v2", 6, 6),
        ("efficientnet_lite2", 1, EFFICIENTNET_LITE2.work),
        ("efficientnet_lite2", 6, 6 * EFFICIENTNET_LITE2.work),
        ("keras:ResNet50", 1, 1),
    ],
)
def test_views_and_a_larger_network_take_longer(network: str, views: int, longer: float) -> None:
    usual = make_plan(100_000, "eu-west-1", workers=3)
    asked = make_plan(100_000, "eu-west-1", workers=3, work=work_of(network, views))
    for slower, rate in zip(asked.images_per_second, usual.images_per_second, strict=True):
        assert slower == pytest.approx(rate / longer)
    assert (asked.minutes > usual.minutes) == (longer > 1)
    assert (asked.eur > usual.eur) == (longer > 1)


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
        (10, {"region": "eusc-de-east-1"}, RefusedError),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(images: int, options: dict, error) -> None:
    region = options.pop("region", "eu-west-1")
    with pytest.raises(error):
        make_plan(images, region, **options)


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
    for words in (
        "24 images in eu-west-3", "Graviton", "Intel", "spot", "1.60 EUR", "1 USD =",
        "without tax", "as remembered on", "--refresh",
    ):  # fmt: skip
        assert words in done.stdout


def test_plans_for_scripts(env) -> None:
    words = ("cloud", "plan", "--images", 67692, "--region", "eu-west-3", "--spot", "--json")
    done = verger(*words, env=env)
    rows = json.loads(done.stdout)
    assert [(row["arch"], row["spot"]) for row in rows] == [
        ("arm64", True), ("arm64", False), ("x86_64", True), ("x86_64", False),
    ]  # fmt: skip
    assert all(row["eur"][0] < row["eur"][1] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["plan"], 2, "--images"),
        (["plan", "{empty}", "--region", "eu-west-1"], 3, "holds no file"),
        (["plan", "--images", "10", "--network", "resnet"], 2, "keras:NAME"),
        (["plan", "--images", "10", "--region", "us-east-2"], 6, "us-east-2"),
        (
            ["plan", "--images", "155491", "--region", "eu-west-1", "--max-cost", "0.01"],
            6,
            "ceiling",
        ),
        (["plan", "--images", "10"], 5, "No AWS region is set"),
        (["init", "--bucket", "b", "--region", "eu-west-1"], 5, "no AWS credentials"),
    ],
)
def test_a_mistake_is_a_line_and_an_exit_code(
    env, tmp_path: Path, arguments, code: int, words: str
) -> None:
    done = verger("cloud", *(text.format(empty=tmp_path) for text in arguments), env=env)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_region_of_prices_is_for_asking_them_anew(env) -> None:
    done = verger("cloud", "prices", "--region", "eu-west-3", env=env)
    assert done.returncode == 2
    assert "--refresh" in done.stderr


def test_prices_are_shown_with_date_and_source(env) -> None:
    done = verger("cloud", "prices", env={**env, "COLUMNS": "100"})
    known = prices.load()
    assert f"of {' '.join([str(known.dated)] * 6)}" in " ".join(done.stdout.split())
    assert "…" not in done.stdout, "no price is cut off"
    assert known.source in done.stdout
