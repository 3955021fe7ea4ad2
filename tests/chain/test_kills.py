"""Twenty SIGKILLs at random moments, then a comparison with a run that nobody disturbed."""

import json
import os
import random
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from helpers import (
    VERGER,
    assert_same_features,
    committed,
    matrix_of,
    running,
    spark_workers,
    table_of,
)
from verger.datasets.demo import write_demo_images

pytestmark = pytest.mark.spark

IMAGES = 330
WAVE_SIZE = 2
REDUCING = ("Fitting the PCA", "Projecting", "Writing the matrix")
KILLS_WHILE_EXTRACTING = 6
KILLS_AT_COMMITS = 7
KILLS_WHILE_REDUCING = 4
KILLS_WHILE_TIDYING = 3
CLOSE = 0.05
"""Seconds from a commit, a merging or a deletion within which half of the kills are."""


def commits(output: Path) -> int:
    """How many commits the table of files has had."""
    return len(list(output.glob("files/_delta_log/*.json")))


def kill_one(process: subprocess.Popen, dice: random.Random, *, only_driver: bool) -> None:
    """SIGKILL the driver, or else its Java machine or one of its Python workers."""
    children = psutil.Process(process.pid).children(recursive=True)
    kinds = {
        "driver": [process.pid],
        "java": [child.pid for child in children if name_of(child) == "java"],
        "worker": [worker.pid for worker in spark_workers(process.pid)],
    }
    if only_driver:
        kinds = {"driver": kinds["driver"]}
    kind = dice.choice([kind for kind, found in kinds.items() if found])
    with suppress(ProcessLookupError):
        os.kill(dice.choice(kinds[kind]), signal.SIGKILL)
    if kind == "worker":
        # Which the run survives, so it is killed too, a little later.
        time.sleep(0.2)
        process.kill()


def name_of(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:  # it ended meanwhile
        return ""


def run_and_kill(
    arguments: list[str], wait: float, until, dice: random.Random, *, only_driver: bool = False
) -> None:
    """Start the run and kill it `wait` seconds after `until`, when it must still be running.

    `until` is given what the run has said so far.
    """
    with (
        tempfile.NamedTemporaryFile("w+") as errors,
        running(arguments, stderr=errors) as process,
    ):
        while not until(Path(errors.name).read_text()) and process.poll() is None:
            time.sleep(0.01)
        with suppress(subprocess.TimeoutExpired):
            process.wait(wait)
            errors.seek(0)
            pytest.fail(f"it ended with {process.returncode}: {errors.read()}")
        below = psutil.Process(process.pid).children(recursive=True)
        kill_one(process, dice, only_driver=only_driver)
        process.wait(60)
        assert psutil.wait_procs(below, 60)[1] == [], "nothing of it is left"


@pytest.mark.slow
def test_twenty_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path) -> None:
    write_demo_images(tmp_path / "in", images=IMAGES, seed=3)
    output = tmp_path / "out"
    arguments = [*VERGER, "run", str(tmp_path / "in"), str(output), "--wave-size", str(WAVE_SIZE)]
    arguments += ["--compact-files", "3"]
    dice = random.Random(20)  # noqa: S311
    for number in range(KILLS_WHILE_EXTRACTING):
        some = committed(output)
        assert some < IMAGES
        if number < 2:  # from the start of the run on
            run_and_kill(arguments, dice.uniform(0, 7), lambda _: True, dice)
        else:
            run_and_kill(
                arguments, dice.uniform(0, 2), lambda _: committed(output) > some, dice  # noqa: B023
            )  # fmt: skip
        assert committed(output) >= some
    for _ in range(KILLS_AT_COMMITS):
        before = commits(output)
        run_and_kill(
            arguments, dice.uniform(0, CLOSE), lambda _: commits(output) > before, dice  # noqa: B023
        )  # fmt: skip
    assert 0 < committed(output) < IMAGES
    for number in range(KILLS_WHILE_REDUCING):
        # The first of these runs still extracts; the others are at the matrix when they are killed.
        stage = dice.choice(REDUCING) if number else ""
        run_and_kill(
            arguments,
            dice.uniform(0, 0.2),
            lambda said: committed(output) == IMAGES and stage in said,  # noqa: B023
            dice,
        )
        assert json.loads((output / "manifest.json").read_text())["status"] == "interrupted"
    for _ in range(KILLS_WHILE_TIDYING):
        # The others are not needed any more: without them the run would complete.
        run_and_kill(
            arguments,
            dice.uniform(0, CLOSE),
            lambda said: "Tidying up" in said,
            dice,
            only_driver=True,
        )
        assert json.loads((output / "manifest.json").read_text())["status"] == "interrupted"

    last = subprocess.run([*arguments, "--json"], capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    counts = json.loads(last.stdout)["counts"]
    assert counts == {
        "listed": IMAGES, "featurized": 0, "reused": IMAGES, "rejected": 0, "kept": 0,
    }  # fmt: skip
    subprocess.run(
        [*VERGER, "run", str(tmp_path / "in"), str(tmp_path / "whole")], check=True
    )  # fmt: skip
    assert_same_features(output, tmp_path / "whole")
    live = {file.name for file in table_of(output).files()}
    assert {f"{file.parent.name}/{file.name}" for file in output.glob("files/out*/*")} == live
    variance, expected = (
        pd.read_csv(folder / "pca/variance.csv") for folder in (output, tmp_path / "whole")
    )
    pd.testing.assert_frame_equal(variance, expected, rtol=1e-9)
    ours, theirs = matrix_of(output), matrix_of(tmp_path / "whole")
    assert list(ours.path) == list(theirs.path)
    np.testing.assert_allclose(ours.iloc[:, 2:], theirs.iloc[:, 2:], atol=1e-6)
