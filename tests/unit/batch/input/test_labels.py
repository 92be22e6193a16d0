"""A column of labels is read in one way: by the classes' names, or by their indexes."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest
from hypothesis import given

from builders import BINARY, REGRESSION, THREE
from stepensemble.batch.documents import LabelValues
from stepensemble.batch.input.labels import (
    LabelReadings,
    can_differ,
    choose_reading,
    count_labels,
    count_readings,
    encode_ground_truth,
    read_ground_truth,
)
from stepensemble.batch.report.statistics import Rejection, RowLocation
from stepensemble.core.errors import DatasetRefused
from stepensemble.core.schema.task import BinaryTask, MulticlassTask, Task

FROM_ONE = MulticlassTask(classes=("1", "2", "3"))
DIGITS = MulticlassTask(classes=tuple("0123456789"))


def count(task: Task, given_: Any, start: int = 1) -> LabelReadings:
    series = given_ if isinstance(given_, pl.Series) else pl.Series(given_)
    return count_readings(task, series, "a.csv", np.arange(start, start + len(series)))


@pytest.mark.parametrize(
    ("task", "reading", "given_", "names"),
    [
        (BINARY, "names", ["no", " yes ", "0", "true", "YES", None], ["no", "yes", None, None, None, None]),
        (BINARY, "indexes", ["0", "1.0", "TRUE", "2", "no", None], ["no", "yes", "yes", None, None, None]),
        (BINARY, "indexes", [True, False, None], ["yes", "no", None]),
        (BINARY, "indexes", [0.0, 1.0, 0.5], ["no", "yes", None]),
        (BinaryTask(classes=("true", "false")), "names", [True, False], ["true", "false"]),
        (BinaryTask(classes=("true", "false")), "indexes", ["true", "1"], [None, "false"]),
        (BinaryTask(classes=("2", "1")), "names", ["1", "1.0", "2", "0"], ["1", "1", "2", None]),
        (BinaryTask(classes=("2", "1")), "indexes", ["1", "1.0", "2", "0"], ["1", "1", None, "2"]),
        (FROM_ONE, "names", [0, 1, 2, 3], [None, "1", "2", "3"]),
        (FROM_ONE, "indexes", [0, 1, 2, 3], ["1", "2", "3", None]),
        (THREE, "indexes", [0, 1, 2, 3, -1], ["red", "green", "blue", None, None]),
        (THREE, "names", ["blue", "true", "1e9999"], ["blue", None, None]),
        (THREE, "indexes", ["1", "true", "1e9999"], ["green", None, None]),
        (REGRESSION, "names", ["1.5", " 2 ", "nan", "inf", "x", None], [1.5, 2.0, None, None, None, None]),
        (REGRESSION, "names", [1, 2], [1.0, 2.0]),
        (REGRESSION, "names", [True], [None]),
        (REGRESSION, "names", [decimal.Decimal("0.1")], [0.1]),
        (REGRESSION, "names", [datetime.date(2026, 3, 1)], [None]),
        (
            REGRESSION,
            "names",
            pl.Series([1, "2.5", True, "x", [1], None], dtype=pl.Object),
            [1.0, 2.5, None, None, None, None],
        ),
        (BINARY, "indexes", pl.Series([1, "no", True, [1], None], dtype=pl.Object), ["yes", None, "yes", None, None]),
        (BINARY, "names", pl.Series(["yes", "no"], dtype=pl.Categorical), ["yes", "no"]),
    ],
)
def test_labels_are_read_by_name_by_index_or_as_a_number(
    task: Task, reading: LabelValues, given_: Any, names: list[Any]
) -> None:
    values = given_ if isinstance(given_, pl.Series) else pl.Series(given_, strict=False)
    truth = read_ground_truth(task, values, reading)
    assert truth.to_list() == names
    classes = getattr(task, "classes", ())
    coded = [np.nan if name is None else classes.index(name) if classes else name for name in names]
    np.testing.assert_array_equal(encode_ground_truth(task, truth), coded)


@pytest.mark.parametrize(
    ("task", "labels", "reading"),
    [
        (FROM_ONE, [0, 1, 2], "indexes"),
        (FROM_ONE, ["1", "2", "3"], "names"),
        (FROM_ONE, ["1", "7"], None),
        (FROM_ONE, [1, 2], None),
        (FROM_ONE, [0, 1, 2, 3], None),
        (FROM_ONE, [], "names"),
        (BinaryTask(classes=("1", "0")), [0, 1], None),
        (BinaryTask(classes=("true", "false")), [True, False], "names"),
        (DIGITS, [3, 1, 4], "names"),
        (BINARY, [0, 1], "indexes"),
        (BINARY, ["no", "yes", "maybe"], "names"),
        (BINARY, ["no", "yes", "1"], "names"),
        (BINARY, ["no", "1", "0"], "indexes"),
        (BINARY, ["maybe"], "names"),
    ],
)
def test_a_column_has_one_reading_or_the_caller_must_choose(
    task: Task, labels: list[Any], reading: LabelValues | None
) -> None:
    found = count(task, labels)
    if reading is not None:
        assert choose_reading("y", task, found) == reading
    else:
        with pytest.raises(DatasetRefused, match="--label-values names or --label-values indexes"):
            choose_reading("y", task, found)


def test_the_error_names_the_first_rows_of_both_kinds() -> None:
    with pytest.raises(DatasetRefused, match=r'column "y" can be read .* for 2 labels \(first: a.csv row 1\)'):
        choose_reading("y", FROM_ONE, count(FROM_ONE, [1, 2]))
    message = (
        r"1 label \(first: a.csv row 4\) is a class's name and no index, 1 label \(.* row 1\) is an index and no name"
    )
    with pytest.raises(DatasetRefused, match=message):
        choose_reading("y", FROM_ONE, count(FROM_ONE, [0, 1, 2, 3]))
    message = r"2 labels \(first: a.csv row 3\) are classes' names and no indexes, 2 labels .* are indexes and no names"
    with pytest.raises(DatasetRefused, match=message):
        choose_reading("y", FROM_ONE, count(FROM_ONE, [0, 0, 3, 3]))


CLASSES = st.permutations(["0", "1", "2", "red"]).flatmap(lambda names: st.integers(2, 4).map(lambda n: names[:n]))


@given(CLASSES, st.lists(st.sampled_from([0, 1, 2, 3, "red", "blue", None]), max_size=12), st.integers(0, 12))
def test_a_column_in_two_parts_is_counted_as_one(classes: list[str], labels: list[Any], at: int) -> None:
    task = MulticlassTask(classes=tuple(classes))
    texts = [None if label is None else str(label) for label in labels]
    together = count(task, pl.Series(texts, dtype=pl.String))
    split = min(at, len(texts))
    one, other = (pl.Series(part, dtype=pl.String) for part in (texts[:split], texts[split:]))
    assert count(task, one) + count(task, other, 1 + split) == together
    names, indexes = (
        read_ground_truth(task, pl.Series(texts, dtype=pl.String), reading) for reading in ("names", "indexes")
    )
    pairs = list(zip(names.to_list(), indexes.to_list(), strict=True))
    assert together.both == sum(name != index and None not in (name, index) for name, index in pairs)
    if not can_differ(task):
        assert together.both == 0


@pytest.mark.parametrize(
    ("task", "reading", "labels", "unrecognized", "counts"),
    [
        (BINARY, "names", ["NO", "yes", "1", None, "x"], [1, 3, 5], (4, 1, 1)),
        (BINARY, "indexes", ["0", "yes", "7"], [2, 3], (3, 0, 1)),
        (BINARY, "indexes", [0.0, float("nan"), None, 0.5], [4], (2, 0, 0)),
        (REGRESSION, "names", [1.0, float("nan"), None], [], (1, 0, 0)),
        (REGRESSION, "names", ["1", "n/a"], [2], (2, 0, 0)),
        (BINARY, "names", pl.Series([["no"], "no", None], dtype=pl.Object), [1], (2, 0, 0)),
    ],
)
def test_unrecognized_labels_are_counted_with_their_rows(
    task: Task, reading: LabelValues, labels: Any, unrecognized: list[int], counts: tuple[int, int, int]
) -> None:
    values = labels if isinstance(labels, pl.Series) else pl.Series(labels)
    numbers = np.arange(1, len(values) + 1)
    counted = count_labels(task, values, read_ground_truth(task, values, reading), reading, "a.csv", numbers)
    examples = tuple(RowLocation("a.csv", row) for row in unrecognized)
    assert counted.unrecognized == Rejection(len(unrecognized), examples)
    assert (counted.rows, counted.case_mismatches, counted.other_reading) == counts
