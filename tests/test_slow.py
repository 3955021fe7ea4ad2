"""What takes minutes: the demo at its full size, and as pip alone installs it."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from sklearn.neighbors import KNeighborsClassifier

from verger.images.demo import KINDS


@pytest.mark.slow
def test_the_matrix_of_the_whole_demo_tells_the_kinds_apart(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "verger", "demo", tmp_path / "demo", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["featurized"] == 1200
    matrix = pd.read_csv(tmp_path / "demo/output/pca/matrix.csv")
    assert set(matrix.label) == set(KINDS)
    scores = matrix.filter(like="pc_").to_numpy()
    known = KNeighborsClassifier(1).fit(scores[::2], matrix.label[::2])
    assert known.score(scores[1::2], matrix.label[1::2]) > 0.95


@pytest.mark.slow
def test_what_pip_chooses_runs_the_demo_without_java(
    tmp_path: Path, path_without_java: Path
) -> None:
    def run(*words: object, **options: object) -> str:
        done = subprocess.run(
            list(map(str, words)), capture_output=True, text=True, check=False, **options
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    wheels, home = tmp_path / "wheels", tmp_path / "home"
    run(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", wheels,
        Path(__file__).parents[1],
    )  # fmt: skip
    run(sys.executable, "-m", "venv", home)
    # No lock file: the newest that the wheel allows.
    run(home / "bin/pip", "install", *wheels.iterdir())
    env = {"HOME": str(home), "PATH": str(path_without_java)}
    said = run(home / "bin/verger", "demo", tmp_path / "demo", "--images", "60", "--json", env=env)
    assert json.loads(said)["counts"]["featurized"] == 60
