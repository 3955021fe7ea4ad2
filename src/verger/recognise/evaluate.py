"""How often the recogniser is right, and how well it knows that."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from verger.errors import InputError
from verger.images.ahead import read_ahead
from verger.output.layout import ListedImage, Output, Rejection
from verger.progress import Progress
from verger.recognise.fit import choose_temperature, choose_threshold
from verger.recognise.photo import Photographer
from verger.recognise.recogniser import ANSWERS, Recogniser
from verger.reduce.moments import Float64
from verger.store import storage
from verger.store.location import Location

BINS = 15
"""Of confidences, for the calibration error: as many as Guo et al. take."""

SHOWN_EXAMPLES = 3
"""Images that are named of each pair of classes that are confused."""

COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
"""Shares of the images that are answered, the surest first, for which the accuracy is given."""


class ClassScore(BaseModel):
    """How often images of a class are recognised."""

    label: str
    images: int
    top1: float
    top5: float


class Confusion(BaseModel):
    """A class that was taken for another, how often, and some of the images."""

    label: str
    taken_for: str
    images: int
    examples: list[str]


class Bin(BaseModel):
    """Images with about the same confidence: their mean confidence and the share of right ones."""

    images: int
    confidence: float
    accuracy: float


class Coverage(BaseModel):
    """The share of right answers where only the surest so many are given."""

    coverage: float
    accuracy: float


class Evaluation(BaseModel):
    """What `verger evaluate` measures.

    Attributes:
        top1, top5: shares of images whose class is the likeliest, or among the five likeliest.
        top1_interval: of 95 % (Wilson 1927).
        classes: of the images, among those that the recogniser knows.
        images: of these classes that could be read.
        ece: expected calibration error, with 15 bins (Guo et al. 2017, arXiv:1706.04599).
        answered: the share of images that the recogniser is sure of, and `answered_accuracy` the
            share of right answers among them.
        unknown_refused: the share of images that it is not sure of when their own class is left out
            of the answers: what it does with a kind that it has not seen.
        foreign: images of classes that it does not know, which count nowhere else, and
            `foreign_refused` the share of them that it is not sure of; None where there are none.
        rejected: files that are images and could not be read, by reason.
        by_class: in the order of their labels.
        confused: pairs, the most frequent first.
        calibration: bins that are not empty.
        coverage: accuracy for falling shares of answers.
        images_per_second: with reading and decoding.
    """

    top1: float
    top5: float
    top1_interval: tuple[float, float]
    classes: int
    images: int
    ece: float
    answered: float
    answered_accuracy: float
    unknown_refused: float
    foreign: int
    foreign_refused: float | None
    rejected: dict[str, int]
    by_class: list[ClassScore]
    confused: list[Confusion]
    calibration: list[Bin]
    coverage: list[Coverage]
    images_per_second: float


@dataclass(frozen=True)
class Photographs:
    """Images that were read: paths, labels, features (n, d); and how many were not, by reason."""

    paths: list[str]
    labels: list[str]
    features: Float64
    rejected: Counter[str]


def read_photographs(
    folder: Location,
    images: Iterable[ListedImage],
    photographer: Photographer,
    progress: Progress | None = None,
) -> Photographs:
    """The features of images, on all processors of this machine.

    Raises:
        InputError: none of them can be read.
        SetupError: the store does not answer.
    """
    paths, labels, features = list[str](), list[str](), list[Float64]()
    rejected = Counter[str]()
    for image, found in _look_at(folder, images, photographer):
        if isinstance(found, Rejection):
            rejected[str(found.reason)] += 1
        else:
            paths.append(image.path)
            labels.append(image.label)
            features.append(found)
        if progress:
            progress.update(len(paths) + rejected.total(), rejected.total())
    if not paths:
        raise InputError(f"The input {folder} holds no image that can be read.")
    return Photographs(paths, labels, np.array(features), rejected)


def _look_at(
    folder: Location, images: Iterable[ListedImage], photographer: Photographer
) -> Iterator[tuple[ListedImage, Float64 | Rejection]]:
    loader = photographer.loader(folder)

    def look(image: ListedImage) -> Float64 | Rejection:
        picture = loader(image)
        return picture if isinstance(picture, Rejection) else photographer.reduce(picture.pixels)

    for image, found in read_ahead(images, look, os.cpu_count() or 1):
        if isinstance(found, OSError):  # the loader makes rejections of those that files raise
            raise found
        yield image, found


def evaluate(recogniser: Recogniser, photographs: Photographs, seconds: float) -> Evaluation:
    """Compare the answers with the labels.

    Args:
        recogniser: whose answers.
        photographs: with labels, of which none need be known to the recogniser.
        seconds: that reading them took.

    Raises:
        InputError: no image is of a class that the recogniser knows.
    """
    known, own = _classes_of(recogniser, photographs)
    cosines = recogniser.cosines(photographs.features)
    sure = cosines.max(axis=1) >= recogniser.record.threshold
    foreign_sure, sure = sure[~known], sure[known]
    cosines = cosines[known]
    paths = [path for path, is_known in zip(photographs.paths, known, strict=True) if is_known]
    likely = recogniser.confidences(cosines)
    order = np.argsort(-cosines, axis=1, kind="stable")
    right, among = order[:, 0] == own, (order[:, :ANSWERS] == own[:, None]).any(axis=1)
    confidence = likely.max(axis=1)
    bins = calibrate(confidence, right)
    others = cosines.copy()
    others[np.arange(len(own)), own] = -np.inf
    return Evaluation(
        top1=float(right.mean()),
        top5=float(among.mean()),
        top1_interval=wilson(int(right.sum()), len(right)),
        classes=len(set(own.tolist())),
        images=len(own),
        ece=sum(b.images * abs(b.confidence - b.accuracy) for b in bins) / len(own),
        answered=float(sure.mean()),
        answered_accuracy=float(right[sure].mean()) if sure.any() else 0.0,
        unknown_refused=float((others.max(axis=1) < recogniser.record.threshold).mean()),
        foreign=int((~known).sum()),
        foreign_refused=float(1 - foreign_sure.mean()) if len(foreign_sure) else None,
        rejected=dict(photographs.rejected),
        by_class=[
            ClassScore(
                label=recogniser.labels[number],
                images=int((own == number).sum()),
                top1=float(right[own == number].mean()),
                top5=float(among[own == number].mean()),
            )
            for number in sorted(set(own.tolist()))
        ],
        confused=_confusions(recogniser.labels, own, order[:, 0], paths),
        calibration=bins,
        coverage=_coverages(confidence, right),
        images_per_second=round(len(photographs.paths) / max(seconds, 1e-9), 1),
    )


def calibrated(recogniser: Recogniser, photographs: Photographs) -> Recogniser:
    """The recogniser with confidences and threshold that fit photographs it was not fitted on.

    Raises:
        InputError: no image is of a class that the recogniser knows.
    """
    known, own = _classes_of(recogniser, photographs)
    cosines = recogniser.cosines(photographs.features)[known]
    chosen = {
        "temperature": choose_temperature(cosines, own),
        "threshold": choose_threshold(cosines, own),
        "calibrated_on": len(own),
    }
    return replace(recogniser, record=recogniser.record.model_copy(update=chosen))


def _classes_of(
    recogniser: Recogniser, photographs: Photographs
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which images are of classes that the recogniser knows, and the indices of their classes.

    Raises:
        InputError: none is.
    """
    place = {label: number for number, label in enumerate(recogniser.labels)}
    known = np.array([label in place for label in photographs.labels])
    if not known.any():
        raise InputError(
            f"No image is of a class that the recogniser knows, such as {recogniser.labels[0]!r}.",
            "Give a folder a class with the names that the run had, or --label-from.",
        )
    return known, np.array([place[label] for label in photographs.labels if label in place])


