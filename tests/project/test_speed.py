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
LEAST_OF_ONE = 1.5
"""Times the rate of one worker, where each of two or more has a core."""


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


def test_extraction_is_near_a_bare_loop_and_uses_every_core(
    photographs: Path, tmp_path: Path
) -> None:
    graph = unpack(load_backbone(), tmp_path / "graph")
    of_bare: list[float] = []
    of_one = [] if machine()["cores"] > 1 else [LEAST_OF_ONE]
    for _ in range(ROUNDS):
        rate = extraction(photographs, tmp_path / "out")
        if max(of_bare, default=0) < LEAST_OF_BARE:
            seconds = run(CONTENDERS[0], photographs, tmp_path / "bare", graph, "f32")["loop"]
            of_bare.append(rate * seconds / IMAGES)
        if max(of_one, default=0) < LEAST_OF_ONE:
            one = ("--master", "local[1]", "--limit", "2000")
            of_one.append(rate / extraction(photographs, tmp_path / "out", *one))
        if max(of_bare) >= LEAST_OF_BARE and max(of_one) >= LEAST_OF_ONE:
            return
    pytest.fail(f"of the bare loop: {of_bare}; of one worker: {of_one}")
