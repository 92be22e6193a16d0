from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from builders import BINARY, REGRESSION, THREE
from stepensemble.batch.documents import BinEdges
from stepensemble.batch.report.drift import MIN_SHARE, choose_edges, first_edges, stability_index
from stepensemble.core.schema.manifest import BooleanFeature, CategoryFeature, NumberFeature, TensorFeature

counts = st.integers(1, 12).flatmap(
    lambda bins: st.tuples(*[st.lists(st.integers(0, 10**9), min_size=bins, max_size=bins).filter(any)] * 2)
)
finite = st.floats(-1e9, 1e9)


@given(counts)
def test_the_index_is_symmetric_and_never_negative(histograms: tuple[list[int], list[int]]) -> None:
    before, now = histograms
    assert stability_index(before, now) >= 0
    assert stability_index(before, now) == pytest.approx(stability_index(now, before), rel=1e-12)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=12).filter(any), st.integers(1, 1000))
def test_equal_shares_have_no_drift_for_any_number_of_rows(before: list[int], times: int) -> None:
    assert stability_index(before, [times * count for count in before]) == pytest.approx(0, abs=1e-12)


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 1000)), min_size=1, max_size=12))
def test_without_rare_bins_it_is_the_divergence_in_both_directions(pairs: list[tuple[int, int]]) -> None:
    # SciPy normalizes and computes each direction; with 12 bins of 1 to 1,000 rows no share is below the minimum.
    before, now = zip(*pairs, strict=True)
    there, back = entropy(before, now), entropy(now, before)
    assert stability_index(before, now) == pytest.approx(there + back, abs=1e-12)


def test_by_hand() -> None:
    # Half and half became a quarter and three quarters: (1/2 - 1/4) ln 2 + (1/2 - 3/4) ln(2/3) = ln(3) / 4.
    assert stability_index([1, 1], [10, 30]) == pytest.approx(math.log(3) / 4)
    # All rows moved: twice (1 - minimum) ln(1 / minimum).
    expected = 2 * (1 - MIN_SHARE) * math.log(1 / MIN_SHARE)
    assert stability_index([5, 0], [0, 7]) == pytest.approx(expected)


def test_a_histogram_without_rows_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="without rows"):
        stability_index([0, 0], [1, 2])


def test_edges_share_the_rows_equally() -> None:
    values = np.arange(1000, dtype=np.float64)
    edges = choose_edges(np.append(values, np.nan))
    assert len(edges) == 9
    assert np.histogram(values, [-np.inf, *edges, np.inf])[0] == pytest.approx(100, abs=1)
    assert choose_edges(np.append(np.zeros(999), np.arange(20))) == ()  # more than nine tenths have the smallest value


def test_few_distinct_values_have_a_bin_each_even_if_they_are_rare() -> None:
    assert choose_edges(np.array([0.0] * 99 + [1.0])) == (1.0,)
    assert choose_edges(np.array([3.0, 1.0, 2.0, np.nan])) == (2.0, 3.0)
    assert choose_edges(np.array([7.0, 7.0])) == ()
    assert choose_edges(np.array([np.nan])) == ()


@given(st.lists(finite, min_size=1, max_size=200))
def test_edges_are_ascending_and_within_the_values(values: list[float]) -> None:
    edges = choose_edges(np.array(values))
    assert list(edges) == sorted(set(edges))
    assert all(min(values) < edge <= max(values) for edge in edges)
    assert len(edges) < 10


def test_every_feature_and_the_prediction_have_bins_in_the_first_run() -> None:
    features = (
        NumberFeature("age"),
        BooleanFeature("alone"),
        CategoryFeature("port", ("C", "Q", "S"), unknown="other"),
        CategoryFeature("cabin", tuple(range(1000))),
        TensorFeature("picture", (2, 2)),
        NumberFeature("never"),
    )
    values = {"age": np.array([1.0, 2.0]), "cabin": np.array([5.0, 7.0, 7.0])}
    edges = first_edges(features, BINARY, values)
    assert edges.features == {
        "age": (2.0,),
        "alone": (1.0,),
        "port": (1.0, 2.0, 3.0),
        "cabin": (7.0,),
        "never": (),
    }
    assert edges.prediction == tuple(number / 20 for number in range(1, 20))
    assert first_edges((), THREE, {}) == BinEdges((1.0, 2.0))


def test_a_regressions_bins_separate_numbers_that_differ_by_an_eighth() -> None:
    edges = first_edges((), REGRESSION, {}).prediction
    assert list(edges) == sorted(set(edges))
    assert set(edges) == {-edge for edge in edges}
    for magnitude in (0.001, 1.0, 12.0, 9e8):
        assert np.searchsorted(edges, magnitude, "right") != np.searchsorted(edges, 1.13 * magnitude, "right")
