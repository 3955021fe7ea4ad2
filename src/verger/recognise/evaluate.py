"""How often the recogniser is right, and how well it knows that."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import compress
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from verger.errors import InputError
from verger.images.ahead import read_ahead
from verger.output.evaluation import Bin, ClassScore, Confusion, Coverage, Evaluation, Mistake
from verger.output.layout import ListedImage, Rejection
from verger.progress import Progress
from verger.recognise.fit import best_of_others, choose_temperature, choose_threshold
from verger.recognise.photo import Photographer
from verger.recognise.recogniser import ANSWERS, Recogniser
from verger.reduce.moments import Float64
from verger.store.location import Location

BINS = 15
"""Of confidences, for the calibration error: as many as Guo et al. take."""

SHOWN_EXAMPLES = 3
"""Images of each pair of classes that are confused: as many are named, and shown."""

SHOWN_MISTAKES = 24
"""Images taken for another class that are kept, to be shown."""

COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
"""Shares of the images that are answered, the surest first, for which the accuracy is given."""


@dataclass(frozen=True)
class Photographs:
    """Images of a folder: those read, features (n, d) of each, and how many were not, by reason."""

    folder: Location
    images: list[ListedImage]
    features: Float64
    rejected: Counter[str]


def read_photographs(
    folder: Location,
    images: Iterable[ListedImage],
    photographer: Photographer,
    progress: Progress,
) -> Photographs:
    """The features of images, on all processors of this machine.

    Raises:
        InputError: none of them can be read.
        SetupError: the store does not answer.
    """
    loader = photographer.loader(folder)

    def look(image: ListedImage) -> Float64 | Rejection:
        picture = loader(image)
        return picture if isinstance(picture, Rejection) else photographer.reduce(picture.pixels)

    read, features, rejected = list[ListedImage](), list[Float64](), Counter[str]()
    for image, found in read_ahead(images, look, os.cpu_count() or 1):
        if isinstance(found, OSError):  # the loader makes rejections of those that files raise
            raise found
        if isinstance(found, Rejection):
            rejected[str(found.reason)] += 1
        else:
            read.append(image)
            features.append(found)
        progress.update(len(read) + rejected.total(), rejected.total())
    if not read:
        raise InputError(f"The input {folder} holds no image that can be read.")
    return Photographs(folder, read, np.array(features), rejected)


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
    images = list(compress(photographs.images, known))
    likely = recogniser.confidences(cosines)
    order = np.argsort(-cosines, axis=1, kind="stable")
    right, among = order[:, 0] == own, (order[:, :ANSWERS] == own[:, None]).any(axis=1)
    confidence = likely.max(axis=1)
    bins = calibrate(confidence, right)
    refused = best_of_others(cosines, own) < recogniser.record.threshold
    return Evaluation(
        input=str(photographs.folder),
        top1=float(right.mean()),
        top5=float(among.mean()),
        top1_interval=wilson(int(right.sum()), len(right)),
        classes=len(set(own.tolist())),
        images=len(own),
        ece=sum(b.images * abs(b.confidence - b.accuracy) for b in bins) / len(own),
        answered=float(sure.mean()),
        answered_accuracy=float(right[sure].mean()) if sure.any() else 0.0,
        unknown_refused=float(refused.mean()),
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
        confused=_confusions(recogniser.labels, order[:, 0], images),
        mistakes=_mistakes(recogniser, images, photographs.features[known], likely),
        calibration=bins,
        coverage=_coverages(confidence, right),
        images_per_second=round(len(photographs.images) / max(seconds, 1e-9), 1),
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
    labels = [image.label for image in photographs.images]
    known = np.array([label in place for label in labels])
    if not known.any():
        raise InputError(
            f"No image is of a class that the recogniser knows, such as {recogniser.labels[0]!r}.",
            "Give a folder a class with the names that the run had, or --label-from.",
        )
    return known, np.array([place[label] for label in labels if label in place])


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


def wilson(right: int, count: int) -> tuple[float, float]:
    """The interval of 95 % of a share (Wilson, "Probable Inference", 1927)."""
    share, z = right / count, 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / (1 + z * z / count)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _confusions(
    labels: tuple[str, ...], guessed: NDArray[np.int64], images: list[ListedImage]
) -> list[Confusion]:
    pairs = defaultdict[tuple[str, str], list[str]](list)
    for guess, image in zip(guessed, images, strict=True):
        if labels[guess] != image.label:
            pairs[image.label, labels[guess]].append(image.path)
    return [
        Confusion(label=a, taken_for=b, images=len(found), examples=found[:SHOWN_EXAMPLES])
        for (a, b), found in sorted(pairs.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    ]


def _mistakes(
    recogniser: Recogniser, images: list[ListedImage], features: Float64, likely: Float64
) -> list[Mistake]:
    """The wrong answers with the most confidence, of a pair of classes `SHOWN_EXAMPLES` at most."""
    guessed = likely.argmax(axis=1)
    kept, of_pair = list[Mistake](), Counter[tuple[str, str]]()
    for row in np.argsort(-likely.max(axis=1), kind="stable"):
        image, taken_for = images[row], recogniser.labels[guessed[row]]
        pair = image.label, taken_for
        if image.label == taken_for or of_pair[pair] == SHOWN_EXAMPLES:
            continue
        of_pair[pair] += 1
        similar = recogniser.similar(features[row], taken_for)
        kept.append(
            Mistake(
                image=image,
                taken_for=taken_for,
                confidence=float(likely[row, guessed[row]]),
                nearest=similar[0].path if similar else None,
            )
        )
        if len(kept) == SHOWN_MISTAKES:
            break
    return kept


def _coverages(confidence: Float64, right: NDArray[np.bool_]) -> list[Coverage]:
    surest = right[np.argsort(-confidence, kind="stable")]
    counts = [max(round(share * len(right)), 1) for share in COVERAGES]
    return [
        Coverage(coverage=count / len(right), accuracy=float(surest[:count].mean()))
        for count in counts
    ]
