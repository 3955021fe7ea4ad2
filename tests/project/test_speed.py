"""Extraction stays near what the processors give, and uses all of them.

Ratios of runs of one test, on the same images; a machine that is busy with something else is given
more rounds. To be run alone: `make test-speed`.
"""

import json
import subprocess
from pathlib import Path

import pytest
from bench import CONTENDERS, environment, run, unpack
from machine import machine
from photographs import link_images

from helpers import VERGER
from verger.datasets.demo import write_demo_images
from verger.networks.graph import load_backbone

pytestmark = [pytest.mark.speed, pytest.mark.timeout(900)]
IMAGES = 4000
ROUNDS = 4
LEAST_OF_BARE = 0.80
"""Of the rate of a loop with nothing but decoding and the network."""
LEAST_OF_TWO = 1.5
"""Times the rate of one worker, where two have a core each."""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    write_demo_images(folder / "few", images=120)
    link_images(folder / "few", folder / "many", IMAGES)
    return folder / "many"


def extraction(images: Path, output: Path, *options: str) -> float:
    """Images a second of a run's extraction, the start of its workers included."""
    command = [*VERGER, "run", images, output, "--fresh", "--json", *options]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["images_per_second"]


def test_extraction_is_near_a_bare_loop(photographs: Path, tmp_path: Path) -> None:
    graph = unpack(load_backbone(), tmp_path / "graph")
    ratios = []
    for _ in range(ROUNDS):
        bare = IMAGES / run(CONTENDERS[0], photographs, tmp_path / "bare", graph, "f32")["loop"]
        ratios.append(extraction(photographs, tmp_path / "out") / bare)
        if ratios[-1] >= LEAST_OF_BARE:
            return
    pytest.fail(f"of the bare loop: {ratios}")


@pytest.mark.skipif(machine()["cores"] < 2, reason="two workers need two cores")
def test_two_workers_do_nearly_twice_as_much(photographs: Path, tmp_path: Path) -> None:
    ratios = []
    for _ in range(ROUNDS):
        one = extraction(photographs, tmp_path / "out", "--master", "local[1]", "--limit", "2000")
        ratios.append(extraction(photographs, tmp_path / "out", "--master", "local[2]") / one)
        if ratios[-1] >= LEAST_OF_TWO:
            return
    pytest.fail(f"two workers against one: {ratios}")
