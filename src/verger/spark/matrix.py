"""The matrix on disk: scores as Parquet and CSV, the variance, and the model."""

import csv
import io
import shutil

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - the name that PySpark's users know

from verger import storage
from verger.results import MATRIX_ROWS, Output
from verger.spark.model import to_spark_model
from verger.spark.pca import SCORES, Pca, Projection
from verger.spark.session import spark_path, spark_target

# RFC 4180: a quote is doubled, and nothing of a name is trimmed.
CSV_OPTIONS: dict[str, bool | str] = {
    "header": True,
    "escape": '"',
    "emptyValue": "",
    "ignoreLeadingWhiteSpace": False,
    "ignoreTrailingWhiteSpace": False,
}


def remove_matrix(output: Output) -> None:
    """Delete the matrix and the model of an earlier run."""
    storage.delete(output.pca)
    storage.delete(output.model)


def remove_scores(output: Output) -> None:
    """Delete the matrix of an earlier run; its model and variance stay."""
    for folder in (output.pca.child("csv"), output.pca.child("parquet"), output.matrix_csv):
        storage.delete(folder)


def write_scores(scores: DataFrame, output: Output) -> None:
    """Write `pca/parquet`."""
    scores.write.parquet(spark_target(output.pca.child("parquet")))


def write_csv(spark: SparkSession, output: Output, components: int, rows: int) -> None:
    """Write `pca/csv`, sorted by path, from `pca/parquet`, and `pca/matrix.csv` if not too long."""
    folder = output.pca.child("csv")
    scores = spark.read.schema(SCORES).parquet(spark_path(output.pca.child("parquet")))
    header = ["path", "label", *(f"pc_{index + 1}" for index in range(components))]
    columns = [F.col("pca")[index].alias(f"pc_{index + 1}") for index in range(components)]
    table = scores.orderBy("path").select("path", "label", *columns)
    table.write.options(**CSV_OPTIONS).csv(spark_target(folder))
    if rows <= MATRIX_ROWS:
        _concatenate(folder, output.matrix_csv, f"{','.join(header)}\n".encode())


def write_variance(pca: Pca, output: Output) -> None:
    """Write `pca/variance.csv`, a row a component kept, and `pca/spectrum.csv`, of all."""
    kept = pca.components.shape[1]
    lines = []
    cumulative = pca.explained_variance_ratio.cumsum()
    for index, (variance, ratio) in enumerate(
        zip(pca.explained_variance, pca.explained_variance_ratio, strict=True)
    ):
        lines.append([index + 1, float(variance), float(ratio), float(cumulative[index])])
    for name, count in (("variance.csv", kept), ("spectrum.csv", len(lines))):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            ["component", "explained_variance", "explained_variance_ratio", "cumulative_ratio"]
        )
        writer.writerows(lines[:count])
        storage.write_bytes(output.pca.child(name), text.getvalue().encode())


def write_model(pca: Projection, spark: SparkSession, output: Output) -> None:
    """Write `model/`, a `PipelineModel` that plain PySpark loads."""
    to_spark_model(pca, spark).save(spark_target(output.model))


def _concatenate(folder: storage.Location, target: storage.Location, header: bytes) -> None:
    """Join the parts, which are in order, under one header."""
    files = storage.file_system(folder)
    with files.open_output_stream(target.path) as joined:
        joined.write(header)
        for name in storage.names(folder):
            if not name.startswith("part-"):
                continue
            with files.open_input_stream(folder.child(name).path) as part:
                first = part.read(len(header))
                joined.write(b"" if first == header else first)
                shutil.copyfileobj(part, joined)
