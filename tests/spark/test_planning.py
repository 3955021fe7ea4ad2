"""How what is to be done is cut into waves, in this process and on Spark."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from verger.output.layout import LISTING_SCHEMA, DataFile, Output
from verger.spark.changes import plan_waves
from verger.spark.comparison import _COMPARED, CHANGED, GONE, NEW, SAME, Comparison
from verger.spark.reading import FILE, Reader, whole
from verger.spark.scan import Scan
from verger.spark.writing import write_here
from verger.store.location import Location

WAVE = 25
STATES = {"first": (NEW,), "later": (NEW, CHANGED, SAME, GONE)}

Rows = list[dict[str, Any]]


def paths(states: tuple[str, ...], *, packed: bool) -> pa.Table:
    """A hundred paths beside a table of six files; packed, those of ten are in one row group."""
    rows = []
    for number in range(100):
        state = states[number % len(states)]
        row = {"path": f"{number:03}", "state": state}
        if state != NEW:
            row |= {"file": f"file-{number % 6}", "outcome": "featurized"}
        if state != GONE:
            row |= {"label": "a", "size": 1}
            row |= {"shard": "s", "row_group": number // 10, "row": number % 10} if packed else {}
        rows.append(dict.fromkeys(_COMPARED.names) | row)
    return pa.Table.from_pylist(rows, _COMPARED)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("on_spark", [False, True])
def test_waves_have_what_is_to_be_done_once_and_keep_together_what_is_read_together(
    spark: SparkSession, tmp_path: Path, kind: str, *, packed: bool, on_spark: bool
) -> None:
    rows = paths(STATES[kind], packed=packed)
    counts = Counter((state, None, None) for state in rows["state"].to_pylist())
    output, folder = Output(Location(str(tmp_path / "out"))), Location(str(tmp_path / "rows"))
    files = write_here(folder, rows.to_batches()) if on_spark else []
    shown = Scan.of_files(spark, folder, _COMPARED, files).rows() if on_spark else rows
    waves = plan_waves(Comparison(shown, counts), output, WAVE, prune=True, packed=packed)
    schema = pa.schema([*LISTING_SCHEMA, FILE])

    def read(files: tuple[DataFile, ...]) -> Rows:
        return Reader(output.work, schema).table(whole(files)).to_pylist()

    images = [read(wave.images) for wave in waves]
    retired = [read(wave.retired) for wave in waves]
    wanted = {"images": (NEW, CHANGED), "retired": (CHANGED, GONE)}
    for what, found in (("images", images), ("retired", retired)):
        expected = [row["path"] for row in rows.to_pylist() if row["state"] in wanted[what]]
        assert sorted(row["path"] for wave in found for row in wave) == expected
    assert len(waves) > 1
    for key in ("file",) if kind == "later" else ("row_group",) if packed else ():
        of_waves = [{row[key] for row in wave} for wave in (retired if key == "file" else images)]
        assert sum(map(len, of_waves)) == len(set().union(*of_waves)), "a wave has all of each"
    if packed:
        for wave in images:
            assert [row["row"] for row in wave] == [
                row["row"] for row in sorted(wave, key=lambda row: (row["row_group"], row["row"]))
            ]
