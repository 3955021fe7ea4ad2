"""What libraries import on the way and verger never uses: left out of its own processes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import MetaPathFinder

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

    At its first array Arrow imports pandas, to see whether what it is given is of pandas. Where
    `to_pandas` is called later, it imports it even so. For verger's own processes: in a program
    that gives its DataFrames to Arrow, they would not be known as such.
    """
    with without("pandas"):
        pa.array([])


def import_openvino() -> None:
    """Import OpenVINO without its converter of models, which takes most of the time of that.

    For verger's own processes too: `openvino.convert_model` is not there afterwards.
    """
    with without("openvino.tools"):
        import_module("openvino")
