"""A notebook on a cluster that ends with it: uploaded, executed without a screen, fetched."""

import atexit
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from verger.cloud.jobs.job import RUN_TAG
from verger.cloud.jobs.launch import see_through
from verger.cloud.jobs.prepare import Launch
from verger.cloud.jobs.submit import executed
from verger.errors import DeadlineReached, InputError, SetupError, UsageError, VergerError
from verger.progress import Progress, utc_now
from verger.store import storage
from verger.store.location import Location

SPARKMAGIC, PARAMETERS, INJECTED = "sparkmagic", "parameters", "injected-parameters"
"""Tags of cells: left out here; where papermill puts values in, and what it calls their cell."""

FIRST_WITH_IDS = (4, 5)
"""The version of the format from which cells have ids."""

STARTUP_SECONDS = 180
"""What a kernel may take to start beside a driver."""


def launch_notebook(wanted: Launch, notebook: Path, copy: Path, progress: Progress) -> None:
    """Execute a notebook on a cluster, and fetch the executed copy, of a failed one as well.

    It is given the settings as parameters.

    Raises:
        InputError: the file is no notebook, or a cell failed.
        UsageError: the copy cannot be written there, or something else works on the output.
        VergerError: as `launch.launch`.
    """
    _check_is_notebook(notebook)
    _check_copy(copy, notebook)
    ended = see_through(replace(wanted, notebook=notebook), progress)
    theirs = executed(wanted.run.output, ended.running.tags[RUN_TAG])
    try:
        copy.write_bytes(storage.read_bytes(theirs))
    except (OSError, VergerError) as error:
        raise ended.problem or SetupError(
            f"The executed copy {theirs} cannot be fetched: {error}",
            "No machine runs any more. Look for it there.",
        ) from error
    progress.note(f"The executed copy is {copy}, and {theirs}.")
    if ended.problem is not None:
        raise ended.problem


def _check_is_notebook(file: Path) -> None:
    """As far as that goes without Jupyter, which this machine may not have."""
    try:
        cells = json.loads(file.read_bytes())["cells"]
        kinds = {cell["cell_type"] for cell in cells if isinstance(cell["metadata"], dict)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is no notebook of Jupyter.", "Give an .ipynb file.") from error
    if "code" not in kinds:
        raise InputError(f"{file} has no cell with code.", "Give a notebook that does something.")


def _check_copy(copy: Path, notebook: Path) -> None:
    folder = copy.resolve().parent
    if copy.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"The executed copy cannot be {copy}.", "Give --copy FILE.ipynb.")
    if copy.resolve() == notebook.resolve():
        raise UsageError(f"The copy would replace {notebook}.", "Give --copy another file.")


def execute_notebook(
    source: Location,
    target: Location,
    parameters: Mapping[str, object],
    deadline: datetime | None = None,
) -> None:
    """Execute a notebook in a kernel beside this process, as the driver of a cluster does.

    Cells for sparkmagic are left out, and the parameters follow the cell that has their defaults.
    The copy is written after each cell, so that it is there however this ends.

    Raises:
        InputError: it is no notebook, or a cell failed.
        DeadlineReached: it was not done in time.
        SetupError: there is no Jupyter here, or its kernel died.
    """
    try:
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, CellTimeoutError
    except ImportError as error:
        raise SetupError("Jupyter is missing.", "pip install nbclient ipykernel") from error

    try:
        notebook: Any = nbformat.reads(storage.read_bytes(source), as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        raise InputError(f"{source} is no notebook of Jupyter.", "Save it again.") from error
    injected = nbformat.v4.new_code_cell(
        "".join(f"{name} = {value!r}\n" for name, value in parameters.items()),
        metadata={"tags": [INJECTED]},
    )
    if (notebook.nbformat, notebook.nbformat_minor) < FIRST_WITH_IDS:
        del injected["id"]
    cells = [_unexecuted(cell) for cell in notebook.cells if SPARKMAGIC not in _tags(cell)]
    after = (place for place, cell in enumerate(cells, start=1) if PARAMETERS in _tags(cell))
    cells.insert(next(after, 0), injected)
    notebook.cells = cells

    def write_copy() -> None:
        storage.write_bytes(target, nbformat.writes(notebook).encode())

    def try_to_write_copy(**_: object) -> None:
        with suppress(OSError, VergerError):  # the last one counts
            write_copy()

    def seconds_left(_: object) -> float | None:
        return max((deadline - utc_now()).total_seconds(), 1) if deadline else None

    # Where PATH is not set, as it may be in YARN's containers, Python does not know where it is.
    sys.executable = sys.executable or str(Path("/proc/self/exe").resolve())
    client = NotebookClient(
        notebook,
        timeout_func=seconds_left,
        kernel_name="python3",
        startup_timeout=STARTUP_SECONDS,
        on_cell_executed=try_to_write_copy,
    )
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
    except (RuntimeError, OSError) as error:
        raise SetupError(f"The notebook's kernel died: {error}", "Look at its memory.") from error
    finally:
        # Where the kernel did not start it stays registered, and fails when Python ends.
        atexit.unregister(client._cleanup_kernel)
        write_copy()


def _unexecuted(cell: Any) -> Any:
    """Without what an earlier execution left, which would look like this one's."""
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None
    return cell


def _tags(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", ()))
