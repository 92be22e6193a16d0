from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from builders import BINARY, REGRESSION, THREE
from stepensemble.core.errors import InvalidOutput
from stepensemble.core.manifest import OutputKind, Task
from stepensemble.core.outputs import TOLERANCE, canonical, check_output, output_width


@pytest.mark.parametrize(
    ("output", "rows", "shape"),
    [
        (np.zeros((2, 1), np.float32), 2, (2,)),
        (np.zeros((2, 1, 1), np.float32), 2, (2,)),
        (np.zeros(2, np.int64), 2, (2,)),
        (np.zeros((2, 3), np.float16), 2, (2, 3)),
        (np.zeros((1, 3), np.uint8), 1, (1, 3)),
    ],
)
def test_a_sound_output_has_one_entry_a_row(output: Any, rows: int, shape: tuple[int, ...]) -> None:
    assert check_output(output, rows).shape == shape


@pytest.mark.parametrize(
    ("output", "rows", "message"),
    [
        (np.zeros((3, 1)), 2, r"the output has shape \[3, 1\] for 2 rows"),
        (np.array(1.0), 1, r"the output has shape \[\] for 1 rows"),
        (np.array([True]), 1, "the output is of type bool, not numbers"),
        (np.array(["a"]), 1, "the output is of type <U1, not numbers"),
        (np.array([None]), 1, "the output is of type object, not numbers"),
        (np.array([1, np.nan, np.inf]), 3, r"the output of row 1 is not finite \(2 of 3 rows\)"),
        (np.array([[1, 2], [-np.inf, 2]]), 2, r"the output of row 1 is not finite \(1 of 2 rows\)"),
    ],
)
def test_an_output_that_is_not_a_finite_number_a_row_is_refused(output: Any, rows: int, message: str) -> None:
    with pytest.raises(InvalidOutput, match=message):
        check_output(output, rows)


@pytest.mark.parametrize(
    ("task", "kind", "output", "expected"),
    [
        (REGRESSION, "value", [2.5, -1], [2.5, -1]),
        (BINARY, "probability", [0.25, 1.0], [[0.75, 0.25], [0, 1]]),
        (BINARY, "label", [0, 1], [[1, 0], [0, 1]]),
        (THREE, "label", [2.0, 0.0], [[0, 0, 1], [1, 0, 0]]),
        (THREE, "probabilities", [[0.2, 0.3, 0.5]], [[0.2, 0.3, 0.5]]),
    ],
)
def test_every_kind_becomes_values_or_class_probabilities(
    task: Task, kind: OutputKind, output: Any, expected: Any
) -> None:
    got = canonical(np.array(output), task, kind)
    assert got.dtype == np.float64
    assert got.tolist() == expected


@pytest.mark.parametrize(
    ("task", "kind", "output", "message"),
    [
        (BINARY, "probability", [[0.1, 0.9]], 'the output has 2 numbers a row, and "probability" means 1'),
        (THREE, "probabilities", [0.5], 'the output has 1 numbers a row, and "probabilities" means 3'),
        (REGRESSION, "value", [[1, 2]], 'the output has 2 numbers a row, and "value" means 1'),
        (BINARY, "probability", [0.5, 1.1], r"the output of row 1, 1.1, is no probability: outside \[0, 1\] \(1 of 2"),
        (BINARY, "probability", [-0.1], r"the output of row 0, -0.1, is no probability: outside \[0, 1\]"),
        (THREE, "probabilities", [[0.5, 0.5, 0.5]], "the output of row 0, 1.5, sums to something other than 1"),
        (THREE, "probabilities", [[-0.5, 0.5, 1.0]], r"is no probabilities: outside \[0, 1\]"),
        (THREE, "label", [3], "the output of row 0, 3., is no label: not one of 0 … 2"),
        (THREE, "label", [-1], "is no label"),
        (THREE, "label", [0.5], "is no label"),
        (BINARY, "label", [2], "is no label: not one of 0 … 1"),
    ],
)
def test_an_output_of_another_kind_is_refused(task: Task, kind: OutputKind, output: Any, message: str) -> None:
    with pytest.raises(InvalidOutput, match=message):
        canonical(np.array(output), task, kind)


@pytest.mark.parametrize(("probability", "clipped"), [(1 + TOLERANCE / 2, 1.0), (-TOLERANCE / 2, 0.0)])
def test_what_low_precision_arithmetic_costs_is_clipped(probability: float, clipped: float) -> None:
    assert canonical(np.array([probability]), BINARY, "probability")[0, 1] == clipped


def test_sums_may_be_off_by_the_tolerance() -> None:
    off = np.array([[0.2, 0.3, 0.5 + TOLERANCE / 2]])
    assert_allclose(canonical(off, THREE, "probabilities"), off)
    with pytest.raises(InvalidOutput):
        canonical(np.add(off, [0, 0, TOLERANCE]), THREE, "probabilities")


@pytest.mark.parametrize(
    ("task", "kind", "width"),
    [(REGRESSION, "value", 1), (BINARY, "probability", 1), (BINARY, "label", 1), (THREE, "probabilities", 3)],
)
def test_the_width_of_an_output_is_known_before_it_is_made(task: Task, kind: OutputKind, width: int) -> None:
    assert output_width(task, kind) == width
