"""Golden rows once more: what is predicted, and how it compares."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepensemble.admission.repeatability import (
    AGAIN,
    ALONE,
    BESIDE,
    MAX_ALONE,
    ORDER,
    Repeatability,
    are_rows_equal,
    compare_repeats,
    list_repeats,
)
from stepensemble.core.errors import InputMismatch


def rows(count: int) -> Any:
    return {"x": np.arange(count, dtype=np.float32)}


def test_rows_are_repeated_alone_again_and_in_another_order() -> None:
    repeats = list_repeats(rows(3), None)
    assert [(one.way, one.numbers, one.columns["x"].tolist()) for one in repeats] == [
        (ALONE, (0,), [0]),
        (AGAIN, (0, 1, 2), [0, 1, 2]),
        (ORDER, (2, 1, 0), [2, 1, 0]),
        (ALONE, (1,), [1]),
        (ALONE, (2,), [2]),
    ]


def test_some_of_many_rows_are_predicted_alone_with_the_first_and_the_last() -> None:
    alone = [one.numbers[0] for one in list_repeats(rows(1000), None) if one.way == ALONE]
    assert (len(alone), alone[0], alone[-1]) == (MAX_ALONE, 0, 999)


def test_equal_rows_are_put_beside_drawn_ones() -> None:
    equal_rows = {"x": np.zeros(2, np.float32)}
    assert are_rows_equal(equal_rows)
    assert not are_rows_equal(rows(2))
    (beside,) = [one for one in list_repeats(equal_rows, rows(2)) if one.way == BESIDE]
    assert (beside.numbers, beside.columns["x"].tolist()) == ((0,), [0, 0, 1])


def compared(*outputs: Any, others: Any = None, labels: bool = False) -> Repeatability:
    """Compare what two rows of 0 and 1,000 come to in the ways of `list_repeats`."""
    expected = np.array([[0.0], [1000.0]])
    repeats = list_repeats(rows(2), others)
    results = [one if one is None or isinstance(one, Exception) else np.array(one)[:, None] for one in outputs]
    return compare_repeats(expected, list(zip(repeats, results, strict=True)), labels=labels)


def test_rounding_differences_are_within_the_scale_of_all_rows() -> None:
    assert compared([0.09], [0, 1000.05], [1000, 0.0], [999.95]) == Repeatability()


def test_each_way_in_which_a_row_differs_is_reported() -> None:
    found = compared([0.2], [0, 1000], [0, 1000], [1000])
    assert [one.partition(" (")[0] for one in found.differences] == [
        "alone, row 0 is 0.2, not 0.0",
        "in another order, row 0 is 1000.0, not 0.0",
    ]
    assert compared([0.09], [0, 1000], [1000, 0], [1000], labels=True).differences[0].startswith("alone, row 0 is 0.09")


def test_failures_differ_from_differences_and_untested_ways() -> None:
    failed = compared(InputMismatch("it takes 2"), [0, 1000], None, None)
    assert failed.failures == ("alone, it fails: InputMismatch: it takes 2",)
    assert (failed.differences, failed.untested) == ((), ("in another order",))
    assert compared([0], [0, 1000, 0], [1000, 0], [1000]).failures == (
        "again, its output has the shape [3, 1], not [2, 1]",
    )
    # Drawn rows that a model refuses are not its fault.
    beside = compared([0], [0, 1000], [1000, 0], [1000], InputMismatch("no such index"), others=rows(2))
    assert beside == Repeatability(untested=(BESIDE,))
