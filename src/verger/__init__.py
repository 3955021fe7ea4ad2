"""verger turns pictures of fruit into a matrix: MobileNetV2 features and exact PCA on Spark.

The functions of `verger.steps` are attributes of this package. Importing it loads neither Spark nor
TensorFlow; the first use of one of them does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from verger.version import VERSION

if TYPE_CHECKING:
    from verger.steps import (
        Extraction,
        draw_map,
        draw_scree,
        extract,
        fit_pca,
        fit_recogniser,
        list_images,
        load_backbone,
        load_pca,
        preprocess,
        read_features,
        run,
        start_session,
        transform,
        write_matrix,
    )

__version__ = VERSION
__all__ = [
    "Extraction",
    "draw_map",
    "draw_scree",
    "extract",
    "fit_pca",
    "fit_recogniser",
    "list_images",
    "load_backbone",
    "load_pca",
    "preprocess",
    "read_features",
    "run",
    "start_session",
    "transform",
    "write_matrix",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("verger.steps"), name)
    raise AttributeError(f"module 'verger' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
