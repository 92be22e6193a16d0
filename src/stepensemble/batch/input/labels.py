"""How a column of labels is read: by the classes' names or by their indexes, one way for the whole column.

A label is a class's name, or its index: its place among the task's classes, counted from 0; of two classes also false
and true, unless a class is called so. Where classes are called "1", "2" and "3", the label 1 may be either, and means
another class each time. So no label is read by itself. Plan decides on a reading (`Planner`, with `count_readings` and
`choose_reading`), every shard reads by it, and what it does not fit is counted with its row.

The truth of a regression is a number, and there is nothing to decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl

from stepensemble.batch.documents import LabelValues
from stepensemble.batch.input.frame_encoder import find_distinct, give_json_type
from stepensemble.batch.report.statistics import MOST_PLACES, LabelCounts, Place, Rejection
from stepensemble.core.arrays import Flags, Floats, Integers
from stepensemble.core.errors import DatasetRefused
from stepensemble.core.preprocessing.encoding import NUMERAL, encode
from stepensemble.core.problems import Problem, show
from stepensemble.core.schema.manifest import NumberFeature
from stepensemble.core.schema.task import RegressionTask, Task, name_classes

TRUTH = "truth"

REMEDY = "say which it is: --label-values names or --label-values indexes (label_values in a request's options)"

_FALSE_TRUE = ("false", "true")


@dataclass(frozen=True, slots=True)
class Readings:
    """How many labels of a column, or of part of it, fit which reading; labels that fit none are not counted.

    Attributes:
        names: rows whose label is a class's name, and no index.
        indexes: the other way round.
        both: rows whose label is the name of one class and the index of another.
        same: rows whose label is name and index of one and the same class.
        first: where the first of each is.
    """

    names: int = 0
    indexes: int = 0
    both: int = 0
    same: int = 0
    first: Mapping[str, Place] = field(default_factory=dict)

    def __add__(self, later: Readings) -> Readings:
        return Readings(
            self.names + later.names,
            self.indexes + later.indexes,
            self.both + later.both,
            self.same + later.same,
            {**later.first, **self.first},
        )


class _Lookup:
    """Finds the class that a label means by each reading; None where it means none."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.places = {name: place for place, name in enumerate(classes)}
        self.folded = {name.strip().casefold() for name in classes}

    def by_name(self, label: object) -> int | None:
        text = str(label)
        word = text.strip()
        # A class may be called "1" or "true", whatever type a file has for it.
        forms = (text, word, word.lower() if word in ("True", "False") else word, str(_whole(word)))
        return next((self.places[form] for form in forms if form in self.places), None)

    def by_index(self, label: object) -> int | None:
        word = str(label).strip()
        if len(self.classes) == 2 and word.lower() in _FALSE_TRUE and self.folded.isdisjoint(_FALSE_TRUE):
            return _FALSE_TRUE.index(word.lower())
        whole = _whole(word)
        return whole if whole is not None and 0 <= whole < len(self.classes) else None

    def find(self, label: object, reading: LabelValues) -> int | None:
        return self.by_name(label) if reading == "names" else self.by_index(label)


@lru_cache(4)
def _look_up(classes: tuple[str, ...]) -> _Lookup:
    return _Lookup(classes)


def _whole(word: str) -> int | None:
    return int(float(word)) if NUMERAL.fullmatch(word) and float(word).is_integer() else None


def can_differ(task: Task) -> bool:
    """Say whether there is a label that is the name of one class and the index of another."""
    lookup = _look_up(name_classes(task))
    return any(lookup.by_index(name) not in (None, place) for place, name in enumerate(lookup.classes))


def count_readings(task: Task, given: pl.Series, file: str, numbers: Integers) -> Readings:
    """Count which readings the labels of some rows fit.

    Args:
        task: with classes.
        given: the column as it was read; null is no label.
        file: that the rows are in.
        numbers: of the rows in it.
    """
    lookup = _look_up(name_classes(task))
    values, first, counts = _count_values(give_json_type(given))
    rows: Counter[str] = Counter()
    places: dict[str, Place] = {}
    for value, row, count in zip(values, first, counts, strict=True):
        if value is None:
            continue
        name, index = lookup.by_name(value), lookup.by_index(value)
        if name is None and index is None:
            continue
        kind = "indexes" if name is None else "names" if index is None else "same" if name == index else "both"
        rows[kind] += count
        places[kind] = min(places.get(kind, (file, int(numbers[row]))), (file, int(numbers[row])))
    return Readings(rows["names"], rows["indexes"], rows["both"], rows["same"], places)


