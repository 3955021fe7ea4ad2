"""Which images lie close together: neighbours, near-duplicates, outliers, classes alike."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verger.progress import Progress
from verger.report.scores import Classes, Rows, Scores

NEIGHBOURS = 6
"""Neighbours that are looked for of each image."""
BLOCK_ROWS = 128
"""Images whose distances to all others are in memory at once."""
GROUP = 64
"""Rows of which only the nearest is looked at first."""
DUPLICATE = 0.1
"""Two images closer than this share of the usual distance are near-duplicates."""
PAIRS, OUTLIERS, QUERIES, STRANGERS = 12, 16, 6, 6
"""What is shown of each."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of the rows of a sample, by Euclidean distance between scores.

    Attributes:
        indices: (rows, k) neighbours, the nearest first.
        distances: (rows, k).
    """

    indices: NDArray[np.intp]
    distances: NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """Two images, as rows of the sample, and their distance in units of the usual one."""

    left: int
    right: int
    distance: float


@dataclass(frozen=True)
class ClassPair:
    """Two classes, as places in `Classes`, that are alike.

    Attributes:
        similarity: spreads over distance of centroids: 1 and more means that they overlap.
        left_row, right_row: of the sample, the image of each that is nearest to the other class.
    """

    left: int
    right: int
    similarity: float
    left_row: int
    right_row: int


@dataclass(frozen=True)
class Findings:
    """What the page shows of distances; rows are those of the sample.

    Attributes:
        neighbours: of all rows.
        disagreeing: how many rows have a nearest neighbour of another class; None for one class.
        queries: rows of different classes, whose neighbours are shown.
        strangers: rows whose neighbours are of another class, most of them first.
        duplicated: how many rows have a near-duplicate.
        pairs: the closest near-duplicates, those in two classes first.
        outliers: rows far from all others, with the distance in units of the usual one.
        class_pairs: the classes most alike.
    """

    neighbours: Neighbours
    disagreeing: int | None
    queries: list[int]
    strangers: list[int]
    duplicated: int
    pairs: list[Pair]
    outliers: list[tuple[int, float]]
    class_pairs: list[ClassPair]


def examine(sample: Rows, classes: Classes, progress: Progress) -> Findings:
    """Compare each row of the sample with all others."""
    neighbours = _nearest(sample.scores, progress)
    # The root mean square distance of two rows: twice the variance, summed over components.
    usual = float(np.sqrt(2 * sample.scores.astype(np.float64).var(axis=0).sum())) or 1.0
    labelled = len(classes.names) > 1
    differs = sample.labels[neighbours.indices] != sample.labels[:, None]
    has_neighbours = neighbours.indices.shape[1] > 0
    closest = neighbours.distances[:, 0] / usual if has_neighbours else np.full(len(sample), np.inf)
    return Findings(
        neighbours=neighbours,
        disagreeing=int(differs[:, 0].sum()) if labelled and has_neighbours else None,
        queries=_queries(sample) if has_neighbours else [],
        strangers=_strangers(differs) if labelled and has_neighbours else [],
        duplicated=int((closest < DUPLICATE).sum()),
        pairs=_pairs(sample, neighbours, usual),
        outliers=_outliers(neighbours, usual),
        class_pairs=_class_pairs(sample, classes),
    )


def _nearest(scores: Scores, progress: Progress) -> Neighbours:
    """The `NEIGHBOURS` nearest ones of each row, or all others where there are fewer."""
    rows = len(scores)
    count = min(NEIGHBOURS, rows - 1)
    indices = np.empty((rows, count), np.intp)
    distances = np.empty((rows, count))
    spare = -rows % GROUP
    squares = np.pad(np.einsum("ij,ij->i", scores, scores), (0, spare), constant_values=np.inf)
    doubled = np.pad(-2 * scores, ((0, spare), (0, 0)))
    room = np.empty((BLOCK_ROWS, len(doubled)), np.float32)
    for start in range(0, rows, BLOCK_ROWS) if count else ():
        block = scores[start : start + BLOCK_ROWS]
        stop = start + len(block)
        # Up to a constant of each row, the square of the distance.
        apart = np.matmul(block, doubled.T, out=room[: len(block)])
        apart += squares
        apart[np.arange(len(block)), np.arange(start, stop)] = np.inf
        chosen = _least(apart, count)
        # Exact for those chosen: the form above loses digits where two rows are nearly equal.
        exact = np.linalg.norm(scores[chosen].astype(np.float64) - block[:, None], axis=2)
        order = np.argsort(exact, axis=1, kind="stable")
        indices[start:stop] = np.take_along_axis(chosen, order, axis=1)
        distances[start:stop] = np.take_along_axis(exact, order, axis=1)
        progress.update(stop)
    return Neighbours(indices, distances)


def _least(values: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """The places of the `count` least values of each row, whose length is a multiple of `GROUP`."""
    # A group is a column, so that its least value is found along the others. The least of a row
    # are in the groups whose own are least.
    grouped = values.reshape(len(values), GROUP, -1)
    groups = _places_of_least(grouped.min(axis=1), count)
    candidates = np.take_along_axis(grouped, groups[:, None, :], axis=2)
    place, group = np.divmod(
        _places_of_least(candidates.reshape(len(values), -1), count), groups.shape[1]
    )
    return place * grouped.shape[2] + np.take_along_axis(groups, group, axis=1)


def _places_of_least(values: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    count = min(count, values.shape[1])
    return np.argpartition(values, count - 1, axis=1)[:, :count]


def _queries(sample: Rows) -> list[int]:
    """Rows of as many classes as there are, spread over all."""
    _, first = np.unique(sample.labels.astype(str), return_index=True)
    if len(first) < QUERIES:
        first = np.arange(len(sample))
    spread = np.linspace(0, len(first) - 1, min(QUERIES, len(first)), dtype=int)
    return [int(row) for row in first[spread]]


def _strangers(differs: NDArray[np.bool_]) -> list[int]:
    """Rows whose nearest neighbour is of another class, those with most such neighbours first."""
    rows = np.flatnonzero(differs[:, 0])
    order = np.argsort(-differs[rows].sum(axis=1), kind="stable")
    return [int(row) for row in rows[order][:STRANGERS]]


def _pairs(sample: Rows, neighbours: Neighbours, usual: float) -> list[Pair]:
    left, place = np.nonzero(neighbours.distances < DUPLICATE * usual)
    right = neighbours.indices[left, place]
    distances = neighbours.distances[left, place] / usual
    ends = np.sort(np.stack([left, right], axis=1), axis=1)
    _, once = np.unique(ends, axis=0, return_index=True)
    same = sample.labels[left[once]] == sample.labels[right[once]]
    order = once[np.lexsort((distances[once], same))][:PAIRS]
    return [Pair(int(ends[row, 0]), int(ends[row, 1]), float(distances[row])) for row in order]


def _outliers(neighbours: Neighbours, usual: float) -> list[tuple[int, float]]:
    """Rows by the distance to the last of their neighbours (Ramaswamy, Rastogi, Shim 2000)."""
    if len(neighbours.distances) <= NEIGHBOURS:
        return []
    furthest = neighbours.distances[:, -1] / usual
    rows = np.argsort(-furthest, kind="stable")[:OUTLIERS]
    return [(int(row), float(furthest[row])) for row in rows]


def _class_pairs(sample: Rows, classes: Classes) -> list[ClassPair]:
    """By the similarity of Davies and Bouldin (1979), (s_i + s_j) / d_ij, over all rows."""
    if classes.centroids is None or classes.spreads is None or len(classes.names) <= 1:
        return []
    centroids, spreads = classes.centroids, classes.spreads
    squares = (centroids**2).sum(axis=1)
    apart = np.sqrt(np.maximum(squares + squares[:, None] - 2 * centroids @ centroids.T, 0))
    left, right = np.triu_indices(len(classes.names), k=1)
    similarity = (spreads[left] + spreads[right]) / np.maximum(apart[left, right], 1e-9)
    order = np.argsort(-similarity, kind="stable")
    pairs: list[ClassPair] = []
    for place in order:
        one, other = int(left[place]), int(right[place])
        here = _towards(sample, classes, one, other)
        there = _towards(sample, classes, other, one)
        if here is not None and there is not None:
            pairs.append(ClassPair(one, other, float(similarity[place]), here, there))
        if len(pairs) == PAIRS:
            break
    return pairs


def _towards(sample: Rows, classes: Classes, own: int, other: int) -> int | None:
    """The image of a class that is nearest to the centroid of another, if the sample has any."""
    rows = np.flatnonzero(sample.labels == classes.names[own])
    if not len(rows) or classes.centroids is None:
        return None
    apart = np.linalg.norm(sample.scores[rows] - classes.centroids[other], axis=1)
    return int(rows[np.argmin(apart)])
