"""The very step that EMR is given, on a real YARN: driver and executors in its containers."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest

from clusters import inherited
from helpers import assert_same_features, go, matrix_of, rejected_of
from stores import aws_settings, download, make_bucket, seaweedfs, upload
from verger.cloud.cluster import EXECUTOR, cluster_request
from verger.cloud.commands import job_command
from verger.cloud.delivery import deliver, make_bundle
from verger.cloud.job import Job
from verger.cloud.stack import Stack
from verger.cloud.submit import spark_properties
from verger.progress import Progress
from verger.settings import RunSettings
from verger.spark.cloud import s3_options
from verger.storage import Location
from yarn import SPARK_HOME, yarn

ENDS_AT = datetime.now(UTC) + timedelta(hours=2)


def deliver_step(bucket: str) -> list[str]:
    """Upload what `verger cloud run` uploads, and return the words of the step of EMR."""
    stack = Stack(
        "verger", "eu-west-3", "123456789012", bucket, (bucket,), "service", "profile",
        "serverless", "scheduler", "subnet", "security", "schedules",
    )  # fmt: skip
    settings = RunSettings(
        input=f"s3://{bucket}/in", output=f"s3://{bucket}/out", max_rejected=1.0, components=9
    )
    bundle = make_bundle(settings, "x86_64", Progress())
    delivered = deliver(boto3.Session(), stack, bundle.files, Progress())
    job = Job(
        run_id="20261124-1200-a1b2",
        output=settings.output,
        properties=spark_properties(
            environment=delivered[bundle.environment],
            code=delivered[bundle.code],
            backbone=delivered[bundle.backbone],
        ),
        entry=delivered[bundle.entry],
        command=job_command(settings, ENDS_AT),
        arch="x86_64",
        machines=("m5.xlarge",),
        workers=2,
        spot=False,
        ends_at=ENDS_AT,
    )
    (step,) = cluster_request(job, stack)["Steps"]
    return step["HadoopJarStep"]["Args"]


@pytest.mark.slow
def test_the_step_of_emr_on_yarn_from_s3_to_s3_equals_a_local_run_row_by_row(
    orchard: Path, tmp_path: Path, monkeypatch
) -> None:
    shutil.copytree(orchard, tmp_path / "images")
    (tmp_path / "images/bad.jpg").write_bytes(b"\xff\xd8\xff not a photograph")
    go(tmp_path / "images", tmp_path / "local", max_rejected=1.0, components=9)

    with (
        seaweedfs(tmp_path / "store/weed") as port,
        aws_settings(port, monkeypatch),
    ):
        bucket = make_bucket(port, "orchard")
        upload(tmp_path / "images", port, bucket, "in")
        program, *words = deliver_step(bucket)
        assert program == "spark-submit"
        assert all("=".join(item) in words for item in EXECUTOR.items())
        # EMR's Spark has S3; the settings of this one have what a local run gives itself.
        s3 = s3_options(Location.parse(f"s3://{bucket}/out"))
        with yarn(tmp_path / "yarn", s3, inherited()) as env:
            done = subprocess.run(
                [SPARK_HOME / "bin" / program, *words],
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 0, done.stderr
        ours = download(port, bucket, "out", tmp_path / "out")
    assert_same_features(tmp_path / "local", ours)
    assert rejected_of(ours) == rejected_of(tmp_path / "local") == {"bad.jpg": "corrupt"}
    difference = matrix_of(ours).set_index(["path", "label"]) - matrix_of(
        tmp_path / "local"
    ).set_index(["path", "label"])
    assert difference.abs().to_numpy().max() < 1e-6
