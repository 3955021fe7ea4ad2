"""The scores of an output, read in batches: classes, a sample, and the ends of the components."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from verger.progress import Progress

if TYPE_CHECKING:
    from pyarrow.dataset import Dataset

MAP_ROWS = 5_000
"""Images on the map at most: what a browser draws at once."""
COMPARED_ROWS = 20_000
"""Images that are compared with each other at most: time grows with the square."""
CLASSES = 2_000
"""Classes of which the means are kept at most."""
SHOWN_COMPONENTS = 6
END_ROWS = 8
"""Images that are shown of each end of a component."""
END_CANDIDATES = 200
"""Images at an end among which those shown are chosen, so that they are not all of one class."""

BATCH_ROWS = 8_192

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Rows:
    """Images with their scores.

    Attributes:
        paths: relative to the input.
        labels: their classes.
        scores: (images, components).
    """

    paths: NDArray[np.object_]
    labels: NDArray[np.object_]
    scores: Scores

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, chosen: NDArray[np.intp]) -> "Rows":
        """Some of the rows."""
        return Rows(self.paths[chosen], self.labels[chosen], self.scores[chosen])

    @classmethod
    def join(cls, parts: Sequence["Rows"]) -> "Rows":
        """The rows of one part or more."""
        return cls(
            np.concatenate([part.paths for part in parts]),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.scores for part in parts]),
        )


@dataclass(frozen=True)
class Classes:
    """The classes of all rows, by falling size.

    Attributes:
        names: C labels.
        sizes: (C,) images.
        centroids: (C, components) mean scores; None where there are more than `CLASSES`.
        spreads: (C,) root mean square distance of a class' images to its centroid; likewise.
    """

    names: list[str]
    sizes: NDArray[np.int64]
    centroids: NDArray[np.float64] | None = None
    spreads: NDArray[np.float64] | None = None

    def codes(self, labels: NDArray[np.object_]) -> NDArray[np.intp]:
        """The places in `names` of labels, (n,)."""
        return np.array([self._places[label] for label in labels], np.intp)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: code for code, name in enumerate(self.names)}


@dataclass(frozen=True)
class Ends:
    """The images at the two ends of a component: (path, label, score), the furthest first."""

    low: list[tuple[str, str, float]]
    high: list[tuple[str, str, float]]


@dataclass(frozen=True)
class Summary:
    """What the passes over the scores found.

    Attributes:
        classes: of all rows.
        sample: at most `COMPARED_ROWS` rows, of each class in proportion to its size.
        ends: of the first `SHOWN_COMPONENTS` components, over all rows.
    """

    classes: Classes
    sample: Rows
    ends: list[Ends]


def count_classes(dataset: "Dataset") -> Classes:
    """The sizes of classes in data with a column `label`."""
    sizes: dict[str, int] = {}
    for batch in _batches(dataset, ["label"]):
        for entry in batch.column("label").value_counts().to_pylist():
            name = entry["values"] or ""
            sizes[name] = sizes.get(name, 0) + entry["counts"]
    names = sorted(sizes, key=lambda name: (-sizes[name], name))
    return Classes(names, np.array([sizes[name] for name in names], np.int64))


def summarize(dataset: "Dataset", progress: Progress) -> Summary:
    """Read scores twice, in batches: labels, then all.

    Memory holds a batch, the sample and a mean a class, however many rows there are.

    Raises:
        OSError, pa.ArrowException, ValueError: the files are missing or damaged.
    """
    counted = count_classes(dataset)
    total = int(counted.sizes.sum())
    sampler = _Sampler(counted, COMPARED_ROWS)
    ends: list[_EndFinder] = []
    moments: _Moments | None = None
    done = 0
    for rows in in_batches(dataset):
        if moments is None:
            moments = _Moments(counted, rows.scores.shape[1])
            shown = min(SHOWN_COMPONENTS, rows.scores.shape[1])
            ends = [_EndFinder(component) for component in range(shown)]
        moments.add(rows)
        sampler.add(rows)
        for end in ends:
            end.add(rows)
        done += len(rows)
        progress.update(min(done, total))
    if moments is None:
        raise ValueError("the matrix holds no row")
    return Summary(moments.result(), sampler.result(), [end.result() for end in ends])


def in_batches(dataset: "Dataset") -> Iterator[Rows]:
    """All scores, a batch at a time."""
    return (_rows(batch) for batch in _batches(dataset, ["path", "label", "pca"]))


def stratify(rows: Rows, count: int, classes: Classes) -> Rows:
    """At most `count` rows, of each class in proportion, the same ones every time.

    Args:
        rows: all rows, or of each class those of the smallest hashes.
        count: how many are wanted.
        classes: the classes of all rows, with their sizes.
    """
    if len(rows) <= count:
        return rows
    codes = classes.codes(rows.labels)
    ranks = _hashes(rows.paths)
    order = np.lexsort((ranks, codes))
    counts = np.bincount(codes, minlength=len(classes.names))
    place = np.empty(len(rows), np.int64)
    place[order] = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    # The k-th of a class' n images has the share (k + 1/2) / n: the smallest shares are a sample
    # in which each class has its proportion, and the first of each class comes before all others.
    share = np.where(place == 0, 0, (place + 0.5) / classes.sizes[codes])
    return rows.take(np.sort(np.lexsort((ranks, share))[:count]))


class _Sampler:
    """Keeps each row whose hash is below the share of its class, with some to spare."""

    def __init__(self, classes: Classes, count: int) -> None:
        self.count, self.classes = count, classes
        wanted = classes.sizes * min(1.0, count / max(1, int(classes.sizes.sum())))
        # Four standard deviations more than wanted, so that there are enough.
        self.shares = np.minimum(1.0, (wanted + 4 * np.sqrt(wanted) + 4) / classes.sizes)
        self.kept: list[Rows] = []

    def add(self, rows: Rows) -> None:
        shares = self.shares[self.classes.codes(rows.labels)]
        if (shares < 1).any():
            rows = rows.take(np.flatnonzero(_hashes(rows.paths) < shares))
        self.kept.append(rows)

    def result(self) -> Rows:
        kept = Rows.join(self.kept)
        # By path, so that the page does not depend on how the files were cut.
        in_order = kept.take(np.argsort(kept.paths, kind="stable"))
        return stratify(in_order, self.count, self.classes)


class _Moments:
    """Sums of scores and of their squares, a class each."""

    def __init__(self, classes: Classes, components: int) -> None:
        self.classes = classes
        self.kept = len(classes.names) <= CLASSES
        shape = (len(classes.names) if self.kept else 0, components)
        self.sums, self.squares = np.zeros(shape), np.zeros(shape[0])

    def add(self, rows: Rows) -> None:
        if not self.kept:
            return
        codes = self.classes.codes(rows.labels)
        order = np.argsort(codes, kind="stable")
        found, starts = np.unique(codes[order], return_index=True)
        scores = rows.scores[order].astype(np.float64)
        self.sums[found] += np.add.reduceat(scores, starts)
        self.squares[found] += np.add.reduceat((scores**2).sum(axis=1), starts)

    def result(self) -> Classes:
        names, sizes = self.classes.names, self.classes.sizes
        if not self.kept:
            return self.classes
        centroids = self.sums / sizes[:, None]
        variances = self.squares / sizes - (centroids**2).sum(axis=1)
        return Classes(names, sizes, centroids, np.sqrt(np.maximum(variances, 0)))


class _EndFinder:
    """The rows of the smallest and of the largest scores on a component."""

    def __init__(self, component: int) -> None:
        self.component = component
        self.low: list[tuple[str, str, float]] = []
        self.high: list[tuple[str, str, float]] = []

    def add(self, rows: Rows) -> None:
        scores = rows.scores[:, self.component]
        count = min(END_CANDIDATES, len(scores))
        order = np.argpartition(scores, (count - 1, len(scores) - count))
        for kept, chosen in ((self.low, order[:count]), (self.high, order[-count:])):
            kept += [(rows.paths[row], rows.labels[row], float(scores[row])) for row in chosen]
            sign = 1 if kept is self.low else -1
            kept.sort(key=lambda end: (sign * end[2], end[0]))
            del kept[END_CANDIDATES:]

    def result(self) -> Ends:
        return Ends(_varied(self.low), _varied(self.high))


def _varied(ends: list[tuple[str, str, float]]) -> list[tuple[str, str, float]]:
    """The furthest, at most two of a class as long as there are others."""
    taken: dict[str, int] = {}
    first: list[tuple[str, str, float]] = []
    others: list[tuple[str, str, float]] = []
    for end in ends:
        taken[end[1]] = taken.get(end[1], 0) + 1
        (first if taken[end[1]] <= 2 else others).append(end)  # noqa: PLR2004 - two, as it says
    return (first + others)[:END_ROWS]


def _batches(dataset: "Dataset", columns: list[str]) -> Iterator[pa.RecordBatch]:
    # Few ahead: a batch of 1,280 scores a row is 80 MB.
    for batch in dataset.to_batches(
        columns=columns, batch_size=BATCH_ROWS, batch_readahead=2, fragment_readahead=1
    ):
        if batch.num_rows:
            yield batch


def _rows(batch: pa.RecordBatch) -> Rows:
    scores = batch.column("pca").flatten().to_numpy(zero_copy_only=False)
    return Rows(
        _objects(batch.column("path")),
        _objects(pc.fill_null(batch.column("label"), "")),
        scores.reshape(batch.num_rows, -1).astype(np.float32),
    )


def _objects(column: pa.Array) -> NDArray[np.object_]:
    return np.array(column.to_pylist(), dtype=object)


def _hashes(paths: NDArray[np.object_]) -> NDArray[np.float64]:
    """A number from 0 to 1 for each path, as good as random and always the same."""
    digests = b"".join(
        hashlib.blake2b(path.encode(errors="surrogateescape"), digest_size=8).digest()
        for path in paths
    )
    return np.frombuffer(digests, "<u8") / 2.0**64
