from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given

from stepensemble.core.releases.fingerprint import Fingerprint, MemberFingerprint
from stepensemble.core.tolerance import TOLERANCE, compare, measure_deviation, place_rows, scale_of


def test_the_same_outputs_have_no_difference() -> None:
    for outputs in ([0.1, 0.9], [[0.1, 0.9], [0.5, 0.5]], ["cat", "dog"], [1, 0], [0.0, 0.0]):
        assert compare(outputs, outputs, labels=False) == compare(outputs, outputs, labels=True) == []


def test_the_tolerance_is_relative_to_the_greatest_output() -> None:
    # The greatest is 1,000, so 0.1 is allowed everywhere, at the small one too.
    assert compare([1000.0, 0.001], [1000.09, 0.09], labels=False) == []
    assert compare([1000.0, 0.001], [1000.0, 0.11], labels=False) == [
        "row 1 is 0.11, not 0.001 (1 of 2 rows differ; 0.0001 of their scale, 1e+03, is allowed)"
    ]
    assert measure_deviation([1000.0, 0.001], [1000.0, 0.101]) == pytest.approx(1e-4)


def test_outputs_that_are_all_0_are_measured_by_1() -> None:
    assert scale_of(np.zeros(3)) == scale_of(np.zeros(0)) == 1.0
    assert compare([0.0, 0.0], [0.0, 1e-9], labels=False) == []
    assert len(compare([0.0, 0.0], [0.0, 1e-3], labels=False)) == 1


def test_some_rows_are_compared_on_the_scale_of_all() -> None:
    expected = [1000.0, 0.001, 2.0]
    assert place_rows(expected, [2, 1], [2.5, 0.01]) == [1000.0, 0.01, 2.5]
    assert compare(expected, place_rows(expected, [1], [0.09]), labels=False) == []
    assert compare([["a", 1]], place_rows([["a", 1]], [0], [["b"]]), labels=True) == ["has shape [1, 1], not [1, 2]"]


def test_labels_are_the_same_or_not() -> None:
    # Of 20,001 classes the neighbouring one is within the tolerance, and still another answer.
    assert compare([20_000.0, 3.0], [19_999.0, 3.0], labels=False) == []
    assert compare([20_000.0, 3.0], [19_999.0, 3.0], labels=True) == [
        "row 0 is 19999.0, not 20000.0 (1 of 2 rows differ)"
    ]
    assert compare(["cat", "dog"], ["cat", "cow"], labels=True) == ['row 1 is "cow", not "dog" (1 of 2 rows differ)']


@pytest.mark.parametrize(
    ("expected", "actual", "message"),
    [
        ([0.1, 0.2], [0.1], "has shape [1], not [2]"),
        ([0.1, 0.2], [[0.1, 0.2]], "has shape [1, 2], not [2]"),
        ([0.1, 0.2], ["a", "b"], "holds names, not numbers"),
        (["a", "b"], [0.1, 0.2], "holds numbers, not names"),
        ([0.1, None], [0.1, 0.2], "row 1 is 0.2, not NaN (1 of 2 rows differ"),  # JSON writes null for NaN
        ([0.1, 0.2], [float("nan"), 0.2], "row 0 is NaN, not 0.1 (1 of 2 rows differ"),
        ([0.1, 0.2], [float("inf"), 0.2], "row 0 is Infinity, not 0.1 (1 of 2 rows differ"),
        ([[0.1, 0.9], [0.2, 0.8]], [[0.1, 0.9], [0.8, 0.2]], "row 1 is [0.8, 0.2], not [0.2, 0.8] (1 of 2 rows"),
    ],
)
def test_differences_are_reported_with_the_first_row(expected: Any, actual: Any, message: str) -> None:
    (found,) = compare(expected, actual, labels=False)
    assert found.startswith(message)


def test_nan_and_infinity_equal_themselves() -> None:
    odd = [float("nan"), float("inf"), float("-inf")]
    assert compare(odd, odd, labels=False) == []
    assert measure_deviation(odd, odd) == 0.0


def test_what_cannot_be_subtracted_has_no_deviation() -> None:
    assert measure_deviation([1.0], [1.0, 2.0]) is None
    assert measure_deviation(["a"], ["b"]) is None


def test_a_fingerprint_comes_back_from_json_with_every_bit() -> None:
    outputs = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    taken = Fingerprint("d" * 64, "t", ({"x": 1.5},), {"a": MemberFingerprint("litert", outputs.tolist())})
    back = msgspec.json.decode(msgspec.json.encode(taken), type=Fingerprint)
    assert np.array(back.members["a"].outputs, dtype=np.float32).tobytes() == outputs.tobytes()


@given(
    st.lists(st.integers(-1000, 1000).map(lambda number: number / 8), min_size=1, max_size=8),
    st.floats(0, 0.999),
    st.floats(1.001, 100),
)
def test_law_what_is_within_the_tolerance_is_the_same_and_what_is_beyond_is_not(
    outputs: list[float], within: float, beyond: float
) -> None:
    scale = max(map(abs, outputs)) or 1.0
    near = [outputs[0] + within * TOLERANCE * scale, *outputs[1:]]
    far = [outputs[0] + beyond * TOLERANCE * scale, *outputs[1:]]
    assert compare(outputs, near, labels=False) == []
    assert len(compare(outputs, far, labels=False)) == 1
