"""What takes minutes: the demo at its full size, and as pip alone installs it."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from sklearn.neighbors import KNeighborsClassifier

from helpers import go
from verger.datasets.demo import KINDS, write_demo_images
from verger.spark.java import java_home
from yarn import BRIEF_JAVA, trust_store_option

ROOT = Path(__file__).parents[2]
PYTHONS = os.environ.get("VERGER_PYTHONS", sys.executable).split()
"""The interpreters that the wheel is tried with."""


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


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    uv = Path(sys.executable).with_name("uv")
    build = ("build", "--wheel", "--no-build-isolation", "--python", sys.executable)
    run_in(folder, uv, *build, "--out-dir", folder, ROOT)
    return next(folder.glob("*.whl"))


def run_in(folder: Path, *words: object, **options: object) -> str:
    """What a command that succeeds prints, run in a folder."""
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, check=False, cwd=folder, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
def test_the_wheel_alone_does_the_whole_chain_without_java(
    wheel: Path, python: str, tmp_path: Path, path_without_java: Path
) -> None:
    home = tmp_path / "home"
    run_in(tmp_path, python, "-m", "venv", home)
    empty = size_of(home)
    # No lock file: the newest that the wheel allows.
    run_in(tmp_path, home / "bin/python", "-m", "pip", "install", "--quiet", f"{wheel}[spark3]")
    assert size_of(home) - empty < 1.2e9
    assert not list(home.glob("lib/*/site-packages/tensorflow"))
    env = {"HOME": str(home), "PATH": str(path_without_java)}
    verger = home / "bin/verger"

    def counts(*words: object) -> dict[str, int]:
        return json.loads(run_in(tmp_path, verger, *words, "--json", env=env))["counts"]

    assert counts("demo", "demo", "--images", "60")["featurized"] == 60
    assert counts("run", "demo/images", "again", "--components", "5")["featurized"] == 60
    (tmp_path / "again/report.html").unlink()
    run_in(tmp_path, verger, "report", "again", env=env)
    assert (tmp_path / "again/report.html").stat().st_size > 100_000
    # What a run leaves in its user's home: the archives of Java's classes.
    assert size_of(home / ".cache") < 0.2e9


DELTA = "io.delta:delta-spark_2.12:3.3.2"
READ_AS_DELTA = """
import json, sys
from pyspark.sql import SparkSession

spark = (
    SparkSession.builder.master("local[1]")
    .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
    .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
    .config("spark.ui.enabled", "false")
    .getOrCreate()
)
files = spark.read.format("delta").load(sys.argv[1] + "/files")
featurized = files.where("outcome = 'featurized'")
scores = spark.read.format("delta").load(sys.argv[1] + "/pca/parquet")
counts = {row["outcome"]: row["count"] for row in files.groupBy("outcome").count().collect()}
length = len(featurized.first()["features"])
print(json.dumps({**counts, "scores": scores.count(), "features": length}))
"""


@pytest.mark.slow
def test_spark_reads_an_output_as_delta_with_deltas_own_jar(tmp_path: Path) -> None:
    write_demo_images(tmp_path / "in", images=24, seed=1)
    (tmp_path / "in/notes.txt").write_text("no image")
    photographs = len(list(tmp_path.glob("in/*/*")))
    for limit in (10, None):
        go(tmp_path / "in", tmp_path / "out", limit=limit)
    options = ["--packages", DELTA, "--driver-java-options", trust_store_option().strip()]
    env = {
        **os.environ,
        "JAVA_HOME": str(java_home()),
        "SPARK_LOCAL_IP": "127.0.0.1",
        **BRIEF_JAVA,
        "PYSPARK_SUBMIT_ARGS": shlex.join([*options, "pyspark-shell"]),
    }
    done = subprocess.run(
        [sys.executable, "-c", READ_AS_DELTA, tmp_path / "out"],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {
        "featurized": photographs, "rejected": 1, "scores": photographs, "features": 1280,
    }  # fmt: skip
