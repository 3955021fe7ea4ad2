"""What takes minutes: the demo at its full size."""

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
