"""What workers do before their first task."""

from dataclasses import replace

import pytest
from pyspark import SparkContext
from pyspark.sql import SparkSession

from verger.networks.graph import Backbone, load_backbone
from verger.spark.extraction import WORTH_A_WORKER, warm_up


def warmed(context: SparkContext, backbone: Backbone, images: int) -> tuple[int, int]:
    """Tasks that loaded the network, and those that could not."""
    warm_up(context, context.broadcast(backbone), images).join()
    tracker = context.statusTracker()
    latest = tracker.getJobInfo(max(tracker.getJobIdsForGroup()))
    (stage,) = map(tracker.getStageInfo, latest.stageIds)
    return stage.numCompletedTasks, stage.numFailedTasks


@pytest.mark.parametrize(("images", "workers"), [(1, 1), (WORTH_A_WORKER + 1, 2), (10_000, 2)])
def test_workers_load_the_network_where_there_is_work_for_them(
    spark: SparkSession, images: int, workers: int
) -> None:
    assert warmed(spark.sparkContext, load_backbone(), images) == (workers, 0)


def test_a_network_that_cannot_be_loaded_is_left_to_the_job(
    spark: SparkSession, capfd: pytest.CaptureFixture[str]
) -> None:
    backbone = load_backbone()
    weights = replace(backbone.weights, sha256="broken")  # no worker has it already
    broken = replace(backbone, payload=b"no archive", weights=weights)
    completed, failed = warmed(spark.sparkContext, broken, 10_000)
    assert (completed, failed > 0) == (0, True)
    assert capfd.readouterr().err == ""
