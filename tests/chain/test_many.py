"""A hundred thousand paths: the driver's memory does not grow with them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import features_of
from verger.datasets.demo import KINDS, render
from verger.spark.comparison import FEW

# The real chain, but for a network so small that only listing, planning and rows take time.
RUN = """
import dataclasses, io, json, sys, tempfile, zipfile
from pathlib import Path
import numpy as np, openvino, psutil
from openvino import opset13 as op
from verger import chain
from verger.settings import RunSettings

def load_small(*arguments, load=chain.load_backbone):
    pixels = op.parameter([-1, 32, 32, 3], np.uint8)
    means = op.reduce_mean(op.convert(pixels, "f32"), np.array([1, 2]), keep_dims=False)
    mixed = op.matmul(means, np.random.default_rng(0).normal(size=(3, 1280)).astype("f4"), 0, 0)
    packed = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(packed, "w") as archive:
        openvino.save_model(openvino.Model([mixed], [pixels]), folder + "/graph.xml")
        for name in ("graph.xml", "graph.bin"):
            archive.write(Path(folder) / name, name)
    whole = load(*arguments)
    network = dataclasses.replace(whole.network, side=32)
    return dataclasses.replace(whole, payload=packed.getvalue(), network=network)

chain.load_backbone = load_small
manifest = chain.run(
    RunSettings(input=sys.argv[1], output=sys.argv[2], components=2, driver_memory="1g")
)

def peak_mb(pid):
    # Not what getrusage says: that has the peak of the process which started this one.
    status = Path(f"/proc/{pid}/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) / 1024

java = [child for child in psutil.Process().children(recursive=True) if child.name() == "java"]
print(json.dumps({
    "counts": manifest.counts.model_dump(),
    "timings": manifest.timings,
    "driver_mb": peak_mb("self"),
    "java_mb": sum(peak_mb(child.pid) for child in java),
}))
"""


def measure(images: Path, output: Path) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", RUN, images, output], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def link(photos: list[Path], folder: Path, count: int) -> None:
    """`count` hard links, spread over folders of a thousand."""
    for number in range(count):
        if number % 1000 == 0:
            below = folder / f"class {number // 1000}"
            below.mkdir(parents=True)
        os.link(photos[number % len(photos)], below / f"{number}.jpg")


@pytest.mark.slow
def test_the_drivers_memory_is_bounded_with_a_hundred_thousand_paths(tmp_path: Path) -> None:
    photos = [tmp_path / f"{number}.jpg" for number in range(20)]
    for number, photo in enumerate(photos):
        render(KINDS[number % 3], number, 20).resize((16, 16)).save(photo)
    # More than the report compares, and than it draws: both are bounded.
    link(photos, tmp_path / "few", FEW // 2)
    link(photos, tmp_path / "many", 100_000)
    few = measure(tmp_path / "few", tmp_path / "few-out")
    many = measure(tmp_path / "many", tmp_path / "many-out")
    print(json.dumps({"few": few, "many": many}))  # noqa: T201 - a measurement, shown by -s
    assert many["counts"]["featurized"] == 100_000
    # Batches of the listing, not all of it, and Spark compares.
    assert many["driver_mb"] < few["driver_mb"] + 100
    # A heap of 1 GiB is enough, and what Java needs beside it.
    assert many["java_mb"] < 1024 + 600
    again = measure(tmp_path / "few", tmp_path / "few-out")
    assert again["counts"]["reused"] == FEW // 2
    assert again["java_mb"] == 0, "with nothing new Spark is not started"
    again = measure(tmp_path / "many", tmp_path / "many-out")
    assert again["counts"]["reused"] == 100_000
    assert again["driver_mb"] < few["driver_mb"] + 100
    assert features_of(tmp_path / "many-out").path.is_unique
