"""The notebook of the deliverables, executed whole here; on a cluster by `test_yarn.py`."""

import json
import re
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest

from helpers import matrix_of
from verger.cloud.jobs.submit import spark_properties

NOTEBOOK = Path(__file__).parents[2] / "notebooks/verger_emr.ipynb"


def execute(folder: Path, **parameters: object) -> str:
    """Execute the notebook without the cells for sparkmagic; returns what it printed."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "sparkmagic" not in tags_of(cell)]
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / "source.ipynb")
    done = papermill.execute_notebook(
        folder / "source.ipynb", folder / "done.ipynb", parameters, kernel_name="python3",
        progress_bar=False,
    )  # fmt: skip
    outputs = [out for cell in done.cells if cell.cell_type == "code" for out in cell.outputs]
    drawn = [out for out in outputs if "image/svg+xml" in out.get("data", {})]
    assert len(drawn) == 2
    return "".join(out.text for out in outputs if out.output_type == "stream")


def tags_of(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch) -> None:
    """A kernel of this Python, whatever else the user has installed."""
    from ipykernel.kernelspec import write_kernel_spec

    write_kernel_spec(str(tmp_path / "jupyter/kernels/python3"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))


def test_it_is_committed_without_outputs_and_with_its_tags() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert [tags_of(cell) for cell in code[:2]] == [["sparkmagic"], ["parameters"]]
    assert code[0].source.startswith("%%configure -f\n{")
    assert not any(cell.source.startswith("%") for cell in code[1:])


def test_sparkmagic_is_told_what_spark_submit_is() -> None:
    cell = nbformat.read(NOTEBOOK, as_version=4).cells[3]
    told = json.loads(cell.source.removeprefix("%%configure -f"))["conf"]
    place = "s3://mon-seau/_verger/code"
    wanted = spark_properties(
        region="eu-west-3",
        environment=f"{place}/environment-arm64.tar.gz",
        code=f"{place}/verger.zip",
        backbone=f"{place}/backbone.zip",
    )
    threads = {name: "1" for name in told if name.endswith("_NUM_THREADS")}
    assert len(threads) == 2
    assert told == wanted | threads


def test_on_a_laptop_it_gives_what_a_run_gives(kernels, orchard, sound, tmp_path: Path) -> None:
    output = tmp_path / "out"
    said = execute(tmp_path / "papers", INPUT=str(orchard), OUTPUT=str(output), COMPONENTS=5)
    assert "24 images, 4 étiquettes" in said
    assert "100.0 % de réponses justes" in said
    assert re.search(r"(.+)/r_0_100.jpg → \1 \d+ %", said)
    assert "24 images, écart le plus grand : 0.0" in said
    assert_same_matrix(output, sound)
    for name in ("eboulis", "carte"):
        assert (output / f"figures/{name}.svg").read_text().startswith("<svg")


def assert_same_matrix(left: Path, right: Path) -> None:
    ours, theirs = matrix_of(left), matrix_of(right)
    pd.testing.assert_frame_equal(ours, theirs, atol=1e-9, rtol=0)