def write_evaluation(evaluation: Evaluation, output: Output) -> None:
    """Keep it in `recogniser/evaluation.json`, beside what it measures."""
    data = evaluation.model_dump_json(indent=2).encode() + b"\n"
    storage.write_bytes(output.recogniser.child("evaluation.json"), data)


def calibrate(confidence: Float64, right: NDArray[np.bool_]) -> list[Bin]:
    """Images by confidence, in `BINS` bins of equal width, less the empty ones."""
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        Bin(
            images=int((number == n).sum()),
            confidence=float(confidence[number == n].mean()),
            accuracy=float(right[number == n].mean()),
        )
        for n in sorted(set(number.tolist()))
    ]


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of 95 % of a share (Wilson, "Probable Inference", 1927)."""
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / (1 + z * z / count)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _confusions(
    labels: tuple[str, ...],
    own: NDArray[np.int64],
    guessed: NDArray[np.int64],
    paths: list[str],
) -> list[Confusion]:
    pairs = defaultdict[tuple[str, str], list[str]](list)
    for mine, guess, path in zip(own, guessed, paths, strict=True):
        if mine != guess:
            pairs[labels[mine], labels[guess]].append(path)
    return [
        Confusion(label=a, taken_for=b, images=len(found), examples=found[:SHOWN_EXAMPLES])
        for (a, b), found in sorted(pairs.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    ]


def _coverages(confidence: Float64, right: NDArray[np.bool_]) -> list[Coverage]:
    surest = right[np.argsort(-confidence, kind="stable")]
    counts = [max(round(share * len(right)), 1) for share in COVERAGES]
    return [
        Coverage(coverage=count / len(right), accuracy=float(surest[:count].mean()))
        for count in counts
    ]
