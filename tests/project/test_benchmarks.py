"""Each benchmark measures: on few images, and what it writes has the figures that pages show."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import go

pytestmark = pytest.mark.bench
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


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


@pytest.mark.slow
@pytest.mark.parametrize("where", [(), ("--store",)], ids=["disk", "s3"])
def test_nights_leave_about_as_many_files_as_one_run(
    orchard: Path, tmp_path: Path, where: tuple[str, ...]
) -> None:
    photographs = shutil.copytree(orchard, tmp_path / "photographs")
    options = ("--nights", 12, "--images", 4, "--compact-files", 8, *where)
    found = measured(tmp_path, "nights", photographs, *options)
    first, last = found["nights"]
    assert (first["rows"], last["rows"], found["at_once"]["rows"]) == (4, 48, 48)
    # Unmerged, there would be four a night.
    assert last["data_files"] <= 9 + found["at_once"]["data_files"]
    assert last["parquet_files"] <= last["data_files"] + 20


def test_verger_is_timed_beside_what_shares_its_environment(orchard: Path, tmp_path: Path) -> None:
    options = ("--images", 24, "--rounds", 1, "--wide", 320)
    found = measured(
        tmp_path, "bench", orchard, *options, "--only", "verger", "loading", "predict_batch"
    )
    (run,) = found["runs"]
    assert [(row["name"].split(",")[0], row["part"]) for row in run["rows"]] == [
        ("bare loop", "loop"), ("bare loop", "start"),
        ("verger", "extract"), ("verger", "features"), ("verger", "whole"),
        ("loading in processes", "whole"), ("Spark", "whole"),
    ]  # fmt: skip
    seconds = [row["seconds"] for row in run["rows"]]
    assert all(second > 0 for second in seconds)
    assert seconds[2] < seconds[3] < seconds[4]
    assert run["rows"][0]["ratio"] == 1


def test_usual_jobs_are_timed_and_sizes_are_kept_side_by_side(
    orchard: Path, tmp_path: Path
) -> None:
    measured(tmp_path, "bench", orchard, "--rounds", 1, "--images", 8, "--only", "loading")
    found = measured(tmp_path, "bench", orchard, "--rounds", 1, "--images", 4, "--only", "UDF by")
    assert [run["images"] for run in found["runs"]] == [8, 4]
    names = [
        [row["name"] for row in run["rows"] if row["part"] == "whole"] for run in found["runs"]
    ]
    assert names == [["loading in processes"], ["Spark, UDF by batch", "Spark, UDF by image"]]


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
    (found,) = measured(tmp_path, "serving", orchard, tmp_path / "out", "--seconds", 3)["outputs"]
    assert (found["network"], found["views"]) == ("mobilenet_v2", 1)
    for load in ("one", "full", "half", "four_times", "afterwards"):
        assert set(found[load]["statuses"]) <= {"200", "429"}
    assert found["afterwards"]["statuses"].keys() == {"200"}


def test_answers_of_page_and_server_are_timed(spark, orchard: Path, tmp_path: Path) -> None:
    go(orchard, tmp_path / "out")
    (found,) = measured(tmp_path, "phone", orchard, tmp_path / "out", "--images", 3)["outputs"]
    # The network and what runs it.
    assert 10_000_000 < found["loaded_bytes"] < 30_000_000
    for where in ("on_phone_ms", "by_server_ms"):
        assert 0 < found[where]["median"] <= found[where]["most"]


def test_growth_is_timed_and_weighed(orchard: Path, tmp_path: Path) -> None:
    found = measured(tmp_path, "growth", orchard, "--images", 30, "--times", 2)
    assert [size["images"] for size in found["sizes"]] == [30, 60]
    for size in found["sizes"]:
        assert size["whole"] > size["timings"]["extract"] > 0
        assert set(size["peak_bytes"]) == {"driver, Python", "driver, Java", "worker, Python"}
