"""The very step that EMR is given, on a real YARN: driver and executors in its containers."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

import boto3
import nbformat
import pytest

from helpers import assert_same_features, go, matrix_of, rejected_of
from stores import aws_settings, download, make_bucket, seaweedfs, upload
from verger.cloud.account.stack import Stack
from verger.cloud.jobs.cluster import cluster_request
from verger.cloud.jobs.delivery import deliver, make_bundle
from verger.cloud.jobs.job import Job
from verger.cloud.jobs.sizes import spark_sizes
from verger.cloud.jobs.submit import job_command, notebook_command, spark_properties
from verger.datasets.packing import pack
from verger.progress import Progress
from verger.settings import RunSettings
from verger.store.location import Location
from yarn import SPARK_HOME, container_variables, s3a_options, yarn

pytestmark = pytest.mark.spark

ENDS_AT = datetime.now(timezone.utc) + timedelta(hours=2)
BUCKET = "orchard"
STACK = Stack(
    "eu-west-3", "123456789012", BUCKET, (BUCKET,), "service", "profile",
    "scheduler", ("subnet",), "security", "schedules",
)  # fmt: skip
SETTINGS = RunSettings(
    input=f"s3://{BUCKET}/in", output=f"s3://{BUCKET}/out", max_rejected=1.0, components=5
)
PACKED = Location.parse(f"s3://{BUCKET}/packed")
NOTEBOOK = Path(__file__).parents[2] / "notebooks/verger_emr.ipynb"


class Place(NamedTuple):
    """A bucket with photographs and one bad file, also packed, and a cluster that reads it."""

    port: int
    env: dict[str, str]
    yarn: Path
    """Where YARN keeps its containers."""
    local: Path
    """What a run on this machine makes of them."""


@pytest.fixture(scope="module")
def place(orchard: Path, tmp_path_factory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("emr")
    images = folder / "images"
    shutil.copytree(orchard, images)
    (images / "bad.jpg").write_bytes(b"\xff\xd8\xff not a photograph")
    go(images, folder / "local", max_rejected=1.0, components=5)
    with (
        pytest.MonkeyPatch.context() as patch,
        seaweedfs(folder / "store/weed") as port,
        aws_settings(port, patch),
    ):
        upload(images, port, make_bucket(port, BUCKET), "in")
        pack(Location(str(images)), PACKED)
        # EMR's Spark has S3; the settings of this one have what a local run gives itself.
        s3 = s3a_options(SETTINGS.output)
        with yarn(folder / "yarn", s3, dict(os.environ)) as env:
            yield Place(port, env, folder / "yarn", folder / "local")


def run_step(place: Place, command: Callable[[dict[Path, str]], tuple[str, ...]]) -> None:
    """Upload what `verger cloud` uploads, and run the words of the step that EMR is given.

    Args:
        place: where.
        command: of verger, made of the URIs of what was uploaded.
    """
    bundle = make_bundle("x86_64", Progress(), SETTINGS.network)
    delivered = deliver(boto3.Session(), STACK, (*bundle, NOTEBOOK), Progress())
    job = Job(
        run_id="20261124-1200-a1b2",
        output=SETTINGS.output,
        properties=spark_properties(
            region=STACK.region,
            environment=delivered[bundle.environment],
            code=delivered[bundle.code],
            backbone=delivered[bundle.backbone],
        ),
        entry=delivered[bundle.entry],
        command=command(delivered),
        arch="x86_64",
        machines=("m5.xlarge",),
        subnets=STACK.subnets,
        workers=2,
        spot=False,
        ends_at=ENDS_AT,
    )
    (step,) = cluster_request(job, STACK)["Steps"]
    program, *words = step["HadoopJarStep"]["Args"]
    assert program == "spark-submit"
    assert all("=".join(item) in words for item in spark_sizes(2).items())
    done = subprocess.run(
        [SPARK_HOME / "bin" / program, *words],
        env=place.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_step_of_emr_on_yarn_from_s3_to_s3_equals_a_local_run_row_by_row(
    place: Place, tmp_path: Path
) -> None:
    run_step(place, lambda _: job_command(SETTINGS, ENDS_AT))
    ours = download(place.port, BUCKET, "out", tmp_path / "out")
    assert_same_features(place.local, ours)
    assert rejected_of(ours) == rejected_of(place.local) == {"bad.jpg": "corrupt"}
    assert_same_matrix(place.local, ours)
    # Containers know the region, and have nothing else of AWS.
    started = container_variables(place.yarn)
    assert len(started) >= 3, "a driver and two executors"
    told = {"AWS_REGION": STACK.region, "AWS_DEFAULT_REGION": STACK.region}
    for variables in started:
        # The driver gives executors the address of a store that is not AWS' own.
        assert variables | {"AWS_ENDPOINT_URL": ""} == told | {"AWS_ENDPOINT_URL": ""}


@pytest.mark.slow
def test_the_notebook_as_a_step_of_emr_gives_what_a_run_gives(place: Place, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(
        update={"input": PACKED, "output": Location.parse(f"s3://{BUCKET}/notebook")}
    )
    run_step(
        place,
        lambda delivered: notebook_command(settings, delivered[NOTEBOOK], "a1b2", ENDS_AT),
    )
    ours = download(place.port, BUCKET, "notebook", tmp_path / "out")
    executed = nbformat.read(ours / "executed/a1b2.ipynb", as_version=4)
    printed = [out.get("text", "") for cell in executed.cells for out in cell.get("outputs", ())]
    assert any("24 images, écart le plus grand : 0.0" in text for text in printed)
    assert_same_matrix(place.local, ours)
    for name in ("eboulis", "carte"):
        assert (ours / f"figures/{name}.svg").read_text().startswith("<svg")


def assert_same_matrix(left: Path, right: Path) -> None:
    both = [matrix_of(folder).set_index(["path", "label"]) for folder in (left, right)]
    assert (both[0] - both[1]).abs().to_numpy().max() < 1e-6
