"""Each benchmark measures: on few images, and what it writes has the figures that pages show."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import go
from verger.datasets.demo import write_demo_images

pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = 300
"""Of images in the shorter of the two runs whose difference `compare.py` takes."""


def measured(tmp_path: Path, name: str, folder: Path, *options: object) -> dict:
    file = tmp_path / f"{name}.json"
    command = [sys.executable, BENCHMARKS / f"{name}.py", folder, "--json", file, *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


def test_workers_are_timed_and_weighed(orchard: Path, tmp_path: Path) -> None:
    found = measured(tmp_path, "workers", orchard, "--images", 24, "--repeats", 1)
    assert set(found["images_per_second"]) == set(found["bare"]) == {"1", "2"}
    assert all(rate > 0 for rates in found["bare"].values() for rate in rates)
    assert found["peak_bytes"]["worker, Python"] > 50e6


def test_a_store_is_timed(orchard: Path, tmp_path: Path) -> None:
    found = measured(tmp_path, "store", orchard, "--images", 24, "--repeats", 1, "--delay", 1)
    assert len(found["images_per_second"]) == 3
    assert all(rate > 0 for rates in found["images_per_second"].values() for rate in rates)


def test_what_the_page_on_scaling_multiplies_is_timed(spark, orchard: Path, tmp_path: Path) -> None:
    go(orchard, tmp_path / "out")
    found = measured(tmp_path, "scale", tmp_path / "out")
    numbers = {name: value for name, value in found.items() if isinstance(value, float)}
    assert numbers
    assert all(value > 0 for name, value in numbers.items() if "load" not in name)


@pytest.mark.parametrize("where", [(), ("--store",)], ids=["disk", "s3"])
def test_nights_leave_about_as_many_files_as_one_run(
    orchard: Path, tmp_path: Path, where: tuple[str, ...]
) -> None:
    photographs = shutil.copytree(orchard, tmp_path / "photographs")
    options = ("--nights", 36, "--images", 4, *where)
    found = measured(tmp_path, "nights", photographs, *options)
    first, _, last = found["nights"]
    assert (first["rows"], last["rows"], found["at_once"]["rows"]) == (4, 144, 144)
    # Unmerged, there would be four a night.
    assert last["data_files"] <= 33 + found["at_once"]["data_files"]
    assert last["parquet_files"] <= last["data_files"] + 20


def test_verger_is_timed_beside_what_shares_its_environment(orchard: Path, tmp_path: Path) -> None:
    options = (
        "--images",
        24,
        "--rounds",
        1,
        "--only",
        "bare",
        "verger",
        "loading",
        "predict_batch",
    )
    found = measured(tmp_path, "bench", orchard, *options, "--wide", 320)
    (run,) = found["runs"]
    assert [name.split(",")[0] for name in run["contenders"]] == [
        "bare loop", "verger", "loading in processes", "Spark",
    ]  # fmt: skip
    for (seconds,) in run["contenders"].values():
        assert seconds["whole"] > seconds.get("features", 0) >= seconds.get("extract", 0)


def test_peers_are_timed_beside_a_run(tmp_path: Path) -> None:
    write_demo_images(tmp_path / "images", images=2 * SMALL + 100)
    options = ("--images", 2 * SMALL, "--slow-images", 2, "--repeats", 1)
    found = measured(tmp_path, "compare", tmp_path / "images", *options)
    assert [rate["name"][:3] for rate in found["rates"]] == ["(a)", "(b)", "   ", "(c)", "(d)"]
    assert all(rate["images_per_second"] > 0 for rate in found["rates"] if rate["name"][1] != "b")


def test_a_recogniser_is_measured_each_way(spark, orchard: Path, tmp_path: Path) -> None:
    go(orchard, tmp_path / "out")
    output = tmp_path / "out"
    found = measured(tmp_path, "recognising", output, "--others", orchard, "--also", output)
    assert found["images"] == 24
    for part in ("others", "five-fold"):
        assert "as chosen, class mean" in found[part]
        assert {"as chosen, prior by class", "fitted with another data set, all classes"} <= set(
            found[part]
        )
        assert all(0 <= method["top1"] <= 1 for method in found[part].values())
    assert found["others"]["as chosen, class mean"]["top1"] > 0.9  # they were fitted


def test_a_server_is_loaded_up_to_four_times_what_it_can_do(
    spark, orchard: Path, tmp_path: Path
) -> None:
    go(orchard, tmp_path / "out")
    found = measured(tmp_path, "serving", tmp_path / "out", orchard, "--seconds", 3)
    for load in ("one", "full", "half", "four_times", "afterwards"):
        assert set(found[load]["statuses"]) <= {"200", "429"}
    assert found["afterwards"]["statuses"].keys() == {"200"}
