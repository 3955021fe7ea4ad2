"""What a machine's memory and processors are given to."""

import json
from pathlib import Path

import pytest

from verger.cloud.jobs.sizes import (
    ALONE,
    DRIVER_MB,
    DRIVER_OVERHEAD_MB,
    HEAP_MB,
    OFF_HEAP_MB,
    WORKER_MB,
    YARN_MB,
    spark_sizes,
    with_full_waves,
)
from verger.cloud.money.plan import PROCESSORS
from verger.settings import RunSettings

MEASURED = json.loads((Path(__file__).parents[2] / "presentation/data/workers.json").read_text())[
    "peak_bytes"
]


def megabytes(sizes: dict[str, str], name: str) -> int:
    return int(sizes[name].removesuffix("m"))


@pytest.mark.parametrize("workers", [0, 1, 7])
def test_driver_and_executor_fit_one_machine(workers: int) -> None:
    sizes = spark_sizes(workers)
    asked = sum(
        megabytes(sizes, f"spark.{process}.{part}")
        for process in ("driver", "executor")
        for part in ("memory", "memoryOverhead")
    )
    assert asked <= YARN_MB
    assert sizes["spark.executor.cores"] == str(PROCESSORS if workers else ALONE)
    assert sizes["spark.task.cpus"] == "1"
    assert sizes["spark.executor.instances"] == str(max(workers, 1))


def test_each_process_has_more_than_was_measured() -> None:
    in_megabytes = {name: size / 2**20 for name, size in MEASURED.items()}
    assert in_megabytes["worker, Python"] <= WORKER_MB
    assert in_megabytes["executor, Java"] <= HEAP_MB + OFF_HEAP_MB
    assert in_megabytes["driver, Java"] <= DRIVER_MB
    assert in_megabytes["driver, Python"] <= DRIVER_OVERHEAD_MB


@pytest.mark.parametrize("workers", [0, 1, 7, 50])
def test_a_wave_keeps_all_processors_at_work(workers: int) -> None:
    run = RunSettings(input="s3://a/in", output="s3://a/out")
    cores = workers * PROCESSORS or ALONE
    wave = with_full_waves(run, workers).wave_size
    assert wave >= run.wave_size
    assert wave / run.task_size >= 8 * cores
    given = run.model_copy(update={"wave_size": 100})
    assert with_full_waves(given, workers).wave_size == 100