def choose_reading(column: str, task: Task, found: Readings) -> LabelValues:
    """Return how a column of labels is read.

    Where no label can mean two classes, the reading is that of most labels. Else all must fit one reading alone.

    Args:
        column: its name.
        task: with classes.
        found: in the whole column; where no label can mean two classes, part of it with any that fits is enough.

    Raises:
        DatasetRefused: the column fits both readings, or neither; the caller must choose.
    """
    if not can_differ(task):
        return "indexes" if found.indexes > found.names else "names"
    if found.names and found.indexes:
        names = "is a class's name and no index" if found.names == 1 else "are classes' names and no indexes"
        indexes = "is an index and no name" if found.indexes == 1 else "are indexes and no names"
        message = (
            f"column {show(column)} fits neither reading as a whole: {_extent(found, 'names')} {names}, "
            f"{_extent(found, 'indexes')} {indexes}"
        )
        raise DatasetRefused([Problem("label", message, REMEDY)])
    if found.both and not found.names and not found.indexes:
        message = (
            f"column {show(column)} can be read by the classes' names and by their indexes, with different results for "
            f"{_extent(found, 'both')}"
        )
        raise DatasetRefused([Problem("label", message, REMEDY)])
    return "indexes" if found.indexes else "names"


def _extent(found: Readings, kind: str) -> str:
    file, row = found.first[kind]
    rows = getattr(found, kind)
    return f"{rows:,} label{'' if rows == 1 else 's'} (first: {file} row {row:,})"


def read_truth(task: Task, given: pl.Series, reading: LabelValues = "names") -> pl.Series:
    """Return the truth where it is known: the class's name, or the number. What cannot be read is null.

    Args:
        task: that says what a truth is.
        given: the column as it was read.
        reading: of classes; not looked at for a regression.
    """
    given = give_json_type(given)
    if isinstance(task, RegressionTask):
        if _is_mixed(given) or given.dtype == pl.Boolean:
            return pl.Series([_read_number(value) for value in given.to_list()], dtype=pl.Float64)
        text = given.str.strip_chars() if given.dtype == pl.String else given
        numbers = text.cast(pl.Float64, strict=False)
        return pl.select(pl.when(numbers.is_finite()).then(numbers)).to_series()
    lookup = _look_up(name_classes(task))

    def name(value: object) -> str | None:
        place = None if value is None else lookup.find(value, reading)
        return None if place is None else lookup.classes[place]

    if _is_mixed(given):
        return pl.Series([name(value) for value in given.to_list()], dtype=pl.String)
    first, codes = find_distinct(given)
    return pl.Series([name(value) for value in given.gather(first).to_list()], dtype=pl.String).gather(codes)


def code_truth(task: Task, truth: pl.Series) -> Floats:
    """Return the truth as `tally` takes it: the class's index or the number, NaN where it is not known."""
    if isinstance(task, RegressionTask):
        return truth.fill_null(np.nan).to_numpy()
    classes = name_classes(task)
    codes = truth.replace_strict(classes, np.arange(len(classes)), default=None, return_dtype=pl.Float64)
    return codes.fill_null(np.nan).to_numpy()


def tally_labels(
    task: Task, given: pl.Series, truth: pl.Series, reading: LabelValues, file: str, numbers: Integers
) -> LabelCounts:
    """Count the labels of a shard's accepted rows, and those that were not understood.

    Args:
        task: that says what a truth is.
        given: the column as it was read.
        truth: what `read_truth` has made of it.
        reading: by which it did.
        file: that the rows are in.
        numbers: of the rows in it.
    """
    there = given.is_not_null().to_numpy()
    if given.dtype.is_float():
        there &= ~given.is_nan().fill_null(value=False).to_numpy()  # pandas has no other way to write a missing number
    unknown: Flags = there & truth.is_null().to_numpy()
    rows = np.flatnonzero(unknown)
    places = tuple((file, number) for number in np.sort(numbers[rows])[:MOST_PLACES].tolist())
    capitals = other = 0
    if len(rows) and not isinstance(task, RegressionTask):
        lookup = _look_up(name_classes(task))
        otherwise: LabelValues = "names" if reading == "indexes" else "indexes"
        some = pl.Series([given[row] for row in rows.tolist()], dtype=given.dtype)  # of objects none can be gathered
        values, _, counts = _count_values(give_json_type(some))
        for value, count in zip(values, counts, strict=True):
            other += count * (lookup.find(value, otherwise) is not None)
            capitals += count * (reading == "names" and str(value).strip().casefold() in lookup.folded)
    return LabelCounts(int(np.count_nonzero(there)), Rejection(len(rows), places), capitals, other)


def _count_values(given: pl.Series) -> tuple[list[Any], list[int], list[int]]:
    """Return the distinct values, where each occurs first, and how often; of a column of Python's own, all values."""
    if _is_mixed(given):
        return given.to_list(), list(range(len(given))), [1] * len(given)
    first, codes = find_distinct(given)
    return given.gather(first).to_list(), first.tolist(), np.bincount(codes, minlength=len(first)).tolist()


def _is_mixed(given: pl.Series) -> bool:
    return given.dtype == pl.Object or given.dtype.is_nested()


def _read_number(value: Any) -> float | None:
    _, reasons = encode(NumberFeature(TRUTH), [value])
    return None if reasons or value is None else float(value)
