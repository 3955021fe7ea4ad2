"""Discriminants in closed form against scikit-learn and against fits that leave rows out."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from verger.errors import InputError
from verger.output.files import Identity
from verger.output.layout import ListedImage
from verger.recognise.evaluate import Photographs, evaluate
from verger.recognise.fit import fit as fit_recogniser
from verger.reduce import discriminant
from verger.reduce.discriminant import FOLDS, LEAST_DIMENSIONS, Within, choose_shrinkage, unit
from verger.reduce.moments import ClassMeans, Moments, Statistics
from verger.reduce.sample import Sample
from verger.store.location import Location


def clouds(
    classes: int, a_class: int, d: int, apart: float = 3.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Rows around centres, long in some directions, and the index of each row's class."""
    random = np.random.default_rng(seed)
    index = np.repeat(np.arange(classes), a_class)
    centres = random.normal(size=(classes, d)) * apart
    spread = random.normal(size=(d, d)) * np.linspace(2, 0.1, d)
    return centres[index] + random.normal(size=(len(index), d)) @ spread + 5, index


def names(index: np.ndarray) -> list[str]:
    return [f"class {number:02}" for number in index]


def fit(rows: np.ndarray, index: np.ndarray) -> Within:
    return Within.of(Moments.of(rows), ClassMeans.of(names(index), rows))


@given(st.integers(0, 1000), st.lists(st.integers(0, 3), min_size=2, max_size=30))
@settings(max_examples=30, deadline=None)
def test_class_means_merge_in_any_partition(seed: int, labels: list[int]) -> None:
    rows = np.random.default_rng(seed).normal(size=(len(labels), 3))
    cut = 1 + seed % (len(labels) - 1)
    words = list(map(str, labels))
    whole = ClassMeans.of(words, rows)
    merged = ClassMeans.of(words[:cut], rows[:cut]).merge(ClassMeans.of(words[cut:], rows[cut:]))
    assert merged.labels == whole.labels == tuple(sorted(set(words)))
    assert_array_equal(merged.counts, whole.counts)
    assert_allclose(merged.means, whole.means, atol=1e-12)


def test_its_space_is_that_of_scikit_learn() -> None:
    rows, index = clouds(classes=5, a_class=40, d=12)
    ours = fit(rows, index).discriminant(0.0)
    theirs = LinearDiscriminantAnalysis(solver="eigen").fit(rows, index).transform(rows)
    scores = (rows - ours.mean) @ ours.directions
    assert scores.shape == (200, 12)
    scores = scores[:, :4]  # the others only fill up the space
    theirs -= theirs.mean(axis=0)  # scikit-learn does not, with this solver
    # It divides the scatter by n, and we by n less the classes.
    ratio = np.linalg.norm(theirs, axis=0) / np.linalg.norm(scores, axis=0)
    assert_allclose(ratio, np.sqrt(200 / 195), rtol=1e-6)
    assert_allclose(np.abs((unit(theirs.T) * unit(scores.T)).sum(axis=1)), 1.0, atol=1e-9)
    assert_allclose(np.linalg.norm(ours.project(rows), axis=1), 1.0)


@pytest.mark.parametrize("shrinkage", [0.0, 0.2, 0.9])
def test_leaving_a_row_out_equals_a_fit_without_it(shrinkage: float) -> None:
    rows, index = clouds(classes=4, a_class=9, d=6, apart=1.0)
    whole = fit(rows, index)
    cosines = whole.leave_one_out(whole.rotate(rows), index, shrinkage)
    for number in range(len(rows)):
        others = np.arange(len(rows)) != number
        without = ClassMeans.of(names(index[others]), rows[others])
        residuals = rows[others] - without.means[index[others]]
        # As in `leave_one_out`, the mean of all rows, the divisor and the sphere stay.
        covariance = residuals.T @ residuals / (len(rows) - 4)
        shrunk = (1 - shrinkage) * covariance + shrinkage * whole.variances.mean() * np.eye(6)
        metric = np.linalg.inv(shrunk)
        row, means = rows[number] - whole.moments.mean, without.means - whole.moments.mean
        lengths = np.sqrt(np.einsum("cd,de,ce->c", means, metric, means) * (row @ metric @ row))
        assert_allclose(cosines[number], means @ metric @ row / lengths, rtol=1e-7)


