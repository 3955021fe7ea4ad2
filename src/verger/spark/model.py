"""The PCA as a standard Spark ML model, which plain PySpark loads; written without a job of Spark.

The format is that of Spark's `MLWriter`: a line of JSON for each stage, and a row of Parquet whose
columns Spark knows again by the types that the file's metadata names.
"""

import json
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyspark
from pyspark.sql.types import StructField, StructType

from verger.errors import UsageError
from verger.output.files import Identity, differences, open_files
from verger.output.layout import Output
from verger.reduce.moments import Float64
from verger.reduce.pca import Projection
from verger.settings import RunSettings
from verger.spark.takeover import read_old_ledger
from verger.store import storage
from verger.store.location import Location

PACKAGE = "org.apache.spark.ml"
SCALER = "verger_StandardScalerModel"
REDUCER = "verger_PCAModel"
DENSE = 1
"""What Spark calls the type of a vector or matrix that is not sparse."""

_VECTOR = pa.struct(
    [
        pa.field("type", pa.int8(), nullable=False),
        pa.field("size", pa.int32()),
        pa.field("indices", pa.list_(pa.field("element", pa.int32(), nullable=False))),
        pa.field("values", pa.list_(pa.field("element", pa.float64(), nullable=False))),
    ]
)
_MATRIX = pa.struct(
    [
        pa.field("type", pa.int8(), nullable=False),
        pa.field("numRows", pa.int32(), nullable=False),
        pa.field("numCols", pa.int32(), nullable=False),
        pa.field("colPtrs", pa.list_(pa.field("element", pa.int32(), nullable=False))),
        pa.field("rowIndices", pa.list_(pa.field("element", pa.int32(), nullable=False))),
        pa.field("values", pa.list_(pa.field("element", pa.float64(), nullable=False))),
        pa.field("isTransposed", pa.bool_(), nullable=False),
    ]
)


def write_model(pca: Projection, folder: Location) -> None:
    """Write a `PipelineModel`: features -> centred -> pca, columns of vectors all of them."""
    d, k = pca.components.shape
    scaler, reducer = _stages(folder)
    _write_metadata(folder, "PipelineModel", "PipelineModel_verger", stageUids=[SCALER, REDUCER])
    names = {"inputCol": "features", "outputCol": "centred"}
    _write_metadata(
        scaler, "feature.StandardScalerModel", SCALER, withMean=True, withStd=False, **names
    )
    _write_row(scaler, {"std": _vector(np.ones(d)), "mean": _vector(pca.mean)})
    names = {"inputCol": "centred", "outputCol": "pca"}
    _write_metadata(reducer, "feature.PCAModel", REDUCER, k=k, **names)
    ratio = _vector(pca.explained_variance_ratio[:k])
    _write_row(reducer, {"pc": _matrix(pca.components), "explainedVariance": ratio})


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
    """Whether a model was written to its end: the data of its last stage is there."""
    return bool(_data_of(_stages(model)[-1]))


def check_model(identity: Identity, output: Output, settings: RunSettings) -> None:
    """Refuse a PCA that is not there, or of features that are not comparable with these.

    Raises:
        UsageError: saying which.
    """
    if settings.keep_pca and not is_whole(output.model):
        raise UsageError(
            f"{output.location} has no fitted PCA to keep.", "Leave out --keep-pca once."
        )
    if settings.model is None:
        return
    find_model(settings.model)
    made_by = made_with(settings.model)
    if made_by is None:
        return
    wanted = identity.model_copy(update={"label_from": made_by.label_from})
    if differs := differences(made_by, wanted):
        raise UsageError(
            f"The PCA of {settings.model} was fitted on features with {differs}.",
            "Give --network, --weights, --precision, --views and --exact-decoding as they were.",
        )


def made_with(model: Location) -> Identity | None:
    """What the features have in common that a PCA was fitted on, where its output says so."""
    return _identity_at(model) or _identity_at(model.parent)


def _identity_at(place: Location) -> Identity | None:
    """What the rows of an output have in common, if there is one."""
    output = Output(place)
    table = open_files(output)
    if table.exists:
        return Identity.of(table)
    old = read_old_ledger(output)
    return old.identity_now() if old else None


def load_projection(place: Location) -> Projection:
    """The projection in a model.

    Args:
        place: a `model/` folder, or the output folder that holds it.

    Raises:
        UsageError: there is no model of verger.
    """
    scaler, reducer = (_read_row(stage) for stage in _stages(find_model(place)))
    d, k = reducer["pc"]["numRows"], reducer["pc"]["numCols"]
    return Projection(
        mean=np.array(scaler["mean"]["values"]),
        components=np.ascontiguousarray(np.reshape(reducer["pc"]["values"], (d, k), order="F")),
        explained_variance_ratio=np.array(reducer["explainedVariance"]["values"]),
    )


def _stages(model: Location) -> tuple[Location, Location]:
    return model.child("stages", f"0_{SCALER}"), model.child("stages", f"1_{REDUCER}")


def _data_of(stage: Location) -> list[str]:
    names = storage.names(stage.child("data"))
    return [name for name in names if name.startswith("part-") and name.endswith(".parquet")]


def _write_metadata(folder: Location, name: str, uid: str, **parameters: Any) -> None:
    metadata = {
        "class": f"{PACKAGE}.{name}",
        "timestamp": int(time.time() * 1000),
        "sparkVersion": pyspark.__version__,
        "uid": uid,
        "paramMap": parameters,
        "defaultParamMap": {},
    }
    text = f"{json.dumps(metadata)}\n"
    storage.write_bytes(folder.child("metadata", "part-00000"), text.encode())


def _vector(values: Float64) -> pa.Array:
    return pa.array([{"type": DENSE, "values": values}], _VECTOR)


def _matrix(values: Float64) -> pa.Array:
    rows, columns = values.shape
    matrix = {
        "type": DENSE,
        "numRows": rows,
        "numCols": columns,
        "values": values.ravel(order="F"),
        "isTransposed": False,
    }
    return pa.array([matrix], _MATRIX)


def _write_row(stage: Location, columns: dict[str, pa.Array]) -> None:
    from pyspark.ml.linalg import MatrixUDT, VectorUDT  # slow to import

    types = [
        StructField(name, MatrixUDT() if array.type == _MATRIX else VectorUDT())
        for name, array in columns.items()
    ]
    metadata = {
        "org.apache.spark.version": pyspark.__version__,
        "org.apache.spark.sql.parquet.row.metadata": StructType(types).json(),
    }
    row = pa.table(columns).replace_schema_metadata(metadata)
    storage.write_parquet(stage.child("data", "part-00000.parquet"), row)


def _read_row(stage: Location) -> dict[str, Any]:
    (name,) = _data_of(stage)
    row: dict[str, Any] = storage.read_parquet(stage.child("data", name)).to_pylist()[0]
    return row
