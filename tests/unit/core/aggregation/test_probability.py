from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy import special, stats

from stepensemble.core.aggregation.probability import (
    complement,
    entropy,
    normalize_rows,
    row_max,
    row_sum,
    sigmoid,
    softmax,
)

Floats = NDArray[np.float64]

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
NUMBERS = arrays(np.float64, SHAPES, elements=st.floats(-700, 700))
SUPPORTS = arrays(np.float64, SHAPES, elements=st.just(0.0) | st.floats(1e-300, 1))


def strictly() -> np.errstate:
    """Turn NumPy's warnings into errors; that a power is too small for a float is no fault."""
    return np.errstate(over="raise", divide="raise", invalid="raise")


@given(arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e4, 1e4)))
def test_the_sigmoid_is_scipys_expit(logits: Floats) -> None:
    with strictly():
        assert_allclose(sigmoid(logits), special.expit(logits), rtol=1e-14, atol=1e-300)


def test_the_sigmoid_keeps_its_precision_where_it_is_small() -> None:
    # 1 / (1 + e^40) = e^-40 (1 - e^-40 + …), and e^-40 = 4.248354255291589e-18
    assert_allclose(sigmoid(np.array([-40.0])), [4.248354255291589e-18], rtol=1e-15)
    assert sigmoid(np.array([0.0, np.inf, -np.inf, 1.7e308, -1.7e308])).tolist() == [0.5, 1, 0, 1, 0]


@given(NUMBERS)
def test_the_softmax_is_scipys(logits: Floats) -> None:
    with strictly():
        assert_allclose(softmax(logits), special.softmax(logits, axis=1), rtol=1e-12, atol=1e-300)
        by_logarithms = np.exp(logits - special.logsumexp(logits, axis=1, keepdims=True))
        assert_allclose(softmax(logits), by_logarithms, rtol=1e-10, atol=1e-300)


@given(NUMBERS, st.floats(0.05, 20))
def test_a_temperature_divides_the_logits(logits: Floats, temperature: float) -> None:
    expected = special.softmax(logits / temperature, axis=1)
    assert_allclose(softmax(logits, temperature), expected, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize(
    ("logits", "temperature", "expected"),
    [
        ([1e4, -1e4], 1.0, [1, 0]),
        ([1.7e308, -1.7e308], 1.0, [1, 0]),
        ([1.7e308, 1.7e308], 0.5, [0.5, 0.5]),
        ([3.0, 2.0, 3.0], 5e-324, [0.5, 0, 0.5]),
        ([1e300, -1e300, 0.0], 1e308, [1 / 3, 1 / 3, 1 / 3]),
        ([0.0, -np.inf], 7.0, [1, 0]),
    ],
)
def test_no_logits_are_too_large(logits: list[float], temperature: float, expected: list[float]) -> None:
    with strictly():
        assert_allclose(softmax(np.array([logits]), temperature), [expected], rtol=1e-7)


def test_rows_are_divided_by_their_sums() -> None:
    supports = np.array([[1.0, 3.0], [0.0, 0.5], [0.2, 0.8]])
    assert normalize_rows(supports).tolist() == [[0.25, 0.75], [0, 1], [0.2, 0.8]]


def test_a_row_of_zeros_becomes_uniform() -> None:
    with strictly():
        assert normalize_rows(np.array([[0.0] * 4, [0, 0, 0, 2]])).tolist() == [[0.25] * 4, [0, 0, 0, 1]]


@given(SUPPORTS)
def test_normalized_rows_sum_to_1(supports: Floats) -> None:
    normalized = normalize_rows(supports)
    assert_allclose(normalized.sum(axis=1), 1.0, rtol=0, atol=1e-12)
    assert np.all((normalized >= 0) & (normalized <= 1))


@given(SUPPORTS)
def test_the_entropy_is_scipys(supports: Floats) -> None:
    probabilities = normalize_rows(supports)
    with strictly():
        found = entropy(probabilities)
    assert_allclose(found, stats.entropy(probabilities, axis=1), rtol=1e-9, atol=1e-12)
    assert np.all(found >= 0)
    assert np.all(found <= np.log(supports.shape[1]) + 1e-12)


def test_the_entropy_of_certainty_is_0_and_of_ignorance_the_logarithm_of_the_classes() -> None:
    certain, ignorant = entropy(np.array([[0.0, 1.0, 0.0, 0.0], [0.25] * 4])).tolist()
    assert str(certain) == "0.0"  # and not -0.0, which JSON would show
    assert ignorant == pytest.approx(np.log(4), abs=1e-15)


@given(NUMBERS)
def test_sums_and_maxima_are_numpys(numbers: Floats) -> None:
    assert_allclose(row_sum(numbers), numbers.sum(axis=1), rtol=1e-12, atol=1e-9)
    assert_array_equal(row_max(numbers), numbers.max(axis=1))


@given(NUMBERS, st.sampled_from("CF"))
def test_no_rows_result_depends_on_other_rows(numbers: Floats, order: str) -> None:
    laid_out = np.array(numbers, order=order)
    positive = np.abs(laid_out)
    for function, rows in [
        (sigmoid, laid_out),
        (softmax, laid_out),
        (normalize_rows, positive),
        (lambda part: entropy(normalize_rows(part)), positive),
        (row_sum, laid_out),
    ]:
        together = function(rows)
        for index in range(len(rows)):
            assert_array_equal(together[index : index + 1], function(rows[index : index + 1]))


@given(arrays(np.float64, st.integers(1, 9), elements=st.floats(0, 1)))
def test_two_classes_sum_to_one(second: Floats) -> None:
    both = complement(second)
    assert_array_equal(both[:, 1], second)
    assert_array_equal(both[:, 0] + both[:, 1], np.ones(len(second)))
