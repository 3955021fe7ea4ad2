"""What libraries import on the way and verger never uses: left out of its own processes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from typing import Any

import pyarrow as pa


class _Absent(MetaPathFinder):
    """Says that there is no module of this name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, fullname: str, *_: object) -> None:
        """Refuse the name."""
        if fullname == self.name:
            raise ModuleNotFoundError(fullname)


@contextmanager
def without(name: str) -> Iterator[None]:
    """Take a module for one that is not installed while the block runs, unless it is imported."""
    finder = _Absent(name)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def leave_out_pandas() -> None:
    """Have Arrow take it that pandas is not installed, unless it is imported already.

    At its first array Arrow imports pandas, to see whether what it is given is of pandas: a third
    of a second and 40 MB, in the driver and in each worker. Where `to_pandas` is called later,
    Arrow imports it even so. For verger's own processes: in a program that gives its DataFrames to
    Arrow, they would not be known as such.
    """
    if "pandas" not in sys.modules:
        with without("pandas"):
            pa.array([])


def import_openvino() -> Any:
    """OpenVINO without its converter of models: that takes two thirds of the time of its import."""
    with without("openvino.tools"):
        import openvino
    return openvino
