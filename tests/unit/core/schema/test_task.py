from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from builders import BINARY, REGRESSION, THREE
from stepensemble.core.schema.task import BinaryTask, MulticlassTask, Task, class_thresholds, name_classes, name_task


@pytest.mark.parametrize(
    ("task", "name", "classes"),
    [
        (BINARY, "binary", ("no", "yes")),
        (THREE, "multiclass", ("red", "green", "blue")),
        (REGRESSION, "regression", ()),
    ],
)
def test_a_task_has_a_name_and_classes(task: Task, name: str, classes: tuple[str, ...]) -> None:
    assert name_task(task) == name
    assert name_classes(task) == classes


@pytest.mark.parametrize(
    "task",
    [
        BinaryTask(("no", "yes")),
        MulticlassTask(("a", "b", "c")),
        MulticlassTask(("a", "b", "c"), {"a": 0.3, "b": 0.3, "c": 0.3}),
    ],
)
def test_thresholds_that_are_all_alike_divide_nothing(task: BinaryTask | MulticlassTask) -> None:
    assert class_thresholds(task) is None


def test_thresholds_stand_in_the_order_of_the_classes() -> None:
    assert class_thresholds(MulticlassTask(("a", "b", "c"), {"c": 0.1, "a": 0.5, "b": 0.25})) == (0.5, 0.25, 0.1)
    assert class_thresholds(BinaryTask(("no", "yes"), threshold=0.25)) == (0.75, 0.25)


@given(st.floats(0, 1), st.floats(0.01, 0.99))
def test_a_binary_threshold_is_where_the_divided_probabilities_meet(second: float, threshold: float) -> None:
    assume(threshold != 0.5)
    assume(abs(second - threshold) > 1e-9)  # nearer than that rounding decides
    thresholds = class_thresholds(BinaryTask(("no", "yes"), threshold=threshold))
    assert thresholds is not None
    assert (second / thresholds[1] >= (1 - second) / thresholds[0]) == (second >= threshold)
