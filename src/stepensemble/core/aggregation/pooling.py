"""Pools the voters' outputs into one number or one distribution a row: the methods, each with its formula and source.

Arrays are float64. A voter's output is `(rows, classes)` probabilities for a classification or `(rows,)` values for a
regression, as `canonical.read_output` returns them. In a binary task the methods combine the second class's
probability, and the first class gets the rest. Sums run over the voters in their order, one array operation each, so
that a row's result does not depend on the other rows.

Sources: [K] Kuncheva, Combining Pattern Classifiers, 2nd ed., Wiley 2014; [G] Genest and Zidek, Combining Probability
Distributions, Statistical Science 1(1), 1986; [W] Wolpert, Stacked Generalization, Neural Networks 5(2), 1992.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import assert_never

import numpy as np

from stepensemble.core.aggregation.classification import own_labels
from stepensemble.core.aggregation.probability import complement, normalize_rows, sigmoid, softmax
from stepensemble.core.arrays import Floats
from stepensemble.core.schema.policy import (
    WEIGHTED_METHODS,
    Aggregation,
    Coefficient,
    GeometricMean,
    HardVote,
    Max,
    Mean,
    Median,
    Min,
    SoftVote,
    Stacking,
    TrimmedMean,
    WeightedMean,
    WeightedVote,
    name_method,
)
from stepensemble.core.schema.task import BinaryTask, MulticlassTask, RegressionTask, Task


@dataclass(frozen=True, slots=True)
class Vote:
    """One voter's id, its weight in the manifest (>= 0), and its canonical output."""

    id: str
    weight: float
    output: Floats


def effective_weights(aggregation: Aggregation, votes: Sequence[Vote]) -> Floats:
    """Return each voter's share in the prediction; the shares sum to 1.

    Methods without weights give each voter the same share, a stack the share of its absolute coefficients. Voters that
    did not respond are not in `votes`, so their share is divided among the others in proportion, as scikit-learn's
    voting estimators do with dropped members.
    """
    if isinstance(aggregation, Stacking):
        raw = np.array([np.abs(aggregation.coefficients[vote.id]).sum() for vote in votes], dtype=np.float64)
    elif name_method(aggregation) in WEIGHTED_METHODS:
        raw = np.array([vote.weight for vote in votes], dtype=np.float64)
    else:
        raw = np.ones(len(votes))
    total = raw.sum()
    shares: Floats = raw / total if total > 0 else np.full(len(votes), 1.0 / len(votes))
    return shares


def pool(task: Task, aggregation: Aggregation, votes: Sequence[Vote]) -> Floats:
    """Pool the voters' outputs by the manifest's method.

    Args:
        task: what is predicted.
        aggregation: the method with its parameters.
        votes: at least one; under a method that weights, not all of weight 0.

    Returns `(rows,)` values for a regression, else `(rows, classes)` probabilities, each row summing to 1.
    """
    shares = effective_weights(aggregation, votes)
    outputs = [vote.output for vote in votes]
    match aggregation:
        case GeometricMean():
            pooled = geometric_mean(outputs, shares)
        case HardVote() | WeightedVote():
            pooled = count_votes(task, outputs, shares)
        case Stacking():
            return stack(task, aggregation, votes)
        case _:
            inputs = [output[:, 1] for output in outputs] if isinstance(task, BinaryTask) else outputs
            supports = _combine(aggregation, inputs, shares)
            if isinstance(task, RegressionTask):
                return supports
            if isinstance(task, BinaryTask):
                return complement(supports)
            return supports if isinstance(aggregation, LINEAR_METHODS) else normalize_rows(supports)
    return complement(pooled[:, 1]) if isinstance(task, BinaryTask) else pooled


LINEAR_METHODS = (Mean, WeightedMean, SoftVote)
"""Methods whose result sums to 1 where the voters' probabilities do."""


def _combine(
    aggregation: Mean | WeightedMean | SoftVote | Median | TrimmedMean | Min | Max,
    outputs: Sequence[Floats],
    shares: Floats,
) -> Floats:
    match aggregation:
        case Median():
            return median(outputs)
        case TrimmedMean(trim=trim):
            return trimmed_mean(outputs, trim)
        case Min():
            return lowest(outputs)
        case Max():
            return highest(outputs)
        case Mean() | WeightedMean() | SoftVote():
            return weighted_mean(outputs, shares)
        case _:
            assert_never(aggregation)


def weighted_mean(outputs: Sequence[Floats], shares: Floats) -> Floats:
    """Return sum(w_i x_i), the w_i summing to 1: `mean`, `weighted_mean`, and `soft_vote` over classes.

    The average combiner [K, chapter 5]; the linear opinion pool [G].
    """
    if (shares == shares[0]).all():  # divided once: the mean of 4, 6 and 2 is 4, not three rounded thirds
        total: Floats = outputs[0].copy()
        for output in outputs[1:]:
            total += output
        total /= len(outputs)
    else:
        total = outputs[0] * shares[0]
        for output, share in zip(outputs[1:], shares[1:], strict=True):
            total += output * share
    # A mean is between its terms; rounding must not give a probability of 1.0000000000000002.
    counted = [output for output, share in zip(outputs, shares, strict=True) if share > 0]
    np.maximum(total, lowest(counted), out=total)
    return np.minimum(total, highest(counted), out=total)


