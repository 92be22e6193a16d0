"""The voters' outputs, combined row by row into one answer.

Arrays are float64. `outputs` is a sequence over voters; each entry is `(rows, classes)` probabilities for a
classification or `(rows,)` values for a regression, as `outputs.canonical` makes them. Sums run over the voters in
their order, one array operation each, so a row's answer does not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stepensemble.core.manifest import WEIGHTED_METHODS, BinaryTask, Method, RegressionTask, Task

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Combined:
    """One answer a row, as arrays of shape `(rows,)`.

    Attributes:
        value: a regression's number; a binary task's probability of the second class; else the winning class's index.
        spread: population standard deviation of the voters' values; of their probabilities for the winning class where
            there are more than two classes.
        label: index of the winning class; None for a regression, as are the following.
        probabilities: `(rows, classes)`.
        agreement: share of the voters whose own label is the winning one.
        tie: whether the winner shared its place and was chosen by the rule.
    """

    value: Floats
    spread: Floats
    label: npt.NDArray[np.int64] | None = None
    probabilities: Floats | None = None
    agreement: Floats | None = None
    tie: npt.NDArray[np.bool_] | None = None


def effective_weights(method: Method, weights: Sequence[float]) -> Floats:
    """Return each voter's share in the answer; they sum to 1.

    A method that counts voters alike gives each the same share. Voters that did not answer are not in `weights`: theirs
    is thereby divided among the others in proportion, as scikit-learn's voting estimators do with dropped members.
    """
    raw = np.asarray(weights if method in WEIGHTED_METHODS else np.ones(len(weights)), dtype=np.float64)
    shares: Floats = raw / raw.sum()
    return shares


def combine(task: Task, method: Method, outputs: Sequence[Floats], weights: Sequence[float]) -> Combined:
    """Combine the voters' canonical outputs by the manifest's method.

    Args:
        task: what is asked.
        method: `mean`: the arithmetic mean, every voter alike. `weighted_mean`: with weights. `soft_vote`: the same
            mean over class probabilities. `hard_vote`: each voter votes for its own label, and the votes' shares are
            the probabilities. Formulas: Kuncheva, Combining Pattern Classifiers (2nd ed., 2014), ch. 4 (majority vote)
            and 5 (average combiners).
        outputs: at least one.
        weights: one a voter, not all 0.

    A hard vote without a sole winner goes to the class that comes first in the manifest; a binary probability exactly
    at the threshold to the second class. Both are flagged in `tie`.
    """
    shares = effective_weights(method, weights)
    if isinstance(task, RegressionTask):
        return Combined(value=_weighted_mean(outputs, shares), spread=np.std(np.stack(outputs), axis=0))
    votes = [own_labels(task, output) for output in outputs]
    classes = len(task.classes)
    ballots = [np.eye(classes)[vote] for vote in votes] if method == "hard_vote" else outputs
    probabilities = _weighted_mean(ballots, shares)
    if isinstance(task, BinaryTask):
        second = probabilities[:, 1]
        # What is not the second class is the first: exact, where a second weighted sum would round otherwise.
        probabilities = np.stack([1.0 - second, second], axis=1)
        if method == "hard_vote":
            doubled = 2 * np.sum(np.stack(votes), axis=0)
            label, tie = (doubled > len(votes)).astype(np.int64), doubled == len(votes)
        else:
            label, tie = (second >= task.threshold).astype(np.int64), second == task.threshold
        value, spread = second, np.std(np.stack([ballot[:, 1] for ballot in ballots]), axis=0)
    else:
        label = probabilities.argmax(axis=1)
        tie = (probabilities == probabilities.max(axis=1, keepdims=True)).sum(axis=1) > 1
        winners = (np.arange(len(label)), label)
        value, spread = label.astype(np.float64), np.std(np.stack([b[winners] for b in ballots]), axis=0)
    agreement = np.mean(np.stack([vote == label for vote in votes]), axis=0)
    return Combined(value, spread, label, probabilities, agreement, tie)


def own_labels(task: Task, output: Floats) -> npt.NDArray[np.int64]:
    """Return the label each row gets from one voter alone: by the threshold, or the first of the most probable."""
    if isinstance(task, BinaryTask):
        return np.asarray(output[:, 1] >= task.threshold, dtype=np.int64)
    return np.asarray(output.argmax(axis=1), dtype=np.int64)


def _weighted_mean(arrays: Sequence[Floats], shares: Floats) -> Floats:
    total: Floats = arrays[0] * shares[0]
    for array, share in zip(arrays[1:], shares[1:], strict=True):
        total = total + array * share
    # A mean lies between its terms; rounding must not make a probability of 1.0000000000000002 of it.
    counted = [array for array, share in zip(arrays, shares, strict=True) if share > 0]
    between: Floats = np.clip(total, np.minimum.reduce(counted), np.maximum.reduce(counted))
    return between
