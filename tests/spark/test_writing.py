"""Which small files of a table are merged together, and what tasks write."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from verger.errors import DefectError
from verger.output.layout import DataFile
from verger.spark import writing
from verger.spark.writing import check_rows, group_files, write_here
from verger.store.location import Location


def test_files_of_one_partition_are_grouped_up_to_a_number_of_rows_and_none_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writing, "MERGED_ROWS", 10)
    rows = {"a": [4, 4, 4, 4, 4], "b": [3], "c": [1, 1]}
    files = [
        DataFile(f"{part}/{number}", 1, count, part)
        for part, of_part in rows.items()
        for number, count in enumerate(of_part)
    ]
    names = [[file.name for file in group] for group in group_files(files)]
    assert names == [["a/0", "a/1", "a/2"], ["a/3", "a/4"], ["c/0", "c/1"]]
    assert group_files([]) == []


def test_a_task_holds_so_many_bytes_and_writes_all_rows_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "HELD_BYTES", 400)
    batches = [
        pa.RecordBatch.from_pydict({"number": range(first, first + 20), "part": ["a", "b"] * 10})
        for first in range(0, 100, 20)
    ]
    size = batches[0].nbytes
    assert size < 400 < 2 * size
    written = write_here(Location(str(tmp_path)), batches, "part")
    assert [(file.part, file.rows) for file in written] == [
        ("a", 20), ("b", 20), ("a", 20), ("b", 20), ("a", 10), ("b", 10),
    ]  # fmt: skip
    for part, first in (("a", 0), ("b", 1)):
        files = [tmp_path / file.name for file in written if file.part == part]
        numbers = pd.concat(pd.read_parquet(file) for file in files).number
        assert list(numbers) == list(range(first, 100, 2))


@pytest.mark.parametrize("count", [19, 21])
def test_files_with_other_rows_than_there_were_are_not_committed(count: int) -> None:
    files = [DataFile("a", 1, 5), DataFile("b", 1, 15)]
    check_rows(files, 20)
    with pytest.raises(DefectError, match=f"{count} rows were to be written, and 20 were"):
        check_rows(files, count)
