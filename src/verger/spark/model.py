"""The PCA as a standard Spark ML model, which plain PySpark loads."""

from typing import Any

import numpy as np
from pyspark.ml import PipelineModel
from pyspark.ml.common import _py2java
from pyspark.ml.feature import PCAModel, StandardScalerModel
from pyspark.ml.linalg import DenseMatrix, DenseVector, Vectors
from pyspark.ml.wrapper import JavaParams
from pyspark.sql import SparkSession

from verger.spark.pca import Pca


def to_spark_model(pca: Pca, spark: SparkSession) -> PipelineModel:
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
