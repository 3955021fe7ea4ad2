"""Linear discriminants in closed form, from moments: what tells classes apart.

Rows are whitened by the scatter within classes, so that a direction counts by how far apart it
puts classes for the spread that each has in it, and then compared with class means by the cosine
about the mean of all rows. Fisher, "The Use of Multiple Measurements in Taxonomic Problems", 1936;
with shrinkage towards a sphere as in Friedman, "Regularized Discriminant Analysis", 1989.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verger.errors import InputError
from verger.reduce.moments import ClassMeans, Float64, Moments

SHRINKAGES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
"""What `choose_shrinkage` tries."""

LEAST_DIMENSIONS = 16
"""Of the space in which classes are compared. Two classes alone would have one, where each cosine
is 1 or -1, whatever a photograph shows."""

FILLED_AMONG = 512
"""Directions of the largest variance within classes, among which the filling ones are sought: among
all 1280 it takes ten times as long, and cosines change by less than a thousandth."""

FOLDS = 5

BLOCK = 2048
"""Rows of which float64 is in memory at once: 20 MB of 1280 features."""

LEAST_VARIANCE = 1e-10
"""Of the largest: less is what rounding leaves of none."""


@dataclass(frozen=True)
class Discriminant:
    """What turns features into directions that tell classes apart.

    Attributes:
        mean: (d,), subtracted before projecting.
        directions: (d, k), k = min(max(classes - 1, LEAST_DIMENSIONS), d).
    """

    mean: Float64
    directions: Float64

    def project(self, rows: NDArray[np.floating]) -> Float64:
        """Rows (n, d) as unit vectors (n, k), of which a product is a cosine."""
        parts = [unit((rows[b] - self.mean) @ self.directions) for b in _blocks(rows)]
        return np.concatenate(parts) if parts else np.empty((0, self.directions.shape[1]))


@dataclass(frozen=True)
class Within:
    """The scatter within classes, taken apart once for any shrinkage.

    Attributes:
        moments: of all rows.
        classes: their class means.
        variances: (d,), eigenvalues of the covariance within classes.
        vectors: (d, d), its eigenvectors.
        freedom: degrees of freedom of that covariance, one at least.
    """

    moments: Moments
    classes: ClassMeans
    variances: Float64
    vectors: Float64
    freedom: int

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
        freedom = max(moments.count - len(classes.labels), 1)
        variances, vectors = np.linalg.eigh(within / freedom)
        variances = np.maximum(variances, 0.0)
        if variances.sum() <= np.finfo(np.float32).eps ** 2 * float(moments.mean @ moments.mean):
            raise InputError("No class has two images that differ.")
        return cls(moments, classes, variances, vectors, freedom)

    def rotate(self, rows: NDArray[np.floating]) -> NDArray[np.floating]:
        """Rows, (n, d), about the mean and along the eigenvectors; as float32 if they were."""
        rotated = np.empty_like(rows)
        for block in _blocks(rows):
            rotated[block] = (rows[block] - self.moments.mean) @ self.vectors
        return rotated

    def scale(self, shrinkage: float) -> Float64:
        """(d,): by it rotated rows become white, of the shrunk covariance within classes."""
        sphere = self.variances.mean()
        scale: Float64 = 1 / np.sqrt((1 - shrinkage) * self.variances + shrinkage * sphere)
        return scale

    def discriminant(self, shrinkage: float) -> Discriminant:
        """The directions in which class means lie, whitened; those with more between come first.

        Where these are few, those follow in which images of a class differ most: class means have
        nothing in them, so that what is far off in them is like no class.
        """
        scale = self.scale(shrinkage)
        weights = np.sqrt(self.classes.counts)[:, None]
        white = weights * self.rotate(self.classes.means) * scale
        axes = np.linalg.svd(white, full_matrices=False)[2]
        count = min(len(self.classes.labels) - 1, len(scale))
        # Orthogonal to those before, and to one another.
        filling = np.eye(len(scale))[len(scale) - self._missing :]  # eigenvalues rise
        spanned = np.linalg.qr(np.vstack([axes[:count], filling]).T)[0]
        return Discriminant(self.moments.mean, (self.vectors * scale) @ spanned)

    @property
    def _missing(self) -> int:
        """How many directions fill up the space."""
        return max(min(LEAST_DIMENSIONS, len(self.variances)) - len(self.classes.labels) + 1, 0)

    def hold_out(
        self, rows: NDArray[np.floating], classes: NDArray[np.int64], shrinkage: float
    ) -> Float64:
        """Cosines of rows with class means, each in a space that was fitted without it.

        They are what answers will be to photographs that were not fitted, so that confidence and
        threshold are chosen by them; those of `leave_one_out` name the same classes, but see rows
        in all d dimensions. A fifth of the rows is left out at a time: neighbours of each class, so
        that photographs of one series are left out together.

        Args:
            rows: (n, d), rotated; all are among those that were fitted, sorted by path.
            classes: (n,), the index of each row's class.
            shrinkage: from 0 to 1; the size of the sphere stays.

        Returns:
            (n, classes); a class of which nothing is left has -1.
        """
        means, counts = self.rotate(self.classes.means), self.classes.counts
        # With fewer rows than features, most directions have no variance: nothing is solved there.
        d = len(self.variances)
        first = int(np.searchsorted(self.variances, self.variances[-1] * LEAST_VARIANCE))
        varied = slice(first, d)
        folds = _folds(classes)
        sphere = shrinkage * self.variances.mean()
        cosines = np.full((len(rows), len(counts)), -1.0)
        for fold in range(FOLDS):
            out = folds == fold
            left_out = rows[out].astype(float)
            residuals = (left_out - means[classes[out]])[:, varied]
            sums = (classes[out] == np.arange(len(counts))[:, None]).astype(float) @ residuals
            left = counts - np.bincount(classes[out], minlength=len(counts))
            some, divisor = left > 0, np.maximum(left, 1)[:, None]
            # Of what is left: taking k of n rows from a class takes k^2/(n - k) r r' more, where r
            # is the mean of their residuals, since the class mean moves away from them.
            scatter = np.diag(self.variances[varied] * self.freedom)
            scatter -= residuals.T @ residuals + sums.T @ (sums / divisor)
            covariance = scatter / max(int(left.sum() - some.sum()), 1)
            remaining = means.copy()
            remaining[:, varied] -= sums / divisor
            mean = left @ remaining / left.sum()
            axes = np.vstack([remaining[some] - mean, self._filling(covariance)])
            pulled = np.empty((d, len(axes)))
            pulled[:first] = axes.T[:first] / sphere
            shrunk = (1 - shrinkage) * covariance + sphere * np.eye(d - first)
            pulled[varied] = np.linalg.solve(shrunk, axes.T[varied])
            gram = axes @ pulled
            products = (left_out - mean) @ pulled
            within = products @ np.linalg.pinv(gram, rcond=1e-9, hermitian=True)
            squares = np.einsum("ij,ij->i", within, products)
            lengths = np.sqrt(np.maximum(squares[:, None] * gram.diagonal(), 1e-300))
            cosines[np.ix_(out, some)] = (products / lengths)[:, : int(some.sum())]
        return cosines

    def _filling(self, covariance: Float64) -> Float64:
        """Directions that fill up the space, (n, d), among the last `FILLED_AMONG`.

        `covariance`, of the last directions, has most variance in them; those before have none.
        """
        d, size = len(self.variances), min(len(covariance), FILLED_AMONG)
        filling = np.eye(d)[d - self._missing :]
        if known := min(self._missing, size):
            vectors = np.linalg.eigh(covariance[-size:, -size:])[1][:, size - known :]
            filling[self._missing - known :] = 0.0
            filling[self._missing - known :, d - size :] = vectors.T
        return filling

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
        share = (1 - shrinkage) / self.freedom
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
    within: Within, rows: NDArray[np.floating], classes: NDArray[np.int64]
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
    counts = dict.fromkeys(SHRINKAGES, 0)
    for block in _blocks(rows):
        some, own = rows[block].astype(float), classes[block]
        for shrinkage in SHRINKAGES:
            cosines = within.leave_one_out(some, own, shrinkage)
            counts[shrinkage] += int((cosines.argmax(axis=1) == own).sum())
    right = {shrinkage: count / len(rows) for shrinkage, count in counts.items()}
    best = max(right.values())
    error = np.sqrt(best * (1 - best) / len(rows))
    return max(shrinkage for shrinkage, share in right.items() if share >= best - error), right


def _blocks(rows: NDArray[np.floating]) -> Iterator[slice]:
    """All rows, some at a time."""
    for start in range(0, len(rows), BLOCK):
        yield slice(start, start + BLOCK)


def _folds(classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The fold of each row: as many neighbours of each class in each."""
    folds = np.empty(len(classes), np.int64)
    for number in set(classes.tolist()):
        at = np.flatnonzero(classes == number)
        folds[at] = np.arange(len(at)) * FOLDS // len(at)
    return folds


def unit(rows: Float64) -> Float64:
    """Rows (..., k) of length one; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    scaled: Float64 = rows / np.where(lengths > 0, lengths, 1.0)
    return scaled
