"""Processes of verger do not import what they have no use for, and who wants it has it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ASKED_LATER = """
import sys
import pyarrow as pa
from verger.imports import leave_out_pandas
leave_out_pandas()
table = pa.table({"a": pa.array([1, None])})
known = "pandas" in sys.modules
frame = table.to_pandas()
print(known, len(frame), pa.table(frame).num_rows)
"""

COMMAND = """
import json, sys
from verger.cli.main import main
sys.argv = ["verger", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
said = {"driver": [name for name in ("pandas", "openvino.tools") if name in sys.modules]}
from pyspark.sql import SparkSession
if spark := SparkSession.getActiveSession():
    def look(_):
        import sys
        return [name for name in ("pandas", "openvino.tools") if name in sys.modules]
    said["worker"] = spark.sparkContext.parallelize([0], 1).map(look).collect()
    def double(batches):
        for frame in batches:
            yield frame * 2
    said["doubled"] = spark.range(3).mapInPandas(double, "id long").toPandas().id.tolist()
print(json.dumps(said))
"""


def run_python(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_who_asks_for_pandas_later_gets_it() -> None:
    assert run_python(ASKED_LATER) == "False 2 2"


def test_a_module_that_was_left_out_can_be_imported_afterwards() -> None:
    code = "from verger.imports import import_openvino; import sys; import_openvino(); "
    code += "left_out = 'openvino.tools' not in sys.modules; "
    code += "from openvino.tools.ovc import convert_model; print(left_out, callable(convert_model))"
    assert run_python(code) == "True True"


def test_a_program_that_uses_verger_has_all_of_openvino() -> None:
    code = "from verger.networks.engines import engine_for; "
    code += "from verger.networks.graph import load_backbone; engine_for(load_backbone()); "
    assert run_python(code + "import openvino; print(callable(openvino.convert_model))") == "True"


@pytest.mark.spark
def test_neither_commands_nor_their_workers_import_it(orchard: Path, tmp_path: Path) -> None:
    """Arrow was asked in each worker: rows of features are made with it."""
    run = ("run", orchard, tmp_path / "out", "--components", "5")
    said = json.loads(run_python(COMMAND, *run, "--master", "local[1]"))
    assert said == {"driver": [], "worker": [[]], "doubled": [0, 2, 4]}
    photograph = next(orchard.rglob("*.jpg"))
    for again in (run, ("classify", photograph, "--in", tmp_path / "out")):
        assert json.loads(run_python(COMMAND, *again)) == {"driver": []}