@pytest.mark.parametrize(("classes", "d"), [(4, 30), (2, 6), (20, 12), (30, 40), (4, 60)])
def test_holding_rows_out_equals_a_fit_without_them(classes: int, d: int) -> None:
    rows, index = clouds(classes=classes, a_class=10, d=d, apart=1.0)
    shrinkage, whole = 0.2, fit(rows, index)
    cosines = whole.hold_out(whole.rotate(rows), index, shrinkage)
    missing = max(min(LEAST_DIMENSIONS, d) - classes + 1, 0)
    for fold in range(FOLDS):
        out = np.tile(np.arange(10) // 2 == fold, classes)  # neighbours, of each class
        without = ClassMeans.of(names(index[~out]), rows[~out])
        residuals = rows[~out] - without.means[index[~out]]
        covariance = residuals.T @ residuals / ((~out).sum() - classes)
        # As in `leave_one_out`, the sphere stays.
        shrunk = (1 - shrinkage) * covariance + shrinkage * whole.variances.mean() * np.eye(d)
        white = np.linalg.inv(np.linalg.cholesky(shrunk)).T
        means, mean = without.means, rows[~out].mean(axis=0)
        filling = np.linalg.eigh(covariance)[1][:, d - missing :]
        space = np.vstack([(means - mean)[:-1] @ white, filling.T @ white])  # the last one follows
        axes = np.linalg.svd(space, full_matrices=False)[2]
        there = unit((rows[out] - mean) @ white @ axes.T)
        expected = there @ unit((means - mean) @ white @ axes.T).T
        assert_allclose(cosines[out], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("classes", [2, 3, 40])
def test_cosines_of_new_rows_are_as_those_of_rows_held_out(classes: int) -> None:
    rows, index = clouds(classes, a_class=60, d=70, apart=1.5)
    known = np.tile(np.arange(60) < 30, classes)
    within = fit(rows[known], index[known])
    held = within.hold_out(within.rotate(rows[known]), index[known], 0.2)
    found = within.discriminant(0.2)
    new = found.project(rows[~known]) @ found.project(within.classes.means).T
    n, own = np.arange(len(held)), index[known]
    assert_allclose(held[n, own].mean(), new[n, own].mean(), atol=0.03)
    seen = found.project(rows[known]) @ found.project(within.classes.means).T
    assert seen[n, own].mean() > new[n, own].mean() + 0.01, "rows that were fitted flatter"


def test_directions_that_fill_are_found_among_those_of_most_variance(monkeypatch) -> None:
    rows, index = clouds(classes=4, a_class=100, d=90)
    rows = rows * np.geomspace(1, 0.01, 90)
    within = fit(rows, index)
    held = within.hold_out(within.rotate(rows), index, 0.2)
    monkeypatch.setattr(discriminant, "FILLED_AMONG", 45)
    among_half = within.hold_out(within.rotate(rows), index, 0.2)
    assert 0 < np.abs(among_half - held).max() < 0.01


def test_of_two_classes_a_row_that_is_like_neither_is_told() -> None:
    rows, index = clouds(classes=3, a_class=40, d=40)
    two = index < 2
    within = fit(rows[two], index[two])
    found = within.discriminant(0.2)
    cosines = found.project(rows) @ found.project(within.classes.means).T
    assert found.directions.shape == (40, LEAST_DIMENSIONS)
    best = cosines.max(axis=1)
    assert np.abs(cosines).max() < 0.9999, "a cosine of one says nothing"
    assert best[two].min() > np.median(best[~two])


def test_a_class_of_one_image_is_never_its_own_witness() -> None:
    rows, index = clouds(classes=3, a_class=5, d=4)
    rows, index = np.vstack([rows, rows[:1] + 9]), np.append(index, 3)
    within = fit(rows, index)
    cosines = within.leave_one_out(within.rotate(rows), index, 0.1)
    assert cosines[-1, 3] == -1.0
    assert np.isfinite(cosines).all()
    held = within.hold_out(within.rotate(rows), index, 0.1)
    assert held[-1, 3] == -1.0
    assert np.isfinite(held).all()


def test_shrinkage_is_chosen_where_there_are_fewer_rows_than_features() -> None:
    rows, index = clouds(classes=6, a_class=10, d=70, apart=2.0)
    within = fit(rows, index)
    chosen, right = choose_shrinkage(within, within.rotate(rows), index)
    best = max(right.values())
    assert right[chosen] >= best - np.sqrt(best * (1 - best) / len(rows))
    assert all(right[other] < right[chosen] for other in right if other > chosen)
    assert chosen < max(right)  # which forgets how classes are spread


def test_shrinkage_is_chosen_where_every_row_of_many_blocks_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As sums of shares, which round, all of them would be more than one.
    monkeypatch.setattr(discriminant, "BLOCK", 2)
    rows, index = clouds(classes=3, a_class=14, d=4, apart=100.0)
    within = fit(rows, index)
    chosen, right = choose_shrinkage(within, within.rotate(rows), index)
    assert right[chosen] == 1.0


def test_it_refuses_what_has_nothing_to_tell_apart() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 3))
    with pytest.raises(InputError, match="same class"):
        fit(rows, np.zeros(5, int))
    with pytest.raises(InputError, match="No class has two images that differ"):
        fit(np.repeat(rows[:2], 3, axis=0), np.repeat([0, 1], 3))


def test_confidence_and_threshold_fit_what_was_not_fitted() -> None:
    rows, index = clouds(classes=24, a_class=30, d=200, apart=2.5)
    known, new = np.tile(np.arange(30) < 20, 24) & (index < 20), np.tile(np.arange(30) >= 20, 24)
    sample = Sample(list(map(str, np.flatnonzero(known))), names(index[known]), rows[known])
    statistics = Statistics.of(names(index[known]), rows[known])
    identity = Identity(backbone="", weights_sha256="", precision="", label_from="", decoding="")
    fitted = fit_recogniser(statistics, sample, identity)
    images = [ListedImage(str(n), f"class {index[n]:02}", 0) for n in np.flatnonzero(new)]
    measured = evaluate(fitted, Photographs(Location("/x"), images, rows[new], Counter()), 1.0)
    assert measured.foreign == 40
    assert measured.foreign_refused > 0.5
    assert measured.ece < 0.1
