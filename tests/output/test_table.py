"""The open table: what counts, who wins, what is left, and who else can read it."""

import json
import os
import time
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from pyspark.sql import SparkSession

from verger.errors import DefectError, SetupError, UsageError
from verger.output.delta import options
from verger.output.layout import FILES_SCHEMA, DataFile
from verger.output.table import Table
from verger.spark.writing import merge_files, write_here
from verger.store.location import Location

ERASED = "kitchen/me-in-the-mirror.jpg"


def open_table(folder: Path, **writer: object) -> Table:
    return Table(Location(str(folder / "files")), FILES_SCHEMA, partition="outcome", **writer)


def write_some(folder: Path, *paths: str, outcome: str = "featurized") -> list[DataFile]:
    """Rows as a task writes them."""
    features = None if outcome == "rejected" else np.full(1280, len(paths), np.float32)
    rows = [
        {
            "path": path,
            "label": path.partition("/")[0],
            "features": features,
            "reason": None if features is not None else "corrupt",
            "size": 1,
            "outcome": outcome,
        }
        for path in paths
    ]
    batch = pa.RecordBatch.from_pylist(rows, FILES_SCHEMA)
    return write_here(Location(str(folder / "files")), [batch], "outcome")


@pytest.fixture
def table(tmp_path: Path) -> Table:
    made = open_table(tmp_path, said={"run": "first"})
    made.create({"precision": "f32", "input": "/images"})
    return made


def paths_of(table: Table, part: str = "featurized") -> list[str]:
    return sorted(table.dataset(part).to_table(columns=["path"])["path"].to_pylist())


def test_rows_count_from_the_commit_on_that_names_their_file(table: Table, tmp_path: Path) -> None:
    files = [*write_some(tmp_path, "a/1", "a/2"), *write_some(tmp_path, "b/3", outcome="rejected")]
    assert open_table(tmp_path).counts().total() == 0
    table.commit(files, [])
    again = open_table(tmp_path)
    assert again.counts() == {"featurized": 2, "rejected": 1}
    assert paths_of(again) == ["a/1", "a/2"]
    assert again.properties == {"precision": "f32", "input": "/images"}
    latest = DeltaTable(tmp_path / "files").history()[0]
    assert (latest["run"], latest["featurized"], latest["rejected"]) == ("first", 2, 1)


def test_a_commit_replaces_and_adds_at_once(table: Table, tmp_path: Path) -> None:
    table.commit(old := write_some(tmp_path, "a/1", "a/2"), [])
    before = table.version
    table.commit(write_some(tmp_path, "a/1", "a/3"), old)
    assert table.version == before + 1
    assert paths_of(table) == ["a/1", "a/3"]


def test_of_two_writers_at_one_version_one_wins_and_the_other_is_told(
    table: Table, tmp_path: Path
) -> None:
    table.commit(write_some(tmp_path, "a/0"), [])
    one, other = open_table(tmp_path), open_table(tmp_path)
    one.commit(write_some(tmp_path, "a/1"), [])
    with pytest.raises(SetupError, match="Another process has changed the table"):
        other.commit(write_some(tmp_path, "a/2"), [])
    with pytest.raises(SetupError, match="Another process has changed the table"):
        other.set_properties({"precision": "bf16"})
    assert paths_of(open_table(tmp_path)) == ["a/0", "a/1"]


def test_a_commit_whose_answer_was_lost_is_known_again(
    table: Table, tmp_path: Path, monkeypatch
) -> None:
    commit = DeltaTable.create_write_transaction

    def lose_answer(*arguments: object, **options: object) -> None:
        commit(*arguments, **options)
        raise CommitFailedError("version exists already")

    with monkeypatch.context() as patch:
        patch.setattr(DeltaTable, "create_write_transaction", lose_answer)
        table.commit(write_some(tmp_path, "a/1"), [])
    table.commit(write_some(tmp_path, "a/2"), [])
    assert paths_of(open_table(tmp_path)) == ["a/1", "a/2"]


def test_small_files_are_merged_and_the_folder_holds_what_counts_alone(
    spark: SparkSession, table: Table, tmp_path: Path
) -> None:
    for number in range(6):
        table.commit(write_some(tmp_path, f"a/{number}"), [])
    table.commit(write_some(tmp_path, "b/bad", outcome="rejected"), [])
    write_some(tmp_path, "a/of-a-killed-run")
    folder = tmp_path / "files/outcome=featurized"
    (folder / ".half.parquet.partial").write_bytes(b"PAR1")
    assert not merge_files(lambda: pytest.fail("Spark is not needed"), table, 6)
    assert merge_files(lambda: spark, table, 5)
    # Whoever follows the table sees no change: one file more, six fewer.
    commit = max((tmp_path / "files/_delta_log").glob("*.json"))
    actions = [json.loads(line) for line in commit.read_text().splitlines()]
    said = [action[kind] for action in actions for kind in ("add", "remove") if kind in action]
    assert [entry["dataChange"] for entry in said] == [False] * 7
    assert table.vacuum(0) == 8
    assert len(list(folder.iterdir())) == len(table.files("featurized")) == 1
    assert table.counts() == {"featurized": 6, "rejected": 1}
    assert len(pd.read_parquet(folder)) == 6
    # And it goes on from there.
    table.commit(write_some(tmp_path, "a/6"), [])
    assert paths_of(open_table(tmp_path)) == [f"a/{number}" for number in range(7)]


