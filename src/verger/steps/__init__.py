"""The chain in Python, a step at a time: list, extract, fit, transform, write; or `run` at once.

All of it is also an attribute of `verger`, and is loaded when it is first asked for. In the
examples `INPUT` is a folder of 24 photographs of 4 kinds of fruit, `OUTPUT` an empty one.

    import verger

    images = verger.list_images(INPUT)
    features, rejected = verger.extract(images, INPUT, OUTPUT)
    pca = verger.fit_pca(features, components=5)
    scores = verger.transform(features, pca)
    verger.write_matrix(scores, pca, OUTPUT)

The steps are for notebooks: they hold the listing in the driver, and start over when they are
called again. `run` is for work that is to go on after a failure and to grow.
"""

from typing import Any

from verger import chain
from verger.networks.graph import load_backbone
from verger.output.manifest import Manifest
from verger.progress import Progress
from verger.settings import make_settings
from verger.steps.extraction import (
    Extraction,
    extract,
    list_images,
    preprocess,
    read_features,
    start_session,
)
from verger.steps.reduction import (
    draw_map,
    draw_scree,
    fit_pca,
    fit_recogniser,
    load_pca,
    transform,
    write_matrix,
)

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


def run(source: str, output: str, *, progress: Progress | None = None, **options: Any) -> Manifest:
    """The whole chain, as `verger run`: it goes on where it stopped, and computes only what is new.

    Args:
        source: a folder of images, or `s3://bucket/prefix`.
        output: where results go.
        progress: who is told how far it is.
        options: those of the command, such as `components=0.95` or `limit=1000`; the fields of
            `verger.settings.RunSettings`.

    Returns:
        The manifest: status, counts, timings, share of the variance.

    Raises:
        VergerError: one of its children, by what went wrong; see `verger.errors`.

    Examples:
        >>> manifest = verger.run(INPUT, f"{OUTPUT}/run", components=5, limit=8)
        >>> manifest.status, manifest.counts.featurized
        ('complete', 8)
    """
    settings = make_settings(input=source, output=output, **options)
    return chain.run(settings, progress)
