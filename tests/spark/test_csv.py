"""The matrix as CSV, for programs and for people."""

import csv
import io
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from helpers import go
from verger.output.layout import SCORES_SCHEMA
from verger.spark.matrix import DIALECTS, to_lines

NAMES = ["=1+1", "+33 6", "-a", "@SUM(A1)", "\tx", "Pêche;mûre", 'a "b"', "a,b", "c\nd", "NA", "é"]
SCORES = [[-0.5, 1e-30], [1234567.25, -2.0]]


def lines(dialect: str) -> str:
    rows = [
        {"path": f"{name}/1.jpg", "label": name, "pca": SCORES[number % 2]}
        for number, name in enumerate(NAMES)
    ]
    batch = pa.RecordBatch.from_pylist(rows, SCORES_SCHEMA)
    return DIALECTS[dialect].mark + to_lines(batch, DIALECTS[dialect])


def test_the_standard_dialect_keeps_names_as_they_are() -> None:
    rows = list(csv.reader(io.StringIO(lines("standard"), newline="")))
    assert [row[1] for row in rows] == NAMES
    assert [[float(cell) for cell in row[2:]] for row in rows[:2]] == SCORES


def test_the_dialect_of_excel_has_numbers_with_commas_and_no_formulas() -> None:
    text = lines("excel-fr")
    assert text.encode().startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=";"))
    assert [row[1] for row in rows] == [f"'{name}" for name in NAMES[:5]] + NAMES[5:]
    assert all(row[0] == f"{row[1]}/1.jpg" for row in rows)
    assert rows[0][2:] == ["-0,5", "1e-30"]
    assert [float(cell.replace(",", ".")) for cell in rows[1][2:]] == SCORES[1]


@pytest.mark.usefixtures("spark")
def test_the_matrix_is_written_anew_in_another_dialect(orchard: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    go(orchard, output, components=2, limit=8)
    file = str(output / "pca/matrix.csv")
    standard = pd.read_csv(file, keep_default_na=False, float_precision="round_trip")
    go(orchard, output, components=2, limit=8, csv_dialect="excel-fr")
    assert (
        (output / "pca/matrix.csv").read_bytes().startswith(b"\xef\xbb\xbfpath;label;pc_1;pc_2\n")
    )
    # As docs/output.md has it.
    ways = {
        "pandas": pd.read_csv(
            file, sep=";", decimal=",", keep_default_na=False, float_precision="round_trip"
        ),
        "polars": pl.read_csv(file, separator=";", decimal_comma=True).to_pandas(),
        "DuckDB": duckdb.execute(
            "SELECT * FROM read_csv(?, delim=';', decimal_separator=',', header=true)", [file]
        ).df(),
    }
    for way, read in ways.items():
        assert read.columns.tolist() == standard.columns.tolist(), way
        assert read.path.tolist() == standard.path.tolist(), way
        np.testing.assert_allclose(read[["pc_1", "pc_2"]], standard[["pc_1", "pc_2"]], err_msg=way)
    again = go(orchard, output, components=2, limit=8, csv_dialect="excel-fr")
    assert again.counts.reused == 8
