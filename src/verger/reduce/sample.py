"""A sample of the images by class: its recogniser is chosen by them, and shows them as similar."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verger.reduce.moments import ClassMeans

SAMPLE_IMAGES = 20_000
"""Of more images a sample is kept as references, and left out one by one to choose by."""


@dataclass(frozen=True)
class Sample:
    """Some of the images that were fitted, sorted by path: paths, labels, and features (n, d)."""

    paths: list[str]
    labels: list[str]
    features: NDArray[np.float32]


@dataclass(frozen=True)
class Draw:
    """Which images are in a sample; by their paths, so that it does not matter how rows are spread.

    Attributes:
        shares: of each class, from 0 to 1.
    """

    shares: dict[str, float]

    @classmethod
    def of(cls, classes: ClassMeans, most: int) -> "Draw":
        """About `most` images, of each class as many, or all where there are no more."""
        everything, a_class = classes.counts.sum() <= most, most / max(len(classes.labels), 1)
        return cls(
            {
                label: 1.0 if everything else min(a_class / count, 1.0)
                for label, count in zip(classes.labels, classes.counts.tolist(), strict=True)
            }
        )

    @property
    def is_all(self) -> bool:
        """Whether no image is left out."""
        return all(share == 1.0 for share in self.shares.values())

    def has(self, path: str, label: str) -> bool:
        """Whether an image is in the sample."""
        digest = hashlib.blake2b(path.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64 < self.shares[label]
