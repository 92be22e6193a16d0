"""From probabilities to labels: thresholds and ties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stepensemble.core.aggregation.probability import normalize_rows, row_max
from stepensemble.core.arrays import Flags, Floats, Integers
from stepensemble.core.schema.policy import VOTES, Aggregation, name_method
from stepensemble.core.schema.task import BinaryTask, MulticlassTask, class_thresholds

ABSTAINED = -1
"""The label of a row whose tie is left unbroken."""

TIE_TOLERANCE = 1e-12
"""Probabilities nearer than this are equal. A sum's rounding depends on its order and must not decide a label."""


@dataclass(frozen=True, slots=True)
class Election:
    """The winner of each row.

    Attributes:
        label: index of the class, or `ABSTAINED`.
        best: the same; where the tie is left unbroken, the class that the rule `first` chooses.
        tie: whether several classes were tied for the best.
    """

    label: Integers
    best: Integers
    tie: Flags


def own_labels(task: BinaryTask | MulticlassTask, probabilities: Floats) -> Integers:
    """Return each row's label by one voter alone; the rule `first` breaks ties."""
    return first_labels(task, find_tied(task, probabilities))


def elect(
    task: BinaryTask | MulticlassTask,
    aggregation: Aggregation,
    pooled: Floats,
    outputs: Sequence[Floats],
    shares: Floats,
) -> Election:
    """Find each row's label.

    Args:
        task: with the thresholds. They do not apply to votes, since each voter has applied them already.
        aggregation: with the rule for ties.
        pooled: `(rows, classes)`, as `pooling.pool` returns it.
        outputs: of the voters, for the rule `highest_mean`; where the means are tied too, the rule is `first`.
        shares: the voters' effective weights, by which that mean is weighted.
    """
    voted = name_method(aggregation) in VOTES
    tied = _find_best(pooled) if voted else find_tied(task, pooled)
    best = np.asarray(tied.argmax(axis=1), dtype=np.int64) if voted else first_labels(task, tied)
    tie: Flags = tied.sum(axis=1) > 1
    if aggregation.tie == "abstain":
        return Election(np.where(tie, ABSTAINED, best), best, tie)
    if aggregation.tie == "highest_mean" and tie.any():
        rows = np.flatnonzero(tie)
        mean = np.zeros((len(rows), pooled.shape[1]))
        for output, share in zip(outputs, shares, strict=True):
            mean = mean + output[rows] * share
        highest = _find_best(np.where(tied[rows], mean, -1.0))
        sole = highest.sum(axis=1) == 1
        best[rows[sole]] = highest[sole].argmax(axis=1)
    return Election(best, best, tie)


def find_tied(task: BinaryTask | MulticlassTask, probabilities: Floats) -> Flags:
    """Return `(rows, classes)`: the classes that are tied for the best, in most rows a single one."""
    if isinstance(task, BinaryTask):
        beyond = probabilities[:, 1] - task.threshold
        tied = np.empty((len(beyond), 2), dtype=np.bool_, order="F")
        np.less_equal(beyond, TIE_TOLERANCE, out=tied[:, 0])
        np.greater_equal(beyond, -TIE_TOLERANCE, out=tied[:, 1])
        return tied
    return _find_best(divide_by_thresholds(task, probabilities))


def divide_by_thresholds(task: BinaryTask | MulticlassTask, probabilities: Floats) -> Floats:
    """Divide each class's probability by its threshold, rows summing to 1. Labels compare the classes by these numbers.

    The rule of Spark ML
    (https://spark.apache.org/docs/latest/api/scala/org/apache/spark/ml/classification/ProbabilisticClassificationModel.html).
    """
    thresholds = class_thresholds(task)
    return probabilities if thresholds is None else normalize_rows(probabilities / np.array(thresholds))


def first_labels(task: BinaryTask | MulticlassTask, tied: Flags) -> Integers:
    """Return the first of the tied classes; in a binary task the second, as its threshold is then exactly reached."""
    if isinstance(task, BinaryTask):
        return tied[:, 1].astype(np.int64)
    return np.asarray(tied.argmax(axis=1), dtype=np.int64)


def _find_best(supports: Floats) -> Flags:
    best: Flags = supports >= (row_max(supports) - TIE_TOLERANCE)[:, None]
    return best
