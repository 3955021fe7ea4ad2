"""A recogniser from statistics and a sample of the images; nothing is trained."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from verger.errors import InputError
from verger.output.files import Identity
from verger.recognise.recogniser import Recogniser, RecogniserRecord, softmax
from verger.reduce.discriminant import Within, choose_shrinkage
from verger.reduce.moments import MOST_CLASSES, ClassMeans, Float64, Statistics
from verger.reduce.sample import SAMPLE_IMAGES, Sample

GROWTH = 1.1
"""How many times the images of a fit there may be before directions and calibration are chosen
anew: so that of a year of nights few do it, and none is far from what all images would give."""

TEMPERATURES = np.geomspace(0.005, 1.0, 60)
"""What is tried for the temperature: cosines differ by hundredths where classes are alike."""


def fit(statistics: Statistics, sample: Sample, identity: Identity) -> Recogniser:
    """Fit discriminants, and choose shrinkage, temperature and threshold by leaving images out.

    The shrinkage by leaving out each image, the other two by leaving out a fifth at a time.

    Args:
        statistics: of all images; the class "" is that of images without a label.
        sample: some of the same images, with features of the same kind.
        identity: what all features have in common.

    Raises:
        InputError: there are fewer than two classes or too many, or no class has two images that
            differ.
    """
    moments, classes = statistics.moments, check_classes(statistics.classes)
    named = np.array([bool(label) for label in classes.labels])
    within = Within.of(moments, classes)
    sample = _labelled(sample)
    place = {label: number for number, label in enumerate(classes.labels)}
    index = np.array([place[label] for label in sample.labels])
    rotated = within.rotate(sample.features)
    shrinkage, right = choose_shrinkage(within, rotated, index)
    cosines = within.hold_out(rotated, index, shrinkage)[:, named]
    own = (np.cumsum(named) - 1)[index]
    discriminant = within.discriminant(shrinkage)
    return Recogniser(
        record=RecogniserRecord(
            identity=identity,
            images=moments.count,
            fitted_on=moments.count,
            shrinkage=shrinkage,
            shrinkages=right,
            temperature=choose_temperature(cosines, own),
            threshold=choose_threshold(cosines, own),
            top1=right[shrinkage],
        ),
        labels=tuple(label for label in classes.labels if label),
        discriminant=discriminant,
        means=discriminant.project(classes.means[named]),
        paths=sample.paths,
        path_labels=sample.labels,
        references=discriminant.project(sample.features).astype(np.float32),
    )


def grow(recogniser: Recogniser, statistics: Statistics, added: Sample) -> Recogniser | None:
    """The recogniser with more images: in the space that it has, and calibrated as it is.

    Args:
        recogniser: that of all other images.
        statistics: of all images.
        added: of the new images, those that are in a sample of all.

    Returns:
        None where it is to be fitted anew: for a class that it does not know, or because many
        images are new.

    Raises:
        InputError: there are too many classes.
    """
    record, classes = recogniser.record, check_classes(statistics.classes)
    added = _labelled(added)
    labels = tuple(label for label in classes.labels if label)
    images, references = statistics.moments.count, len(recogniser.paths) + len(added.paths)
    grown = images > GROWTH * record.fitted_on or references > GROWTH * SAMPLE_IMAGES
    if grown or labels != recogniser.labels:
        return None
    discriminant = recogniser.discriminant
    paths, path_labels = recogniser.paths + added.paths, recogniser.path_labels + added.labels
    projected = discriminant.project(added.features).astype(np.float32)
    vectors = np.concatenate([recogniser.references, projected])
    order = sorted(range(len(paths)), key=paths.__getitem__)
    return replace(
        recogniser,
        record=record.model_copy(update={"images": images}),
        means=discriminant.project(classes.means[[bool(label) for label in classes.labels]]),
        paths=[paths[number] for number in order],
        path_labels=[path_labels[number] for number in order],
        references=vectors[order],
    )


def _labelled(sample: Sample) -> Sample:
    """The images of it that have a class."""
    known = [number for number, label in enumerate(sample.labels) if label]
    paths, labels = ([each[n] for n in known] for each in (sample.paths, sample.labels))
    return Sample(paths, labels, sample.features[known])


def check_classes(classes: ClassMeans | None) -> ClassMeans:
    """The classes of images, of which there are two or more.

    Raises:
        InputError: there are fewer, or more than `MOST_CLASSES`.
    """
    if classes is None:
        raise InputError(f"Its images have more than {MOST_CLASSES:,} classes.")
    if sum(map(bool, classes.labels)) <= 1:
        raise InputError("Its images have fewer than two classes.")
    return classes


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
    known, unknown = np.sort(cosines.max(axis=1)), np.sort(best_of_others(cosines, own))
    tried = np.unique(np.concatenate([known, unknown]))
    kept = 1 - np.searchsorted(known, tried) / len(known)
    wrong = 1 - np.searchsorted(unknown, tried) / len(unknown)
    return float(tried[int(np.argmax(kept - wrong))])


def best_of_others(cosines: Float64, own: NDArray[np.int64]) -> Float64:
    """Of cosines, (n, classes), the largest of each row without that of its own class, (n,)."""
    others = cosines.copy()
    others[np.arange(len(own)), own] = -np.inf
    best: Float64 = others.max(axis=1)
    return best
