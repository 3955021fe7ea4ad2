"""PySpark's daemon, with what workers need imported before they are forked from it.

On one machine Spark runs it as `python -m verger.spark.daemon`, in the place of `pyspark.daemon`.
"""

import importlib
import os
import sys
from pathlib import Path

from verger.imports import import_openvino, leave_out_pandas

NEEDED = ("pyarrow.compute", "pyarrow.parquet", "verger.spark.extraction")
"""What workers would import one after the other, each for itself."""


def prefer_installed() -> None:
    """Import PySpark from where pip put it, and not from the archives that Spark puts before it.

    They hold no compiled code, and are read anew before each task.
    """
    home = Path(os.environ.get("SPARK_HOME", ""))
    if (home / "__init__.py").exists() and str(home.parent) in sys.path:
        archives = [entry for entry in sys.path if home in Path(entry).parents]
        for entry in archives:
            sys.path.remove(entry)
            sys.path_importer_cache.pop(entry, None)


if __name__ == "__main__":
    prefer_installed()
    import_openvino()
    for name in NEEDED:
        importlib.import_module(name)
    leave_out_pandas()
    importlib.import_module("pyspark.daemon").manager()
