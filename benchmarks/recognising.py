"""What each part of the recogniser does: space, metric, shrinkage, components.

    .venv/bin/python benchmarks/recognising.py OUTPUT [--others INPUT] [--also OUTPUT] [--json FILE]

Fits on the features in OUTPUT. With --others, photographs of the same classes that were not fitted,
it measures on these; and always by stratified five-fold over those of OUTPUT. Photographs of one
afternoon are alike: where they come in series, five-fold flatters, and the others should be of
another day or place. With --also, another output of the same network and views, its images are
fitted too.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine, tell

from verger.images.listing import list_input
from verger.output.files import open_files
from verger.output.layout import Outcome, Output
from verger.progress import Progress
from verger.recognise.evaluate import read_photographs, wilson
from verger.recognise.fit import choose_temperature
from verger.recognise.photo import open_recogniser
from verger.reduce.discriminant import SHRINKAGES, Within, choose_shrinkage, unit
from verger.reduce.moments import ClassMeans, Float64, Moments
from verger.reduce.pca import solve
from verger.store.location import Location

Labels = np.ndarray[Any, np.dtype[np.str_]]
Split = tuple[Float64, Labels, Float64, Labels]
"""Features and labels to fit, features and labels to measure."""

COMPONENTS = (25, 50, 128, 256)
NEIGHBOURS = (1, 5)


def nearest(known: Float64, labels: Labels, asked: Float64, k: int = 1) -> Labels:
    """The label that the k rows with the largest products say most, the nearer of equals."""
    near = np.argsort(-(asked @ known.T), axis=1)[:, :k]
    said = []
    for row in labels[near]:
        names, first, counts = np.unique(row, return_index=True, return_counts=True)
        said.append(names[np.lexsort((first, -counts))[0]])
    return np.array(said)


def answers(split: Split) -> Iterator[tuple[str, Labels]]:
    """What each method says of the rows to measure."""
    known, labels, asked, _ = split
    moments, classes = Moments.of(known), ClassMeans.of(list(labels), known)
    names = np.array(classes.labels)
    most = min(max(COMPONENTS), len(known) - 1, known.shape[1])
    pca = solve(moments, most)
    of_known, of_asked = pca.project(known), pca.project(asked)
    for components in COMPONENTS:
        if components <= most:
            here, there = of_known[:, :components], of_asked[:, :components]
            # Nearest by distance: |a - b|^2 = |a|^2 - 2 a b + |b|^2.
            far = (here**2).sum(axis=1) - 2 * there @ here.T
            yield f"{components} components, nearest by distance", labels[far.argmin(axis=1)]
            pair = unit(here), labels, unit(there)
            yield f"{components} components, nearest by cosine", nearest(*pair)
    within = Within.of(moments, classes)
    places = np.searchsorted(names, labels)
    chosen, _ = choose_shrinkage(within, within.rotate(known), places)
    for shrinkage in sorted({*SHRINKAGES[::2], chosen}):
        found = within.discriminant(shrinkage)
        here, there = found.project(known), found.project(asked)
        means = found.project(classes.means)
        word = f"discriminants, shrinkage {shrinkage}"
        yield f"{word}, class mean", names[(there @ means.T).argmax(axis=1)]
        for k in NEIGHBOURS:
            yield f"{word}, {k} nearest by cosine", nearest(here, labels, there, k)
        if shrinkage == chosen:
            cosines = there @ means.T
            yield "as chosen, class mean", names[cosines.argmax(axis=1)]
            held = within.hold_out(within.rotate(known), places, chosen)
            prior = choose_temperature(held, places) * np.log(classes.counts / len(known))
            yield "as chosen, prior by class", names[(cosines + prior).argmax(axis=1)]


def together(split: Split, more: Float64, labels: Labels) -> Iterator[tuple[str, Labels]]:
    """What class means say that were fitted together with those of another data set."""
    known, own, asked, _ = split
    rows, all_labels = np.vstack([known, more]), np.concatenate([own, labels])
    classes = ClassMeans.of(list(all_labels), rows)
    within, names = Within.of(Moments.of(rows), classes), np.array(classes.labels)
    chosen, _ = choose_shrinkage(within, within.rotate(rows), np.searchsorted(names, all_labels))
    found = within.discriminant(chosen)
    cosines = found.project(asked) @ found.project(classes.means).T
    yield "fitted with another data set, all classes", names[cosines.argmax(axis=1)]
    cosines[:, ~np.isin(names, own)] = -np.inf
    yield "fitted with another data set, classes of the first", names[cosines.argmax(axis=1)]


def measure(splits: list[Split], say: Callable[[Split], Iterator[tuple[str, Labels]]]) -> Any:
    """The share of right answers of each method over all splits, and its interval of 95 %."""
    right: dict[str, int] = {}
    for split in splits:
        for name, said in say(split):
            right[name] = right.get(name, 0) + int((said == split[3]).sum())
    count = sum(len(split[3]) for split in splits)
    return {
        name: {"top1": round(n / count, 4), "interval": [round(x, 4) for x in wilson(n, count)]}
        for name, n in right.items()
    }


def five_fold(features: Float64, labels: Labels) -> list[Split]:
    """Each row is measured once; a class is spread over all folds."""
    order = np.random.default_rng(0).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    folds = np.empty(len(labels), int)
    folds[order] = np.arange(len(labels)) % 5
    return [
        (features[folds != n], labels[folds != n], features[folds == n], labels[folds == n])
        for n in range(5)
    ]


def read(output: Output) -> tuple[Float64, Labels]:
    """The features and labels of an output, by path."""
    columns = ["path", "label", "features"]
    table = open_files(output).dataset(Outcome.FEATURIZED).to_table(columns=columns).sort_by("path")
    labels = np.array(table["label"].to_pylist())
    rows = table["features"].combine_chunks().flatten().to_numpy()
    return rows.reshape(len(labels), -1).astype(float), labels


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output")
    parser.add_argument("--others")
    parser.add_argument("--also")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    output = Output(Location.parse(given.output))
    features, labels = read(output)
    more = read(Output(Location.parse(given.also))) if given.also else None

    def say(split: Split) -> Iterator[tuple[str, Labels]]:
        yield from answers(split)
        if more:
            yield from together(split, *more)

    record: dict[str, Any] = {"machine": machine(), "images": len(labels)}
    if given.others:
        place, (recogniser, photographer) = Location.parse(given.others), open_recogniser(output)
        listed = list_input(place, recogniser.record.identity.label_from)
        others = read_photographs(place, listed, photographer, Progress())
        wanted = np.array([image.label for image in others.images])
        split = (features, labels, others.features, wanted)
        record["others"] = measure([split], say)
    record["five-fold"] = measure(five_fold(features, labels), say)
    tell(record, given.json)


if __name__ == "__main__":
    main()
