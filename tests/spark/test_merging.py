"""Which small files of a table are merged together."""

import pytest

from verger.output.layout import DataFile
from verger.spark import merging
from verger.spark.merging import group_files


def test_files_of_one_partition_are_grouped_up_to_a_size_and_none_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(merging, "MERGED_BYTES", 10)
    sizes = {"a": [4, 4, 4, 4, 4], "b": [3], "c": [1, 1]}
    files = [
        DataFile(f"{part}/{number}", size, 1, part)
        for part, of_part in sizes.items()
        for number, size in enumerate(of_part)
    ]
    names = [[file.name for file in group] for group in group_files(files)]
    assert names == [["a/0", "a/1", "a/2"], ["a/3", "a/4"], ["c/0", "c/1"]]
    assert group_files([]) == []
