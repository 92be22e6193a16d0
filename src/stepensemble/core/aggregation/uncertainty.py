"""Measures how certain a prediction is and how much its voters disagree, as arrays of shape `(rows,)`.

Spread and entropies are computed from the voters' own outputs and do not depend on the method, so they can be compared
between methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stepensemble.core.aggregation.classification import divide_by_thresholds, elect, find_tied, own_labels
from stepensemble.core.aggregation.pooling import Vote, effective_weights, highest, lowest, pool, weighted_mean
from stepensemble.core.aggregation.probability import entropy, row_max, row_sum
from stepensemble.core.arrays import Flags, Floats, Integers
from stepensemble.core.schema.policy import WEIGHTED_METHODS, Aggregation, Stacking, name_method
from stepensemble.core.schema.task import BinaryTask, MulticlassTask


@dataclass(frozen=True, slots=True)
class Spread:
    """Population standard deviation, and greatest less smallest."""

    std: Floats
    range: Floats


class Entropies(NamedTuple):
    """The entropy of the weighted mean distribution, and the weighted mean of the voters' entropies; in nats."""

    of_mean: Floats
    mean: Floats


def measure_spread(values: Sequence[Floats]) -> Spread:
    """Measure the spread of the voters' values."""
    equal = np.full(len(values), 1.0 / len(values))
    mean = weighted_mean(values, equal)
    variance = weighted_mean([np.square(value - mean) for value in values], equal)
    return Spread(np.sqrt(variance), highest(values) - lowest(values))


def select_class(outputs: Sequence[Floats], labels: Integers) -> list[Floats]:
    """Return each voter's probability for each row's class."""
    rows = np.arange(len(labels))
    return [output[rows, labels] for output in outputs]


def measure_agreement(task: BinaryTask | MulticlassTask, outputs: Sequence[Floats], labels: Integers) -> Floats:
    """Return the share of the voters whose own label is the row's; all voters count equally."""
    agreeing = np.zeros(len(labels))
    for output in outputs:
        agreeing += own_labels(task, output) == labels
    return agreeing / len(outputs)


def measure_entropies(outputs: Sequence[Floats], shares: Floats) -> Entropies:
    """Return the entropy of the weighted mean distribution, and the weighted mean of the voters' entropies.

    The first is the total uncertainty, the second the part that the voters themselves have. Their difference, the
    mutual information between the prediction and the choice of a voter, is never negative and is the voters'
    disagreement (Depeweg et al., Decomposition of Uncertainty in Bayesian Deep Learning, ICML 2018, section 3; Malinin
    et al., Uncertainty in Gradient Boosting via Ensembles, ICLR 2021, section 2).
    """
    of_mean = entropy(weighted_mean(outputs, shares))
    own = entropy(np.concatenate(outputs)).reshape(len(outputs), -1)  # of all voters at once
    mean = weighted_mean(list(own), shares)
    # By Jensen's inequality the mean is not the greater one; rounding must not make it so.
    return Entropies(of_mean, np.minimum(mean, of_mean))


def measure_margin(task: BinaryTask | MulticlassTask, pooled: Floats, *, voted: bool) -> Floats:
    """Return the lead of the best class over the next: the difference of their pooled probabilities, 0 to 1.

    Where classes have thresholds, the probabilities are first divided by them, so that the margin is 0 where the label
    changes. Thresholds do not apply to votes.
    """
    compared = pooled if voted else divide_by_thresholds(task, pooled)
    if compared.shape[1] == 2:
        return np.abs(compared[:, 1] - compared[:, 0])
    ordered = np.partition(compared, -2, axis=1)
    margin: Floats = ordered[:, -1] - ordered[:, -2]
    return margin


def find_pivotal(
    task: BinaryTask | MulticlassTask, aggregation: Aggregation, votes: Sequence[Vote], labels: Integers
) -> Flags:
    """Return `(rows, voters)`: whether the row's label would be another one without that voter.

    The others are pooled as if the voter had not responded (under a stack, as if its output were the mean of the
    others). A voter without which there would be no prediction is not pivotal.
    """
    pivotal = np.zeros((len(labels), len(votes)), dtype=np.bool_)
    if len(votes) == 1:
        return pivotal
    rows = _find_contested(task, aggregation, votes)
    if not len(rows):
        return pivotal
    contested = [Vote(vote.id, vote.weight, vote.output[rows]) for vote in votes]
    for place in range(len(votes)):
        others = contested[:place] + contested[place + 1 :]
        if name_method(aggregation) in WEIGHTED_METHODS and not any(vote.weight > 0 for vote in others):
            continue
        shares = effective_weights(aggregation, others)
        pooled = pool(task, aggregation, others)
        without = elect(task, aggregation, pooled, [vote.output for vote in others], shares)
        pivotal[rows, place] = without.label != labels[rows]
    return pivotal


def _find_contested(task: BinaryTask | MulticlassTask, aggregation: Aggregation, votes: Sequence[Vote]) -> Integers:
    """Return the rows in which leaving out one voter can change the label.

    Where all voters have the same label and none of them has a tie, every method except a stack predicts that label,
    with all voters and without any one of them.
    """
    if isinstance(aggregation, Stacking):
        return np.arange(len(votes[0].output))
    counts = np.sum([find_tied(task, vote.output) for vote in votes], axis=0)
    sole = (row_max(counts) == len(votes)) & (row_sum(counts) == len(votes))
    return np.flatnonzero(~sole)
