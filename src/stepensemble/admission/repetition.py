"""Repetition: does a member answer a row alike, whatever rows are beside it, in whatever order, and however often?

An execution, a shard of the batch and a request by HTTP put other rows beside the same one. A model that looks at all
of them (statistics over the batch, as BatchNormalization in training has), draws random numbers (dropout left on) or
keeps a state from call to call would answer each of them otherwise. So the golden rows are predicted again in every
such way, and compared with what was said of them at first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepensemble.core.closeness import compare, place_rows
from stepensemble.core.columns import Array, Columns
from stepensemble.core.errors import MemberError

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
    """How a member's answers compare.

    Attributes:
        differences: in words, with the first row that differs, a way each; nothing where all are the same.
        untried: ways that there was no time for, or for which drawn rows did not do.
    """

    differences: tuple[str, ...] = ()
    untried: tuple[str, ...] = ()


def compare_repeats(expected: Array, results: Sequence[tuple[Repeat, Result]], *, labels: bool) -> Repetition:
    """Compare what was said of rows again with what was said of them at first.

    Args:
        expected: of the golden rows, an entry each.
        results: what was said in each way.
        labels: the outputs are labels, and so the same only where they are equal.
    """
    ways = dict.fromkeys(repeat.how for repeat, _ in results)
    differences: list[str] = []
    untried: list[str] = []
    for how in ways:
        tried = [(repeat, result) for repeat, result in results if repeat.how == how and result is not None]
        if how == BESIDE and any(isinstance(result, MemberError) for _, result in tried):
            tried = []  # the drawn rows may be wrong for the model, which is not its fault
        if not tried:
            untried.append(how)
        differences += [f"{how}, {what}" for what in _compare_way(expected, tried, labels=labels)]
    return Repetition(tuple(differences), tuple(untried))


def _compare_way(expected: Array, tried: Sequence[tuple[Repeat, Result]], *, labels: bool) -> Iterator[str]:
    numbers: list[int] = []
    entries: list[Any] = []
    for repeat, result in tried:
        if not isinstance(result, np.ndarray):
            yield f"it fails: {type(result).__name__}: {result}"
            return
        rows = len(next(iter(repeat.columns.values())))
        if result.shape != (rows, *expected.shape[1:]):
            yield f"its output has the shape {list(result.shape)}, not {[rows, *expected.shape[1:]]}"
            return
        numbers += repeat.numbers
        entries += _list_entries(result)[: len(repeat.numbers)]
    listed = _list_entries(expected)
    yield from compare(listed, place_rows(listed, numbers, entries), labels=labels)


def _list_entries(output: Array) -> list[Any]:
    """Return an entry a row: a number or a name, or a list where that is several."""
    flat = output.reshape(len(output), -1)
    entries: list[Any] = (flat[:, 0] if flat.shape[1] == 1 else flat).tolist()
    return entries
