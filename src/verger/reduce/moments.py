"""Moments of rows, which merge: count, mean and scatter."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


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
