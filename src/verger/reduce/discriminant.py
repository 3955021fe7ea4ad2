"""Linear discriminants in closed form, from moments: what tells classes apart.

Rows are whitened by the scatter within classes, so that a direction counts by how far apart it
puts classes for the spread that each has in it, and then compared with class means by the cosine
about the mean of all rows. Fisher, "The Use of Multiple Measurements in Taxonomic Problems", 1936;
with shrinkage towards a sphere as in Friedman, "Regularized Discriminant Analysis", 1989.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verger.errors import InputError
from verger.reduce.moments import ClassMeans, Float64, Moments

SHRINKAGES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
"""What `choose_shrinkage` tries."""


@dataclass(frozen=True)
class Discriminant:
    """What turns features into directions that tell classes apart.

    Attributes:
        mean: (d,), subtracted before projecting.
        directions: (d, k), k = min(classes - 1, d).
    """

    mean: Float64
    directions: Float64

    def project(self, rows: Float64) -> Float64:
        """Rows (n, d) as unit vectors (n, k), of which a product is a cosine."""
        return unit((rows - self.mean) @ self.directions)


@dataclass(frozen=True)
class Within:
    """The scatter within classes, taken apart once for any shrinkage.

    Attributes:
        moments: of all rows.
        classes: their class means.
        variances: (d,), eigenvalues of the covariance within classes.
        vectors: (d, d), its eigenvectors.
    """

    moments: Moments
    classes: ClassMeans
    variances: Float64
    vectors: Float64

    @classmethod
    def of(cls, moments: Moments, classes: ClassMeans) -> "Within":
        """Take the scatter between classes from that of all rows.

        Raises:
            InputError: there are fewer than two classes, or nothing but their means.
        """
        if len(classes.labels) <= 1:
            raise InputError("All images have the same class: there is nothing to tell apart.")
        apart = classes.means - moments.mean
        within = moments.scatter - (apart.T * classes.counts) @ apart
        variances, vectors = np.linalg.eigh(within / max(cls._freedom(moments, classes), 1))
        variances = np.maximum(variances, 0.0)
        if variances.sum() <= np.finfo(np.float32).eps ** 2 * float(moments.mean @ moments.mean):
            raise InputError("No class has two images that differ.")
        return cls(moments, classes, variances, vectors)

    @staticmethod
    def _freedom(moments: Moments, classes: ClassMeans) -> int:
        return moments.count - len(classes.labels)

    def rotate(self, rows: Float64) -> Float64:
        """Rows, (n, d), about the mean and along the eigenvectors."""
        return (rows - self.moments.mean) @ self.vectors

    def scale(self, shrinkage: float) -> Float64:
        """(d,): by it rotated rows become white, of the shrunk covariance within classes."""
        sphere = self.variances.mean()
        scale: Float64 = 1 / np.sqrt((1 - shrinkage) * self.variances + shrinkage * sphere)
        return scale

    def discriminant(self, shrinkage: float) -> Discriminant:
        """The directions in which class means lie, whitened; those with more between come first."""
        scale = self.scale(shrinkage)
        weights = np.sqrt(self.classes.counts)[:, None]
        white = weights * self.rotate(self.classes.means) * scale
        axes = np.linalg.svd(white, full_matrices=False)[2]
        count = min(len(self.classes.labels) - 1, len(scale))
        return Discriminant(self.moments.mean, (self.vectors * scale) @ axes[:count].T)

    def leave_one_out(self, rows: Float64, classes: NDArray[np.int64], shrinkage: float) -> Float64:
        """Cosines of rows with class means that were fitted without them.

        Each row is taken out of its class mean and of the covariance (a change of rank one, Sherman
        and Morrison 1950); the mean of all rows and the size of the sphere stay.

        Args:
            rows: (n, d), rotated; all are among those that were fitted.
            classes: (n,), the index of each row's class.
            shrinkage: from 0 to 1.

        Returns:
            (n, classes); a class of one row has -1 for it, since nothing of it is left.
        """
        weights = self.scale(shrinkage) ** 2
        means = self.rotate(self.classes.means)
        n = np.arange(len(rows))
        counts = self.classes.counts[classes].astype(float)
        others = np.maximum(counts - 1, 1)
        # Products of whitened vectors: weighted ones of rotated vectors. u is a row less its mean.
        on_means = rows @ (means * weights).T
        of_means = (means * weights) @ means.T
        row_squares = np.einsum("ij,ij,j->i", rows, rows, weights)
        own, own_squares = on_means[n, classes], of_means.diagonal()[classes]
        lengths = row_squares - 2 * own + own_squares
        rows_on_residuals = row_squares - own
        means_on_residuals = on_means - of_means[classes]
        share = (1 - shrinkage) / max(self._freedom(self.moments, self.classes), 1)
        # (A - f u u')^-1 = A^-1 + g A^-1 u u' A^-1, where A is the identity after whitening.
        f = share * counts / others
        g = f / np.maximum(1 - f * lengths, 1e-9)
        products = on_means + (g * rows_on_residuals)[:, None] * means_on_residuals
        squares = of_means.diagonal() + g[:, None] * means_on_residuals**2
        # The mean of the row's own class, without the row.
        step = 1 / others
        own_on_residuals = means_on_residuals[n, classes] - step * lengths
        products[n, classes] = (
            own - step * rows_on_residuals + g * rows_on_residuals * own_on_residuals
        )
        left = own_squares - 2 * step * means_on_residuals[n, classes] + step**2 * lengths
        squares[n, classes] = left + g * own_on_residuals**2
        row_squares = row_squares + g * rows_on_residuals**2
        cosines: Float64 = products / np.sqrt(np.maximum(squares * row_squares[:, None], 1e-300))
        alone = counts == 1
        cosines[n[alone], classes[alone]] = -1.0
        return cosines


def choose_shrinkage(
    within: Within, rows: Float64, classes: NDArray[np.int64]
) -> tuple[float, dict[float, float]]:
    """The most shrinkage that leaves rows as often nearest to the mean of their own class as any.

    "As often" is within one standard error of the best, the rule of Breiman et al., "Classification
    and Regression Trees", 1984, section 3.4.3: photographs of one afternoon are alike, so that
    leaving one out flatters a close fit, and what is to be recognised is of another afternoon.

    Args:
        within: the fit.
        rows: (n, d), rotated; all are among those that were fitted.
        classes: (n,), the index of each row's class.

    Returns:
        The shrinkage, and the share of right answers under each when each row is left out.
    """
    right = {
        shrinkage: float(
            (within.leave_one_out(rows, classes, shrinkage).argmax(axis=1) == classes).mean()
        )
        for shrinkage in SHRINKAGES
    }
    best = max(right.values())
    error = np.sqrt(best * (1 - best) / len(rows))
    return max(shrinkage for shrinkage, share in right.items() if share >= best - error), right


def unit(rows: Float64) -> Float64:
    """Rows (..., k) of length one; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    scaled: Float64 = rows / np.where(lengths > 0, lengths, 1.0)
    return scaled
