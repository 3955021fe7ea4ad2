"""Spark's usual jobs: `predict_batch_udf`, and pandas UDFs by batch and by image.

With `--job predict` the network is OpenVINO's graph; `batch` and `image` have Keras' model of the
same weights, which are broadcast. They run in verger's own environment.
"""

import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyspark
from common import Engine, arguments, paths_of, processors, tell, to_pixels
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession
from pyspark.sql.functions import col
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import ArrayType, FloatType

from verger.networks.mobilenet_v2 import model_from_arrays
from verger.networks.weights import find_weights
from verger.spark.java import java_home

make_udf: Any = pandas_udf  # its stubs know no pandas


def pixels_of(contents: pd.Series) -> list[np.ndarray]:
    """The pixels of a batch of files."""
    return [to_pixels(io.BytesIO(data)) for data in contents]


def predict(graph: Path, precision: str) -> Any:
    """`predict_batch_udf`, which keeps a worker's model from batch to batch."""

    def make() -> Callable[..., Any]:
        engine = Engine(graph, precision)
        return lambda contents: engine(to_pixels(io.BytesIO(data)) for data in contents)

    return predict_batch_udf(make, return_type=ArrayType(FloatType()), batch_size=64)


def worker_model(shared: dict[str, Any]) -> Any:
    """The Keras model of this worker; a broadcast value lives as long as its process."""
    if "model" not in shared:
        shared["model"] = model_from_arrays(shared["arrays"], "torch")
    return shared["model"]


def by_batch(shared: Any) -> Any:
    """A scalar-iterator pandas UDF with `model.predict`."""

    def features(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        model = worker_model(shared.value)
        for contents in batches:
            yield pd.Series(list(model.predict(np.stack(pixels_of(contents)), verbose=0)))

    return make_udf(features, "array<float>")


def by_image(shared: Any) -> Any:
    """The usual job: a pandas UDF that calls `model.predict` for each image."""

    def features(contents: pd.Series) -> pd.Series:
        model = worker_model(shared.value)
        found = [model.predict(pixels[None], verbose=0)[0] for pixels in pixels_of(contents)]
        return pd.Series(found)

    return make_udf(features, "array<float>")


if __name__ == "__main__":
    job = sys.argv.pop()
    given = arguments()
    os.environ["JAVA_HOME"] = str(java_home())
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    builder = SparkSession.builder.master(f"local[{processors()}]")
    for name, value in {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.memory": "2g",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "64",
    }.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    if job == "predict":
        featurize = predict(given.graph, given.precision)
    else:
        with np.load(find_weights("bundled").path) as bundled:
            shared = spark.sparkContext.broadcast({"arrays": list(bundled.values())})
        featurize = {"batch": by_batch, "image": by_image}[job](shared)
    files = spark.read.format("binaryFile").load(
        [f"file://{path}" for path in paths_of(given.images)]
    )
    rows = files.repartition(processors()).select(
        "path", featurize(col("content")).alias("features")
    )
    rows.write.parquet(f"file://{given.output}")
    spark.stop()
    tell(versions={"pyspark": pyspark.__version__})
