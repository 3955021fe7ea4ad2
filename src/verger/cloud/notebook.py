"""A notebook on a cluster that ends with it: uploaded, executed without a screen, fetched."""

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from verger import storage
from verger.cloud.commands import executed
from verger.cloud.job import RUN_TAG
from verger.cloud.launch import Launch, see_through
from verger.errors import DeadlineReached, InputError, SetupError
from verger.progress import Progress
from verger.storage import Location

SPARKMAGIC, PARAMETERS, INJECTED = "sparkmagic", "parameters", "injected-parameters"
"""Tags of cells: left out here; where papermill puts values in, and what it calls their cell."""


def launch_notebook(asked: Launch, notebook: Path, copy: Path, progress: Progress) -> None:
    """Execute a notebook on a cluster, and fetch the executed copy, of a failed one as well.

    Args:
        asked: the cluster, and the settings that the notebook is given as parameters.
        notebook: on this machine.
        copy: where the executed copy goes on this machine.
        progress: is shown how it stands.

    Raises:
        InputError: the file is no notebook, or a cell failed.
        VergerError: as `launch.launch`.
    """
    _check_is_notebook(notebook)
    ended = see_through(replace(asked, notebook=notebook), progress)
    theirs = executed(asked.run.output, ended.running.tags[RUN_TAG])
    if storage.exists(theirs):
        storage.write_bytes(Location.parse(str(copy)), storage.read_bytes(theirs))
        progress.note(f"The executed copy is {copy}, and {theirs}.")
    if ended.problem is not None:
        raise ended.problem


def _check_is_notebook(file: Path) -> None:
    try:
        cells = json.loads(file.read_bytes())["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is no notebook of Jupyter.", "Give an .ipynb file.") from error
    if not isinstance(cells, list) or not cells:
        raise InputError(f"{file} has no cells.", "Give a notebook that does something.")


def execute_notebook(
    source: Location,
    target: Location,
    parameters: Mapping[str, object],
    deadline: datetime | None = None,
) -> None:
    """Execute a notebook in a kernel beside this process, as the driver of a cluster does.

    Cells for sparkmagic are left out, and the parameters follow the cell that has their defaults.
    The copy is written however it ends.

    Raises:
        InputError: it is no notebook, or a cell failed.
        DeadlineReached: it was not done in time.
        SetupError: there is no Jupyter here, or its kernel died.
    """
    try:
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    except ImportError as error:
        raise SetupError("Jupyter is missing.", "pip install nbclient ipykernel") from error

    try:
        notebook: Any = nbformat.reads(storage.read_bytes(source), as_version=4)
    except ValueError as error:
        raise InputError(f"{source} is no notebook of Jupyter.", "Upload it again.") from error
    notebook.cells = _with_parameters(
        [cell for cell in notebook.cells if SPARKMAGIC not in _tags(cell)],
        nbformat.v4.new_code_cell(
            "".join(f"{name} = {value!r}\n" for name, value in parameters.items()),
            metadata={"tags": [INJECTED]},
        ),
    )

    def seconds_left(_: object) -> float | None:
        return max((deadline - datetime.now(UTC)).total_seconds(), 1) if deadline else None

    # Where PATH is not set, as it may be in YARN's containers, Python does not know where it is.
    sys.executable = sys.executable or str(Path("/proc/self/exe").resolve())
    client = NotebookClient(notebook, timeout_func=seconds_left, kernel_name="python3")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            # A process of YARN has no home that it may write to.
            client.execute(env={**os.environ, "IPYTHONDIR": scratch})
    except CellTimeoutError as error:
        raise DeadlineReached(
            "The notebook was not done before its deadline.",
            "Give a higher --max-cost, fewer images or more workers.",
        ) from error
    except CellExecutionError as error:
        raise InputError(
            f"A cell of the notebook failed: {error.ename}: {error.evalue}",
            f"Its executed copy shows where: {target}",
        ) from error
    except DeadKernelError as error:
        raise SetupError("The notebook's kernel died.", "Look at its memory.") from error
    finally:
        storage.write_bytes(target, nbformat.writes(notebook).encode())


def _with_parameters(cells: list[Any], injected: Any) -> list[Any]:
    places = [number for number, cell in enumerate(cells) if PARAMETERS in _tags(cell)]
    place = places[0] + 1 if places else 0
    return [*cells[:place], injected, *cells[place:]]


def _tags(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", ()))
