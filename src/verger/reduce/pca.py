"""Exact PCA from moments, in float64."""

from dataclasses import dataclass

import numpy as np

from verger.errors import InputError, UsageError
from verger.reduce.moments import Float64, Moments
from verger.settings import DEFAULT_COMPONENTS

ZERO_VARIANCE = 1e-12
"""Total variance, relative to the squared length of the mean, that float32 features of identical
images cannot be told from: the square of their rounding error is below it."""


@dataclass(frozen=True)
class Projection:
    """What turns features into scores.

    Attributes:
        mean: (d,), subtracted before projecting.
        components: (d, k), unit columns by falling variance; in each, the entry of the largest
            magnitude is positive.
        explained_variance_ratio: shares of the total variance, of these components at least.
    """

    mean: Float64
    components: Float64
    explained_variance_ratio: Float64

    @property
    def kept_ratio(self) -> float:
        """The share of the variance in the components."""
        return float(self.explained_variance_ratio[: self.components.shape[1]].sum())

    def project(self, rows: Float64) -> Float64:
        """The scores of rows: (n, d) to (n, k)."""
        return (rows - self.mean) @ self.components


@dataclass(frozen=True)
class Pca(Projection):
    """A fitted PCA.

    Attributes:
        rows: how many it was fitted on.
        explained_variance: (min(rows - 1, d),), of all components, with n - 1 degrees of freedom;
            `explained_variance_ratio` is as long.
    """

    rows: int
    explained_variance: Float64


def solve(moments: Moments, components: float | None) -> Pca:
    """The eigenvectors of the covariance matrix.

    Args:
        moments: of the rows, which are (n, d).
        components: a count, or a share of the variance, or None for `DEFAULT_COMPONENTS` or fewer.

    Raises:
        InputError: there are fewer than two rows, or they are all equal.
        UsageError: more components than min(n - 1, d).
    """
    rows, d = moments.count, len(moments.mean)
    most = min(rows - 1, d)
    if most < 1:
        raise InputError("There is only one image: PCA needs at least two that differ.")
    total = float(np.trace(moments.scatter))
    if total <= ZERO_VARIANCE * rows * float(moments.mean @ moments.mean):
        raise InputError(
            f"All {rows} images give the same features: there is no variance to reduce.",
            "Give images that differ.",
        )
    check_components(components, rows, d)
    eigenvalues, eigenvectors = np.linalg.eigh(moments.scatter)
    eigenvalues = np.maximum(eigenvalues[::-1][:most], 0.0)
    ratio = eigenvalues / total
    vectors = eigenvectors[:, ::-1][:, : _count(components, ratio)]
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.sign(vectors[largest, np.arange(vectors.shape[1])])
    return Pca(
        mean=moments.mean,
        components=np.ascontiguousarray(vectors * signs),
        explained_variance_ratio=ratio,
        rows=rows,
        explained_variance=eigenvalues / (rows - 1),
    )


def check_components(components: float | None, rows: int, d: int) -> None:
    """Refuse a count of components that `rows` rows of `d` numbers cannot have.

    Raises:
        UsageError: it is more than min(rows - 1, d).
    """
    most = min(rows - 1, d)
    if isinstance(components, int) and components > most:
        raise UsageError(
            f"--components {components} is more than {rows} images can have: at most {most}.",
            f"Ask for {most} or fewer, or for a share of the variance such as 0.95.",
        )


def _count(components: float | None, ratio: Float64) -> int:
    if components is None:
        return min(DEFAULT_COMPONENTS, len(ratio))
    if isinstance(components, int):
        return components
    # The first count whose share is reached, but for the rounding of the sum.
    return min(int(np.searchsorted(ratio.cumsum(), components - 1e-12)) + 1, len(ratio))
