"""A recogniser from moments, class means and a sample of the images; nothing is trained."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verger.errors import InputError
from verger.output.files import Identity
from verger.recognise.recogniser import Recogniser, RecogniserRecord, softmax
from verger.reduce.discriminant import Within, choose_shrinkage
from verger.reduce.moments import ClassMeans, Float64, Moments

SAMPLE_IMAGES = 20_000
"""Of more images a sample is kept as references, and left out one by one to choose by."""

TEMPERATURES = np.geomspace(0.005, 1.0, 60)
"""What is tried for the temperature: cosines differ by hundredths where classes are alike."""


@dataclass(frozen=True)
class Sample:
    """Some of the images that were fitted: paths, labels, and features (n, d)."""

    paths: list[str]
    labels: list[str]
    features: NDArray[np.float32]


def fit(moments: Moments, classes: ClassMeans, sample: Sample, identity: Identity) -> Recogniser:
    """Fit discriminants, and choose shrinkage, temperature and threshold by leaving images out.

    The shrinkage by leaving out each image, the other two by leaving out a fifth at a time.

    Args:
        moments: of the features of all images.
        classes: of the same images; the class "" is that of images without a label.
        sample: some of the same images, with features of the same kind.
        identity: what all features have in common.

    Raises:
        InputError: there are fewer than two classes, or no class has two images that differ.
    """
    check_classes(classes)
    named = np.array([bool(label) for label in classes.labels])
    within = Within.of(moments, classes)
    known = [number for number, label in enumerate(sample.labels) if label]
    features = sample.features[known]
    place = {label: number for number, label in enumerate(classes.labels)}
    index = np.array([place[sample.labels[number]] for number in known])
    rotated = within.rotate(features)
    shrinkage, right = choose_shrinkage(within, rotated, index)
    cosines = within.hold_out(rotated, index, shrinkage)[:, named]
    own = (np.cumsum(named) - 1)[index]
    discriminant = within.discriminant(shrinkage)
    return Recogniser(
        record=RecogniserRecord(
            identity=identity,
            images=moments.count,
            shrinkage=shrinkage,
            shrinkages=right,
            temperature=choose_temperature(cosines, own),
            threshold=choose_threshold(cosines, own),
            top1=right[shrinkage],
        ),
        labels=tuple(label for label in classes.labels if label),
        discriminant=discriminant,
        means=discriminant.project(classes.means[named]),
        paths=[sample.paths[number] for number in known],
        path_labels=[sample.labels[number] for number in known],
        references=discriminant.project(features).astype(np.float32),
    )


def check_classes(classes: ClassMeans) -> None:
    """Refuse images without at least two labels.

    Raises:
        InputError: there are fewer.
    """
    if sum(map(bool, classes.labels)) <= 1:
        raise InputError("Its images have fewer than two classes.")


def choose_temperature(cosines: Float64, own: NDArray[np.int64]) -> float:
    """The temperature under which the right classes are likeliest.

    Guo et al., "On Calibration of Modern Neural Networks", 2017, arXiv:1706.04599, section 4.2.

    Args:
        cosines: (n, classes), of images that were left out.
        own: (n,), the index of each image's class.
    """
    rows = np.arange(len(own))
    losses = [
        -np.log(np.maximum(softmax(cosines / temperature)[rows, own], 1e-12)).mean()
        for temperature in TEMPERATURES
    ]
    return float(TEMPERATURES[int(np.argmin(losses))])


def choose_threshold(cosines: Float64, own: NDArray[np.int64]) -> float:
    """The cosine that best parts images of known classes from those of others.

    An image whose own class is left out stands for those of others. The threshold is where the
    share of known images above it exceeds that of others most (Youden's index, 1950).

    Args:
        cosines: (n, classes), of images that were left out.
        own: (n,), the index of each image's class.
    """
    known = np.sort(cosines.max(axis=1))
    without = cosines.copy()
    without[np.arange(len(own)), own] = -np.inf
    unknown = np.sort(without.max(axis=1))
    tried = np.unique(np.concatenate([known, unknown]))
    kept = 1 - np.searchsorted(known, tried) / len(known)
    wrong = 1 - np.searchsorted(unknown, tried) / len(unknown)
    return float(tried[int(np.argmax(kept - wrong))])
