"""The task: what the ensemble predicts, and the threshold from which a class is predicted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta, Struct

from stepensemble.core.number_limits import SMALLEST

Threshold = Annotated[float, Meta(ge=SMALLEST, lt=1)]


class BinaryTask(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="binary"):
    """One of two classes; probabilities are those of the second."""

    classes: Annotated[tuple[str, ...], Meta(min_length=2, description="Two names; the second is what is predicted.")]
    threshold: Annotated[
        float, Meta(ge=SMALLEST, lt=1, description="The second class is predicted from this probability on.")
    ] = 0.5


class MulticlassTask(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="multiclass"):
    """One of several classes."""

    classes: Annotated[tuple[str, ...], Meta(min_length=2, description="Names, in the order of the outputs.")]
    thresholds: Annotated[
        Mapping[str, Threshold] | None,
        Meta(
            description="One for each class: the class whose probability is the largest multiple of its threshold is "
            "predicted. By default the most probable one is."
        ),
    ] = None


class RegressionTask(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="regression"):
    """A number."""


Task = BinaryTask | MulticlassTask | RegressionTask


def name_classes(task: Task) -> tuple[str, ...]:
    """Return the task's classes; none for a regression."""
    return () if isinstance(task, RegressionTask) else task.classes


def name_task(task: Task) -> str:
    """Return the task's `type`."""
    return str(task.__struct_config__.tag)


def class_thresholds(task: BinaryTask | MulticlassTask) -> tuple[float, ...] | None:
    """Return each class's threshold, in the order of the classes; None where all are equal.

    A binary task's threshold t is the pair (1 - t, t): p >= t exactly where p / t >= (1 - p) / (1 - t).
    """
    if isinstance(task, BinaryTask):
        thresholds: tuple[float, ...] = (1.0 - task.threshold, task.threshold)
    elif task.thresholds is None:
        return None
    else:
        thresholds = tuple(task.thresholds[name] for name in task.classes)
    return None if len(set(thresholds)) == 1 else thresholds
