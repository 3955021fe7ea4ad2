"""The step that EMR is given, on a real YARN: driver and executors in its containers."""

import shutil
import sys
from pathlib import Path

import pytest

from clusters import inherited
from helpers import assert_same_features, go, matrix_of, rejected_of
from stores import aws_settings, download, make_bucket, seaweedfs, upload
from verger.backbone.graph import load_backbone, save_backbone
from verger.cloud.bundle import ENTRY, pack_code, pack_environment
from verger.cloud.submit import spark_properties, submit_arguments
from verger.spark.cloud import s3_options
from verger.storage import Location
from yarn import submit, yarn


@pytest.mark.slow
def test_a_run_on_yarn_from_s3_to_s3_equals_a_local_one_row_by_row(
    orchard: Path, tmp_path: Path, monkeypatch
) -> None:
    shutil.copytree(orchard, tmp_path / "images")
    (tmp_path / "images/bad.jpg").write_bytes(b"\xff\xd8\xff not a photograph")
    go(tmp_path / "images", tmp_path / "local", max_rejected=1.0)

    save_backbone(load_backbone(), tmp_path / "backbone.zip")
    properties = spark_properties(
        environment=pack_environment(tmp_path, "x86_64").as_uri(),
        code=pack_code(tmp_path).as_uri(),
        backbone=(tmp_path / "backbone.zip").as_uri(),
        python=sys.executable,
    )
    sizes = {"spark.driver.memory": "1g", "spark.executor.memory": "1g",
             "spark.executor.instances": "2", "spark.executor.cores": "1"}  # fmt: skip
    with (
        seaweedfs(tmp_path / "store/weed") as port,
        aws_settings(port, monkeypatch),
    ):
        bucket = make_bucket(port, "orchard")
        upload(tmp_path / "images", port, bucket, "in")
        # EMR's Spark has S3; this one is given what a local run gives itself.
        s3 = s3_options(Location.parse(f"s3://{bucket}/out"))
        arguments = submit_arguments(
            properties | sizes | s3,
            entry=ENTRY.as_uri(),
            command=["run", f"s3://{bucket}/in", f"s3://{bucket}/out", "--max-rejected", "1.0"],
        )
        with yarn(tmp_path / "yarn", inherited()) as conf:
            done = submit(arguments, conf, inherited())
        assert done.returncode == 0, done.stderr
        ours = download(port, bucket, "out", tmp_path / "out")
    assert_same_features(tmp_path / "local", ours)
    assert rejected_of(ours) == rejected_of(tmp_path / "local") == {"bad.jpg": "corrupt"}
    difference = matrix_of(ours).set_index(["path", "label"]) - matrix_of(
        tmp_path / "local"
    ).set_index(["path", "label"])
    assert difference.abs().to_numpy().max() < 1e-6
