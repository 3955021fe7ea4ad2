"""Moments that merge, and come apart again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from verger.reduce.kept import subtract
from verger.reduce.moments import ClassMeans, Moments, Statistics


def random_rows(rows: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, d)) * np.linspace(3, 0.1, d) + 5


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(2, 60),
    removed=st.integers(1, 59),
    d=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
def test_rows_that_are_subtracted_leave_the_others(
    rows: int, removed: int, d: int, seed: int
) -> None:
    data = random_rows(rows, d, seed)
    removed = min(removed, rows - 1)
    left = Moments.of(data).without(Moments.of(data[:removed]))
    expected = Moments.of(data[removed:])
    assert left.count == expected.count
    assert_allclose(left.mean, expected.mean, rtol=1e-9)
    assert_allclose(left.scatter, expected.scatter, atol=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=40), st.integers(1, 39))
def test_class_means_without_rows_are_those_of_the_others(labels: list[str], removed: int) -> None:
    data = random_rows(len(labels), 3, len(labels))
    removed = min(removed, len(labels) - 1)
    whole = ClassMeans.of(labels, data)
    left = whole.without(ClassMeans.of(labels[:removed], data[:removed]))
    expected = ClassMeans.of(labels[removed:], data[removed:])
    assert left.labels == expected.labels
    assert left.counts.tolist() == expected.counts.tolist()
    assert_allclose(left.means, expected.means, rtol=1e-9)


def statistics_of(data: np.ndarray) -> Statistics:
    return Statistics.of([""] * len(data), data)


def test_a_thousand_additions_and_subtractions_stay_exact() -> None:
    data = random_rows(3000, 12, 1)
    whole, first = statistics_of(data[:1000]), 0
    for night in range(1000):
        whole = whole.merge(statistics_of(data[1000 + 2 * night : 1002 + 2 * night]))
        less = subtract(whole, statistics_of(data[first : first + 1]))
        assert less is not None
        whole, first = less, first + 1
    moments = whole.moments
    expected = Moments.of(data[1000:])
    assert moments.count == expected.count == 2000
    assert_allclose(moments.mean, expected.mean, rtol=1e-9)
    assert_allclose(moments.scatter, expected.scatter, rtol=1e-9, atol=1e-9)


def test_most_of_the_rows_or_of_their_scatter_are_not_subtracted() -> None:
    data = random_rows(100, 5, 2)
    outlier = np.full((1, 5), 1e6)
    everything = statistics_of(np.concatenate([data, outlier]))
    assert subtract(everything, statistics_of(outlier)) is None
    assert subtract(statistics_of(data), statistics_of(data[:60])) is None
    assert subtract(statistics_of(data), statistics_of(data[:40])) is not None


def test_of_too_many_classes_no_means_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verger.reduce.moments.MOST_CLASSES", 2)
    data = random_rows(40, 3, 3)
    few, more = Statistics.of(["a", "b"] * 10, data[:20]), Statistics.of(["c"] * 20, data[20:])
    assert few.classes is not None
    assert few.merge(few).classes is not None
    many = few.merge(more)
    assert many.classes is None
    assert Statistics.of(list("abcd") * 10, data).classes is None
    assert many.merge(few).classes is few.merge(many).classes is None
    left = subtract(many, Statistics.of(["c"] * 10, data[30:]))
    assert left is not None
    # They may be few again; that is known once all rows are read.
    assert left.classes is None
    assert left.moments.count == 30
