"""What workers do before and between their tasks."""

import time
from dataclasses import replace

import pytest
from pyspark.sql import SparkSession

from verger.networks import engines
from verger.networks.graph import load_backbone
from verger.spark.extraction import WORTH_A_WORKER, warm_up


@pytest.mark.parametrize(("images", "workers"), [(1, 1), (WORTH_A_WORKER + 1, 2), (10_000, 2)])
def test_workers_have_the_network_before_the_first_task(
    spark: SparkSession, images: int, workers: int
) -> None:
    backbone = load_backbone()
    mine = replace(backbone.weights, sha256=f"{images}")
    context = spark.sparkContext
    warm_up(context, context.broadcast(replace(backbone, weights=mine)), images).join()

    def has_it(_: int) -> bool:
        time.sleep(0.5)  # so that no worker gets both tasks
        return any(sha256 == f"{images}" for *_, sha256 in engines._engines)

    assert sum(context.parallelize(range(2), 2).map(has_it).collect()) == workers


def test_a_network_that_cannot_be_loaded_is_left_to_the_job(
    spark: SparkSession, capfd: pytest.CaptureFixture[str]
) -> None:
    context = spark.sparkContext
    broken = replace(load_backbone(), payload=b"no archive")
    mine = replace(broken.weights, sha256="broken")
    warm_up(context, context.broadcast(replace(broken, weights=mine)), 10_000).join()
    assert capfd.readouterr().err == ""