def test_rows_that_a_task_loses_are_not_lost_by_merging(
    spark: SparkSession, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        table.commit(write_some(tmp_path, f"a/{number}"), [])
    monkeypatch.setattr("verger.spark.writing.write", lambda *_: [])
    with pytest.raises(DefectError, match="6 rows were to be written, and 0 were"):
        merge_files(lambda: spark, table, 5)
    assert table.counts() == {"featurized": 6}


def test_retired_files_may_be_kept_for_those_who_read_them(table: Table, tmp_path: Path) -> None:
    table.commit(old := write_some(tmp_path, "a/1"), [])
    seen = DeltaTable(str(tmp_path / "files"))
    table.commit(write_some(tmp_path, "a/2"), old)
    assert table.vacuum(1) == 0
    assert seen.to_pyarrow_table()["path"].to_pylist() == ["a/1"]
    assert table.vacuum(0) == 1
    assert not (tmp_path / "files" / old[0].name).exists()


def test_what_another_writer_has_not_committed_yet_is_not_deleted(
    table: Table, tmp_path: Path
) -> None:
    table.commit(write_some(tmp_path, "a/1"), [])
    theirs = write_some(tmp_path, "a/2")

    def lease_is_lost() -> None:
        raise SetupError("another process took the output over")

    with pytest.raises(SetupError, match="took the output over"):
        open_table(tmp_path, check=lease_is_lost).vacuum(0)
    assert (tmp_path / "files" / theirs[0].name).exists()


def test_an_erased_path_is_in_no_byte_that_is_left(
    spark: SparkSession, table: Table, tmp_path: Path
) -> None:
    table.commit(old := write_some(tmp_path, ERASED, "a/1"), [])
    for number in range(12):  # a checkpoint is among them
        table.commit(write_some(tmp_path, f"b/{number}"), [])
    table.commit(write_some(tmp_path, "a/1"), old)
    assert merge_files(lambda: spark, table, 1)
    table.vacuum(0)
    log = tmp_path / "files/_delta_log"
    assert list(log.glob("*.checkpoint.parquet"))
    for file in (tmp_path / "files").rglob("*"):
        if file.suffix == ".parquet":
            assert ERASED not in str(pq.read_table(file, partitioning=None).to_pylist())
        elif file.is_file():
            assert ERASED.encode() not in file.read_bytes()
    # No statistics of names, wherever they would be: neither is one that was not erased.
    assert not [file for file in log.iterdir() if b"b/11" in file.read_bytes()]


def test_others_read_it(table: Table, tmp_path: Path) -> None:
    names = [f"a/{number}" for number in range(5)]
    table.commit(write_some(tmp_path, *names), [])
    table.commit(write_some(tmp_path, "b/bad", outcome="rejected"), [])
    place, features = tmp_path / "files", tmp_path / "files/outcome=featurized"

    frame = pl.read_delta(str(place)).filter(pl.col("outcome") == "featurized")
    assert sorted(frame["path"]) == names
    assert len(frame["features"][0]) == 1280
    assert len(DeltaTable(str(place)).to_pandas()) == 6
    for read in (pd.read_parquet, lambda folder: pq.read_table(folder).to_pandas()):
        assert sorted(read(features).path) == names
    of_table = [str(place / file.name) for file in table.files()]
    counts = (
        duckdb.read_parquet(of_table, hive_partitioning=True)
        .aggregate("outcome, count(*)", "outcome")
        .fetchall()
    )
    assert dict(counts) == {"featurized": 5, "rejected": 1}
    # As a reader that knows no Delta and no Python's schema would see them.
    assert pq.read_schema(of_table[0]).field("features").type == pa.list_(pa.float32())


def test_the_log_forgets_what_is_older_than_a_month(table: Table, tmp_path: Path) -> None:
    log = tmp_path / "files/_delta_log"
    for number in range(25):
        table.commit(write_some(tmp_path, f"a/{number}"), [])
        for file in log.iterdir():
            at = time.time() - 40 * 24 * 3600
            os.utime(file, (at, at))
    for number in range(25, 40):
        table.commit(write_some(tmp_path, f"a/{number}"), [])
    assert len(list(log.glob("*.json"))) < 30
    assert len(paths_of(open_table(tmp_path))) == 40


def test_a_damaged_log_is_said_in_a_line(table: Table, tmp_path: Path) -> None:
    (tmp_path / "files/_delta_log/00000000000000000000.json").write_text("{")
    with pytest.raises(SetupError, match="cannot be used") as raised:
        open_table(tmp_path)
    assert str(tmp_path / "files") in raised.value.message


def test_a_name_that_delta_cannot_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="%"):
        open_table(tmp_path / "a%20b")
    made = open_table(tmp_path / "100% [é] {x}")
    made.create({})
    made.commit(write_some(tmp_path / "100% [é] {x}", "a/1"), [])
    assert paths_of(open_table(tmp_path / "100% [é] {x}")) == ["a/1"]


def test_a_table_that_is_deleted_is_no_table(table: Table, tmp_path: Path) -> None:
    table.commit(write_some(tmp_path, "a/1"), [])
    table.delete()
    assert not table.exists
    assert not (tmp_path / "files").exists()
    table.create({"precision": "bf16"})
    assert json.loads(json.dumps(open_table(tmp_path).properties)) == {"precision": "bf16"}


def test_a_volume_of_unity_catalog_is_committed_to_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert options(Location("/Volumes/main/a/b"))
    assert options(Location("/data/Volumes/main")) is None
    monkeypatch.setattr("verger.output.delta.WITHOUT_LINKS", (str(tmp_path),))
    table = open_table(tmp_path)
    table.create({})
    table.commit(write_some(tmp_path, "a/1.jpg"), [])
    assert open_table(tmp_path).counts() == {"featurized": 1}
