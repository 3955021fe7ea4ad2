"""Moments of rows, which merge: count, mean and scatter; count and mean of each class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

MOST_CLASSES = 2_000
"""Classes of which means are kept: 10 KB each where there are 1280 features, in every part. To tell
as many apart takes a driver two minutes and 1.8 GB."""


@dataclass(frozen=True)
class Moments:
    """Count, mean (d,) and scatter (d, d) of some rows: the sum of centred outer products."""

    count: int
    mean: Float64
    scatter: Float64

    @classmethod
    def of(cls, rows: Float64) -> "Moments":
        """The moments of rows, (n, d) with n >= 1."""
        mean = rows.mean(axis=0)
        centred = rows - mean
        return cls(len(rows), mean, centred.T @ centred)

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both sets of rows together.

        Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
        Variances", 1979: it does not cancel as a sum of squares would.
        """
        count = self.count + other.count
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        between = np.outer(apart, apart) * (self.count * other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    def without(self, other: "Moments") -> "Moments":
        """The moments of these rows without some of them: `merge` the other way.

        Cancellation makes it less exact the more of the scatter goes; see `reduce.kept.subtract`.
        """
        count = self.count - other.count
        mean = self.mean + (self.mean - other.mean) * (other.count / count)
        apart = other.mean - mean
        between = np.outer(apart, apart) * (count * other.count / self.count)
        return Moments(count, mean, self.scatter - other.scatter - between)


@dataclass(frozen=True)
class ClassMeans:
    """Count (c,) and mean (c, d) of the rows of each class; labels are sorted, each once."""

    labels: tuple[str, ...]
    counts: NDArray[np.int64]
    means: Float64

    @classmethod
    def of(cls, labels: Sequence[str], rows: Float64) -> "ClassMeans":
        """Those of rows, (n, d) with n >= 1, whose labels are given in the same order."""
        names, index, counts = np.unique(
            np.asarray(labels, object).astype(str), return_inverse=True, return_counts=True
        )
        firsts = np.cumsum(counts) - counts
        sums = np.add.reduceat(rows[np.argsort(index, kind="stable")], firsts, axis=0)
        return cls(tuple(map(str, names)), counts, sums / counts[:, None])

    def merge(self, other: "ClassMeans") -> "ClassMeans":
        """Those of both sets of rows together."""
        labels = tuple(sorted({*self.labels, *other.labels}))
        place = {label: number for number, label in enumerate(labels)}
        counts = np.zeros(len(labels), np.int64)
        means = np.zeros((len(labels), self.means.shape[1]))
        for part in (self, other):
            at = [place[label] for label in part.labels]
            counts[at] += part.counts
            means[at] += (part.means - means[at]) * (part.counts / counts[at])[:, None]
        return ClassMeans(labels, counts, means)

    def without(self, other: "ClassMeans") -> "ClassMeans":
        """Those of these rows without some of them; a class of which nothing is left has gone."""
        place = {label: number for number, label in enumerate(self.labels)}
        at = [place[label] for label in other.labels]
        counts, means = self.counts.copy(), self.means.copy()
        counts[at] -= other.counts
        left = np.maximum(counts[at], 1)
        means[at] += (means[at] - other.means) * (other.counts / left)[:, None]
        some = counts > 0
        labels = tuple(label for label, rows in zip(self.labels, counts, strict=True) if rows)
        return ClassMeans(labels, counts[some], means[some])


@dataclass(frozen=True)
class Statistics:
    """All that PCA and discriminants need to know of some rows, taken in one pass.

    Attributes:
        moments: of the rows.
        classes: likewise; None where they have, or had, more than `MOST_CLASSES`.
    """

    moments: Moments
    classes: ClassMeans | None

    @classmethod
    def of(cls, labels: Sequence[str], rows: Float64) -> "Statistics":
        """Those of rows, (n, d) with n >= 1, whose labels are given in the same order."""
        return cls(Moments.of(rows), _if_few(ClassMeans.of(labels, rows)))

    def merge(self, other: "Statistics") -> "Statistics":
        """Those of both sets of rows together."""
        classes = self.classes and other.classes and self.classes.merge(other.classes)
        return Statistics(self.moments.merge(other.moments), _if_few(classes))

    def without(self, other: "Statistics") -> "Statistics":
        """Those of these rows without some of them."""
        classes = self.classes and other.classes and self.classes.without(other.classes)
        return Statistics(self.moments.without(other.moments), classes)


def _if_few(classes: ClassMeans | None) -> ClassMeans | None:
    return classes if classes and len(classes.labels) <= MOST_CLASSES else None
