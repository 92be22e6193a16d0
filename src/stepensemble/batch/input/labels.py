"""Reads a column of labels, the ground truth, with one reading for the whole column: classes' names or their indexes.

A label is a class's name, or its index among the task's classes, counted from 0; for two classes also false and true,
unless a class has such a name. If classes are named "1", "2" and "3", the label 1 may be a name or an index, which are
different classes. So labels are not read one by one: Plan chooses a reading (`Planner`, with `count_readings` and
`choose_reading`), every shard uses it, and labels that do not fit are counted, with their rows.

The ground truth of a regression is a number: there is only one reading.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from stepensemble.batch.documents import LabelValues
from stepensemble.batch.input.frame_encoder import find_distinct, to_json_type
from stepensemble.batch.report.statistics import MAX_EXAMPLES, LabelCounts, Rejection, RowLocation
from stepensemble.core.arrays import Flags, Floats, Integers
from stepensemble.core.errors import DatasetRefused
from stepensemble.core.preprocessing.encoding import NUMERAL, encode
from stepensemble.core.problems import Problem, show
from stepensemble.core.schema.manifest import NumberFeature
from stepensemble.core.schema.task import RegressionTask, Task, name_classes

TRUTH = "truth"

REMEDY = "choose one: --label-values names or --label-values indexes (label_values in a request's options)"

_FALSE_TRUE = ("false", "true")


@dataclass(frozen=True, slots=True)
class LabelReadings:
    """How many labels of a column, or of part of it, fit each reading; labels that fit none are not counted.

    Attributes:
        names: rows whose label is a class's name and no index.
        indexes: rows whose label is an index and no class's name.
        both: rows whose label is the name of one class and the index of another.
        same: rows whose label is name and index of the same class.
        first: the first row of each kind.
    """

    names: int = 0
    indexes: int = 0
    both: int = 0
    same: int = 0
    first: Mapping[str, RowLocation] = field(default_factory=dict)

    def __add__(self, later: LabelReadings) -> LabelReadings:
        return LabelReadings(
            self.names + later.names,
            self.indexes + later.indexes,
            self.both + later.both,
            self.same + later.same,
            {**later.first, **self.first},
        )


class _ClassLookup:
    """Finds the index of the class that a label means by each reading; None if it means none."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.indexes = {name: index for index, name in enumerate(classes)}
        self.folded = {name.strip().casefold() for name in classes}

    def by_name(self, label: object) -> int | None:
        text = str(label)
        word = text.strip()
        # A class may be named "1" or "true", whatever type a file has for it.
        forms = (text, word, word.lower() if word in ("True", "False") else word, str(_read_integer(word)))
        return next((self.indexes[form] for form in forms if form in self.indexes), None)

    def by_index(self, label: object) -> int | None:
        word = str(label).strip()
        if len(self.classes) == 2 and word.lower() in _FALSE_TRUE and self.folded.isdisjoint(_FALSE_TRUE):
            return _FALSE_TRUE.index(word.lower())
        number = _read_integer(word)
        return number if number is not None and 0 <= number < len(self.classes) else None

    def find(self, label: object, reading: LabelValues) -> int | None:
        return self.by_name(label) if reading == "names" else self.by_index(label)


@lru_cache(4)
def _look_up(classes: tuple[str, ...]) -> _ClassLookup:
    return _ClassLookup(classes)


def _read_integer(word: str) -> int | None:
    return int(float(word)) if NUMERAL.fullmatch(word) and float(word).is_integer() else None


def can_differ(task: Task) -> bool:
    """Return whether a label can be the name of one class and the index of another."""
    lookup = _look_up(name_classes(task))
    return any(lookup.by_index(name) not in (None, index) for index, name in enumerate(lookup.classes))


def count_readings(task: Task, labels: pl.Series, file: str, numbers: Integers) -> LabelReadings:
    """Count the labels of some rows by the readings that they fit.

    Args:
        task: with classes.
        labels: the column as it was read; null is no label.
        file: the name of the rows' file.
        numbers: of the rows in the file.
    """
    lookup = _look_up(name_classes(task))
    rows: Counter[str] = Counter()
    first: dict[str, RowLocation] = {}
    for value, row, count in _count_values(to_json_type(labels)):
        if value is None:
            continue
        name, index = lookup.by_name(value), lookup.by_index(value)
        if name is None and index is None:
            continue
        kind = "indexes" if name is None else "names" if index is None else "same" if name == index else "both"
        rows[kind] += count
        location = RowLocation(file, int(numbers[row]))
        first[kind] = min(first.get(kind, location), location)
    return LabelReadings(rows["names"], rows["indexes"], rows["both"], rows["same"], first)


