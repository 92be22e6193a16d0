"""Repetition: does a member answer a row alike, whatever rows are beside it, in whatever order, and however often?

An execution, a shard of the batch and a request by HTTP put other rows beside the same one. A model that looks at all
of them (statistics over the batch, as BatchNormalization in training has), draws random numbers (dropout left on) or
keeps a state from call to call would answer each of them otherwise. So the golden rows are predicted again in every
such way, and compared with what was said of them at first.
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

MOST_ALONE = 8
"""Golden rows that are predicted alone, spread evenly."""

AGAIN, ALONE, ORDER, BESIDE = "again", "alone", "in another order", "beside other rows"
"""The ways."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """Golden rows, predicted once more.

    Attributes:
        how: one of the ways above.
        columns: the rows.
        numbers: which golden rows the first of them are.
    """

    how: str
    columns: Columns
    numbers: tuple[int, ...]


Result = Array | MemberError | None
"""What was said, one entry a row; why there is nothing; None where there was no time left."""


def list_repeats(golden: Columns, others: Columns | None) -> list[Repeat]:
    """List what a member is to predict again, the most informative first.

    Args:
        golden: the golden rows, at least one.
        others: drawn rows, where the golden rows are all alike and so no neighbours to each other.
    """
    rows = len(next(iter(golden.values())))
    numbers = np.unique(np.linspace(0, rows - 1, min(rows, MOST_ALONE)).round().astype(int)).tolist()
    alone = [Repeat(ALONE, {name: column[[row]] for name, column in golden.items()}, (row,)) for row in numbers]
    again = Repeat(AGAIN, golden, tuple(range(rows)))
    order = Repeat(ORDER, {name: column[::-1] for name, column in golden.items()}, tuple(range(rows))[::-1])
    repeats = [alone[0], again, order, *alone[1:]]
    if others is not None:
        beside = {name: np.concatenate([column[:1], others[name]]) for name, column in golden.items()}
        repeats.append(Repeat(BESIDE, beside, (0,)))
    return repeats


def are_alike(inputs: Mapping[str, Array]) -> bool:
    """Say whether all rows of a member's inputs are the same."""
    return all(bool((values == values[:1]).all()) for values in inputs.values())


@dataclass(frozen=True, slots=True)
class Repetition:
    """How a member's answers compare, a way each, in words.

    Attributes:
        failures: it has no answer, or one of another shape; no declaration makes that right.
        differences: the first row that differs.
        untried: ways that there was no time for, or for which drawn rows did not do.
    """

    failures: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    untried: tuple[str, ...] = ()


def compare_repeats(expected: Array, results: Sequence[tuple[Repeat, Result]], *, labels: bool) -> Repetition:
    """Compare what was said of rows again with what was said of them at first.

    Args:
        expected: of the golden rows, an entry each.
        results: what was said in each way.
        labels: the outputs are labels, and so the same only where they are equal.
    """
    failures: list[str] = []
    differences: list[str] = []
    untried: list[str] = []
    listed = _list_entries(expected)
    for how in dict.fromkeys(repeat.how for repeat, _ in results):
        tried = [(repeat, result) for repeat, result in results if repeat.how == how and result is not None]
        failure = next(filter(None, (_name_failure(expected, *one) for one in tried)), None)
        if not tried or (failure is not None and how == BESIDE):  # drawn rows may be wrong for the model
            untried.append(how)
        elif failure is not None:
            failures.append(f"{how}, {failure}")
        else:
            numbers = [number for repeat, _ in tried for number in repeat.numbers]
            said = [entry for repeat, result in tried for entry in _list_entries(result)[: len(repeat.numbers)]]
            found = compare(listed, place_rows(listed, numbers, said), labels=labels)
            differences += [f"{how}, {difference}" for difference in found]
    return Repetition(tuple(failures), tuple(differences), tuple(untried))


def _name_failure(expected: Array, repeat: Repeat, result: Result) -> str | None:
    if not isinstance(result, np.ndarray):
        return f"it fails: {type(result).__name__}: {result}"
    shape = (len(next(iter(repeat.columns.values()))), *expected.shape[1:])
    if result.shape != shape:
        return f"its output has the shape {list(result.shape)}, not {list(shape)}"
    return None


def _list_entries(output: Any) -> list[Any]:
    """Return an entry a row: a number or a name, or a list where that is several."""
    flat = output.reshape(len(output), -1)
    entries: list[Any] = (flat[:, 0] if flat.shape[1] == 1 else flat).tolist()
    return entries
