"""A notebook for a cluster: what its driver does with it, from parameters to the executed copy."""

import json
import os
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from typer.testing import CliRunner

from verger.cli.main import app
from verger.cloud.jobs.notebook import _check_is_notebook, execute_notebook
from verger.cloud.jobs.submit import notebook_command, submit_arguments
from verger.errors import DeadlineReached, InputError, SetupError
from verger.settings import RunSettings
from verger.store import storage
from verger.store.location import Location

PARAMETERS = {"INPUT": "s3://orchard/it's in", "LIMIT": 3}


def write(folder: Path, *cells: tuple[str, str]) -> Location:
    """A notebook of code cells, each a tag and its source."""
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(source, metadata={"tags": [tag]} if tag else {})
            for tag, source in cells
        ]
    )
    nbformat.write(notebook, folder / "source.ipynb")
    return Location.parse(str(folder / "source.ipynb"))


def execute(folder: Path, *cells: tuple[str, str], deadline: datetime | None = None) -> None:
    execute_notebook(write(folder, *cells), copy_in(folder), PARAMETERS, deadline)


def copy_in(folder: Path) -> Location:
    return Location.parse(str(folder / "done.ipynb"))


def read_copy(folder: Path) -> NotebookNode:
    return nbformat.read(folder / "done.ipynb", as_version=4)


def test_parameters_replace_defaults_and_cells_for_sparkmagic_are_left_out(tmp_path: Path) -> None:
    execute(
        tmp_path,
        ("sparkmagic", "%%configure -f\n{}"),
        ("parameters", "INPUT, LIMIT, OTHER = 'here', None, 5"),
        ("", "print(INPUT, LIMIT, OTHER)"),
    )
    cells = read_copy(tmp_path).cells
    assert [cell.metadata.get("tags") for cell in cells] == [
        ["parameters"],
        ["injected-parameters"],
        None,
    ]
    assert cells[-1].outputs[0].text == "s3://orchard/it's in 3 5\n"


def test_a_cell_that_fails_is_named_and_the_copy_shows_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ZeroDivisionError: division by zero") as caught:
        execute(tmp_path, ("", "print('begun')"), ("", "1 / 0"), ("", "print('never')"))
    assert "done.ipynb" in caught.value.hint
    _, first, failed, last = read_copy(tmp_path).cells
    assert first.outputs[0].text == "begun\n"
    assert failed.outputs[0].ename == "ZeroDivisionError"
    assert not last.outputs


def test_it_is_executed_where_python_does_not_know_its_place(tmp_path: Path, monkeypatch) -> None:
    # As on a cluster, where the packages lie beside the driver.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(sys, "executable", "")
    execute(tmp_path, ("", "import sys\nprint(sys.version_info[:2])"))
    assert read_copy(tmp_path).cells[-1].outputs[0].text == f"{sys.version_info[:2]}\n"


def test_what_an_earlier_execution_left_is_not_in_the_copy(tmp_path: Path) -> None:
    source = write(tmp_path, ("", "1 / 0"), ("", "print('never')"))
    notebook = nbformat.read(source.path, as_version=4)
    notebook.nbformat_minor = 4
    for cell in notebook.cells:
        del cell["id"]
        cell.execution_count = 7
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="of old\n")]
    nbformat.write(notebook, source.path)
    with pytest.raises(InputError, match="ZeroDivisionError"):
        execute_notebook(source, copy_in(tmp_path), PARAMETERS)
    copy = read_copy(tmp_path)
    nbformat.validate(copy)
    assert "of old" not in (tmp_path / "done.ipynb").read_text()
    assert copy.cells[-1].execution_count is None


def test_the_copy_is_there_before_the_end(tmp_path: Path) -> None:
    look = f"print('first'[::-1] in open({str(tmp_path / 'done.ipynb')!r}).read())"
    execute(tmp_path, ("", "print('first'[::-1])"), ("", look))
    assert read_copy(tmp_path).cells[-1].outputs[0].text == "True\n"


def test_a_copy_that_cannot_be_written_once_ends_nothing(tmp_path: Path, monkeypatch) -> None:
    write_bytes, failures = storage.write_bytes, [SetupError("The store failed.")]

    def fail_once(place: Location, content: bytes) -> None:
        if failures:
            raise failures.pop()
        write_bytes(place, content)

    monkeypatch.setattr(storage, "write_bytes", fail_once)
    execute(tmp_path, ("", "print(1)"), ("", "print(2)"))
    assert read_copy(tmp_path).cells[-1].outputs[0].text == "2\n"


@pytest.mark.parametrize(
    "program", [[sys.executable, "-c", "raise SystemExit(1)"], ["/there/is/no/such/program"]]
)
def test_a_kernel_that_does_not_start_is_said(
    tmp_path: Path, monkeypatch, program: list[str]
) -> None:
    folder = tmp_path / "jupyter/kernels/python3"
    folder.mkdir(parents=True)
    broken = {"argv": program, "display_name": "x", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(broken))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    with pytest.raises(SetupError, match="kernel died"):
        execute(tmp_path, ("", "print()"))
    assert len(read_copy(tmp_path).cells) == 2


def test_a_cell_that_outlives_the_deadline_is_ended_and_the_rest_kept(tmp_path: Path) -> None:
    with pytest.raises(DeadlineReached, match="not done before its deadline"):
        execute(
            tmp_path,
            ("", "print('begun')"),
            ("", "import time\ntime.sleep(600)"),
            deadline=datetime.now(timezone.utc),
        )
    assert read_copy(tmp_path).cells[1].outputs[0].text == "begun\n"


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"cells": []}', '{"cells": 3}', '{"cells": [{}]}', "import verger"]
)
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.ipynb").write_text(text)
    with pytest.raises(InputError, match=r"a\.ipynb"):
        _check_is_notebook(tmp_path / "a.ipynb")


def test_a_cluster_understands_what_it_is_told_to_execute(tmp_path: Path) -> None:
    source = write(tmp_path, ("", "print(INPUT, OUTPUT, WEIGHTS, COMPONENTS, LIMIT)"))
    settings = RunSettings(
        input="s3://orchard/in", output=str(tmp_path / "out"), components=5, limit=3
    )
    words = notebook_command(
        settings, source.uri, "a1b2", datetime.now(timezone.utc) + timedelta(hours=1)
    )
    files = {"spark.files": "s3://orchard/code/backbone.zip"}
    submitted = submit_arguments(files, entry="s3://orchard/code/main.py", command=words)
    done = CliRunner().invoke(app, submitted[submitted.index("s3://orchard/code/main.py") + 1 :])
    assert done.exit_code == 0, done.output
    copy = nbformat.read(tmp_path / "out/executed/a1b2.ipynb", as_version=4)
    assert copy.cells[-1].outputs[0].text == (
        f"s3://orchard/in {tmp_path / 'out'} backbone.zip 5 3\n"
    )