def choose_reading(column: str, task: Task, found: LabelReadings) -> LabelValues:
    """Return how a column of labels is read.

    If no label can mean two classes, the reading is that of most labels. Otherwise all labels must fit one reading.

    Args:
        column: the column's name.
        task: with classes.
        found: counts of the whole column; if no label can mean two classes, a part with one fitting label is enough.

    Raises:
        DatasetRefused: the column fits both readings, or neither; the caller must choose.
    """
    if not can_differ(task):
        return "indexes" if found.indexes > found.names else "names"
    if found.names and found.indexes:
        names = "is a class's name and no index" if found.names == 1 else "are classes' names and no indexes"
        indexes = "is an index and no name" if found.indexes == 1 else "are indexes and no names"
        message = (
            f"column {show(column)} as a whole fits neither reading: {_extent(found, 'names')} {names}, "
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


def _extent(found: LabelReadings, kind: str) -> str:
    file, row = found.first[kind]
    rows = getattr(found, kind)
    return f"{rows:,} label{'' if rows == 1 else 's'} (first: {file} row {row:,})"


def read_ground_truth(task: Task, labels: pl.Series, reading: LabelValues = "names") -> pl.Series:
    """Return the ground truth of each row: the class's name, or the number; null for a label that is not recognized.

    Args:
        task: of the release.
        labels: the column as it was read.
        reading: of classes; ignored for a regression.
    """
    labels = to_json_type(labels)
    if isinstance(task, RegressionTask):
        if _is_mixed(labels) or labels.dtype == pl.Boolean:
            return pl.Series([_read_number(value) for value in labels.to_list()], dtype=pl.Float64)
        text = labels.str.strip_chars() if labels.dtype == pl.String else labels
        numbers = text.cast(pl.Float64, strict=False)
        return pl.select(pl.when(numbers.is_finite()).then(numbers)).to_series()
    lookup = _look_up(name_classes(task))

    def name(value: object) -> str | None:
        index = None if value is None else lookup.find(value, reading)
        return None if index is None else lookup.classes[index]

    if _is_mixed(labels):
        return pl.Series([name(value) for value in labels.to_list()], dtype=pl.String)
    first, codes = find_distinct(labels)
    return pl.Series([name(value) for value in labels.gather(first).to_list()], dtype=pl.String).gather(codes)


def encode_ground_truth(task: Task, truth: pl.Series) -> Floats:
    """Return the ground truth as numbers: the class's index or the number, NaN where it is not known."""
    if isinstance(task, RegressionTask):
        return truth.fill_null(np.nan).to_numpy()
    classes = name_classes(task)
    codes = truth.replace_strict(classes, np.arange(len(classes)), default=None, return_dtype=pl.Float64)
    return codes.fill_null(np.nan).to_numpy()


def count_labels(
    task: Task, labels: pl.Series, truth: pl.Series, reading: LabelValues, file: str, numbers: Integers
) -> LabelCounts:
    """Count the labels of a shard's accepted rows, and those that were not recognized.

    Args:
        task: of the release.
        labels: the column as it was read.
        truth: what `read_ground_truth` returned for it.
        reading: the reading that it used.
        file: the name of the rows' file.
        numbers: of the rows in the file.
    """
    present = labels.is_not_null().to_numpy()
    if labels.dtype.is_float():
        present &= ~labels.is_nan().fill_null(value=False).to_numpy()  # pandas writes a missing number as NaN
    unrecognized: Flags = present & truth.is_null().to_numpy()
    rows = np.flatnonzero(unrecognized)
    examples = tuple(RowLocation(file, number) for number in np.sort(numbers[rows])[:MAX_EXAMPLES].tolist())
    case_mismatches = other_reading = 0
    if len(rows) and not isinstance(task, RegressionTask):
        lookup = _look_up(name_classes(task))
        other: LabelValues = "names" if reading == "indexes" else "indexes"
        some = pl.Series([labels[row] for row in rows.tolist()], dtype=labels.dtype)  # polars cannot gather objects
        for value, _, count in _count_values(to_json_type(some)):
            other_reading += count * (lookup.find(value, other) is not None)
            case_mismatches += count * (reading == "names" and str(value).strip().casefold() in lookup.folded)
    rejection = Rejection(len(rows), examples)
    return LabelCounts(int(np.count_nonzero(present)), rejection, case_mismatches, other_reading)


class ValueCount(NamedTuple):
    """A value, the first row that has it, and how many rows do."""

    value: Any
    first: int
    rows: int


def _count_values(labels: pl.Series) -> Iterator[ValueCount]:
    """Yield the distinct values of a column; of a column of Python objects or lists, the value of each row."""
    if _is_mixed(labels):
        yield from (ValueCount(value, row, 1) for row, value in enumerate(labels.to_list()))
        return
    first, codes = find_distinct(labels)
    counts = np.bincount(codes, minlength=len(first)).tolist()
    yield from map(ValueCount, labels.gather(first).to_list(), first.tolist(), counts)


def _is_mixed(labels: pl.Series) -> bool:
    return labels.dtype == pl.Object or labels.dtype.is_nested()


def _read_number(value: Any) -> float | None:
    _, reasons = encode(NumberFeature(TRUTH), [value])
    return None if reasons or value is None else float(value)
