"""The PCA as a standard Spark ML model, which plain PySpark loads."""

from typing import Any

import numpy as np
from pyspark.ml import PipelineModel
from pyspark.ml.common import _py2java
from pyspark.ml.feature import PCAModel, StandardScalerModel
from pyspark.ml.linalg import DenseMatrix, DenseVector, Vectors
from pyspark.ml.wrapper import JavaParams
from pyspark.sql import SparkSession

from verger import storage
from verger.errors import UsageError
from verger.spark.pca import Projection
from verger.spark.session import spark_path
from verger.storage import Location


def to_spark_model(pca: Projection, spark: SparkSession) -> PipelineModel:
    """The PCA as Spark ML's own classes: features -> centred -> pca, vectors all of them.

    Spark offers no constructor for a model that it did not fit; its Scala classes do.
    """
    d, k = pca.components.shape

    def java(name: str, *values: Any) -> Any:
        uid = f"verger_{name.rpartition('.')[2]}"
        return JavaParams._new_java_obj(
            name, uid, *(_py2java(spark.sparkContext, value) for value in values)
        )

    scaler = StandardScalerModel(
        java(
            "org.apache.spark.ml.feature.StandardScalerModel",
            Vectors.dense(np.ones(d)),
            Vectors.dense(pca.mean),
        )
    )
    scaler._set(withMean=True, withStd=False, inputCol="features", outputCol="centred")
    reducer = PCAModel(
        java(
            "org.apache.spark.ml.feature.PCAModel",
            DenseMatrix(d, k, pca.components.ravel(order="F")),
            DenseVector(pca.explained_variance_ratio[:k]),
        )
    )
    reducer._set(k=k, inputCol="centred", outputCol="pca")
    return PipelineModel([scaler, reducer])


def find_model(place: Location) -> Location:
    """The `model/` folder that a place is, or holds.

    Raises:
        UsageError: there is none.
    """
    for folder in (place.child("model"), place):
        if is_whole(folder):
            return folder
    raise UsageError(
        f"{place} holds no fitted PCA.", "Give the output folder of a run that is complete."
    )


def is_whole(model: Location) -> bool:
    """Whether a model was saved to its end: the data of its last stage is there."""
    stages = model.child("stages")
    return any(
        name.startswith("part-")
        for stage in storage.names(stages)[-1:]
        for name in storage.names(stages.child(stage, "data"))
    )


def load_projection(place: Location) -> Projection:
    """The projection in a saved model.

    Args:
        place: a `model/` folder, or the output folder that holds it.

    Raises:
        UsageError: there is no model of verger.
    """
    # Read by the session that runs. The stages have more than their base class shows.
    stages: list[Any] = PipelineModel.load(spark_path(find_model(place))).stages
    scaler, reducer = stages
    return Projection(
        mean=scaler.mean.toArray(),
        components=reducer.pc.toArray(),
        explained_variance_ratio=reducer.explainedVariance.toArray(),
    )