def median(outputs: Sequence[Floats]) -> Floats:
    """Return the middle value, of an even number the mean of the middle two [K, chapter 5].

    With several classes, each class's median is taken separately, then they are normalized.
    """
    ordered, half = sort_voters(outputs), len(outputs) // 2
    middle: Floats = ordered[half] if len(outputs) % 2 else (ordered[half - 1] + ordered[half]) / 2
    return middle


def trimmed_mean(outputs: Sequence[Floats], trim: float) -> Floats:
    """Return the mean without the floor(trim n) lowest and as many highest of n values [K, chapter 5].

    The count is rounded down as by `scipy.stats.trim_mean`. With several classes, each class's mean is taken
    separately, then they are normalized.
    """
    cut = int(trim * len(outputs))
    kept = sort_voters(outputs)[cut : len(outputs) - cut]
    return weighted_mean(kept, np.full(len(kept), 1.0 / len(kept)))


def sort_voters(outputs: Sequence[Floats]) -> list[Floats]:
    """Sort the voters' outputs element by element: the first array has the lowest numbers, the last the highest.

    A bubble sort that swaps whole arrays; for a few voters it is faster than sorting each element.
    """
    ordered = list(outputs)
    for end in range(len(ordered) - 1, 0, -1):
        for place in range(end):
            first, second = ordered[place], ordered[place + 1]
            ordered[place], ordered[place + 1] = np.minimum(first, second), np.maximum(first, second)
    return ordered


def lowest(outputs: Sequence[Floats]) -> Floats:
    """Return the minimum: `min` [K, chapter 5]; with several classes each class's, then normalized.

    In a binary task it is the minimum of the second class's probability: that class is predicted only if every
    voter favours it.
    """
    return reduce(np.minimum, outputs)


def highest(outputs: Sequence[Floats]) -> Floats:
    """Return the maximum: `max` [K, chapter 5]; with several classes each class's, then normalized.

    In a binary task it is the maximum of the second class's probability: that class is predicted if any voter
    favours it.
    """
    return reduce(np.maximum, outputs)


def geometric_mean(outputs: Sequence[Floats], shares: Floats) -> Floats:
    """Return prod(p_i ** w_i) of each class, normalized: the logarithmic opinion pool [G].

    With two classes that is the sigmoid of the weighted mean of the log-odds. A class to which a voter with a weight
    above 0 gives probability 0 gets 0; if that is so for every class, the row is uniform.
    """
    logs = np.zeros_like(outputs[0])
    with np.errstate(divide="ignore"):
        for output, share in zip(outputs, shares, strict=True):
            if share > 0:  # 0 times the logarithm of 0 is NaN
                logs += share * np.log(output)
    vetoed = np.isneginf(logs.max(axis=1, keepdims=True))
    return softmax(np.where(vetoed, 0.0, logs))


def count_votes(task: Task, outputs: Sequence[Floats], shares: Floats) -> Floats:
    """Return each class's share of the votes: `hard_vote` (one a voter), `weighted_vote` (w_i a voter).

    Each voter votes for its own label, by the task's thresholds. Plurality and weighted majority vote
    [K, chapter 4].
    """
    if isinstance(task, RegressionTask):
        raise TypeError("a regression has no labels to vote for")
    ballots = [np.eye(output.shape[1])[own_labels(task, output)] for output in outputs]
    return weighted_mean(ballots, shares)


def stack(task: Task, model: Stacking, votes: Sequence[Vote]) -> Floats:
    """Return a linear model of the voters' outputs [W].

    Regression: b + sum(c_i x_i). Binary: sigmoid(b + sum(c_i p_i)), p_i the second class's probability, as
    scikit-learn's `StackingClassifier` with a `LogisticRegression`. Multiclass: softmax(b + sum(C_i p_i)), C_i being a
    matrix. A voter with a coefficient and without an output is replaced by the unweighted mean of the others.
    """
    outputs = {vote.id: vote.output for vote in votes}
    if set(outputs) != set(model.coefficients):
        equal = np.full(len(votes), 1.0 / len(votes))
        mean = weighted_mean([vote.output for vote in votes], equal)
        outputs = {id_: outputs.get(id_, mean) for id_ in model.coefficients}
    if isinstance(task, MulticlassTask):
        return softmax(_compute_logits(task, model, outputs))
    intercept = float(model.intercept) if isinstance(model.intercept, int | float) else 0.0
    total: Floats = np.full(len(votes[0].output), intercept)
    for id_, coefficient in model.coefficients.items():
        output = outputs[id_][:, 1] if isinstance(task, BinaryTask) else outputs[id_]
        total += np.float64(_to_number(coefficient)) * output
    return complement(sigmoid(total)) if isinstance(task, BinaryTask) else total


def _compute_logits(task: MulticlassTask, model: Stacking, outputs: Mapping[str, Floats]) -> Floats:
    intercept = np.broadcast_to(np.asarray(model.intercept, dtype=np.float64), len(task.classes))
    total = np.repeat(intercept[:, None], len(next(iter(outputs.values()))), axis=1)
    # Class by class: the rounding of a matrix product depends on how many rows there are.
    for id_, coefficient in model.coefficients.items():
        for column, output in zip(np.transpose(coefficient), np.ascontiguousarray(outputs[id_].T), strict=True):
            total += column[:, None] * output
    return np.ascontiguousarray(total.T)


def _to_number(coefficient: Coefficient) -> float:
    if isinstance(coefficient, int | float):
        return float(coefficient)
    raise TypeError("a matrix of coefficients is for several classes")
