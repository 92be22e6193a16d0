"""Repeatability: is a row's output the same in any batch, in any order, and at every call?

An execution, a batch shard and an HTTP request each put other rows beside the same row. Its output then changes if the
model computes statistics over the batch (BatchNormalization in training mode), draws random numbers (dropout left on)
or keeps a state between calls. So the golden rows are predicted again in each of these ways, and the outputs are
compared with the first ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepensemble.core.arrays import Array
from stepensemble.core.errors import MemberError
from stepensemble.core.preprocessing.columns import Columns
from stepensemble.core.tolerance import compare, place_rows

MAX_ALONE = 8
"""Golden rows that are predicted alone, spread evenly."""

AGAIN, ALONE, ORDER, BESIDE = "again", "alone", "in another order", "beside other rows"
"""The ways in which the golden rows are repeated."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """Golden rows, predicted once more.

    Attributes:
        way: one of the ways above.
        columns: the rows.
        numbers: the numbers of the golden rows that come first in `columns`.
    """

    way: str
    columns: Columns
    numbers: tuple[int, ...]


Result = Array | MemberError | None
"""The output, one entry a row; or the member's error; or None if there was no time left."""


def list_repeats(golden: Columns, others: Columns | None) -> list[Repeat]:
    """List what a member has to predict again, the most informative first.

    Args:
        golden: the golden rows, at least one.
        others: drawn rows, needed if the golden rows are all equal and so do not differ from their neighbours.
    """
    rows = len(next(iter(golden.values())))
    numbers = np.unique(np.linspace(0, rows - 1, min(rows, MAX_ALONE)).round().astype(int)).tolist()
    alone = [Repeat(ALONE, {name: column[[row]] for name, column in golden.items()}, (row,)) for row in numbers]
    again = Repeat(AGAIN, golden, tuple(range(rows)))
    order = Repeat(ORDER, {name: column[::-1] for name, column in golden.items()}, tuple(range(rows))[::-1])
    repeats = [alone[0], again, order, *alone[1:]]
    if others is not None:
        beside = {name: np.concatenate([column[:1], others[name]]) for name, column in golden.items()}
        repeats.append(Repeat(BESIDE, beside, (0,)))
    return repeats


def are_rows_equal(inputs: Mapping[str, Array]) -> bool:
    """Return whether all rows of a member's inputs are the same."""
    return all(bool((values == values[:1]).all()) for values in inputs.values())


@dataclass(frozen=True, slots=True)
class Repeatability:
    """How a member's repeated outputs compare with its first ones, one text per way.

    Attributes:
        failures: it has no output, or one of another shape; no declaration allows that.
        differences: the first row that differs.
        untested: ways that there was no time for, or for which the drawn rows were not valid.
    """

    failures: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    untested: tuple[str, ...] = ()


def compare_repeats(expected: Array, results: Sequence[tuple[Repeat, Result]], *, labels: bool) -> Repeatability:
    """Compare repeated outputs with the first ones.

    Args:
        expected: the first output for the golden rows, one entry a row.
        results: the repeats, each with its output.
        labels: the outputs are labels, which are the same only if they are equal.
    """
    failures: list[str] = []
    differences: list[str] = []
    untested: list[str] = []
    listed = _list_entries(expected)
    for way in dict.fromkeys(repeat.way for repeat, _ in results):
        tested = [(repeat, result) for repeat, result in results if repeat.way == way and result is not None]
        failure = next(filter(None, (_find_failure(expected, *one) for one in tested)), None)
        if not tested or (failure is not None and way == BESIDE):  # drawn rows may be invalid for the model
            untested.append(way)
        elif failure is not None:
            failures.append(f"{way}, {failure}")
        else:
            numbers = [number for repeat, _ in tested for number in repeat.numbers]
            entries = [entry for repeat, result in tested for entry in _list_entries(result)[: len(repeat.numbers)]]
            found = compare(listed, place_rows(listed, numbers, entries), labels=labels)
            differences += [f"{way}, {difference}" for difference in found]
    return Repeatability(tuple(failures), tuple(differences), tuple(untested))


def _find_failure(expected: Array, repeat: Repeat, result: Result) -> str | None:
    if not isinstance(result, np.ndarray):
        return f"it fails: {type(result).__name__}: {result}"
    shape = (len(next(iter(repeat.columns.values()))), *expected.shape[1:])
    if result.shape != shape:
        return f"its output has the shape {list(result.shape)}, not {list(shape)}"
    return None


def _list_entries(output: Any) -> list[Any]:
    """Return an entry a row: a number or a name, or a list if there are several."""
    flat = output.reshape(len(output), -1)
    entries: list[Any] = (flat[:, 0] if flat.shape[1] == 1 else flat).tolist()
    return entries
