"""Predictions for rows from the canonical outputs of one set of voters, as arrays.

Quorum and tiers are decided elsewhere (`decision`): here every voter has an output for every row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from stepensemble.core.aggregation.classification import ABSTAINED, TIE_TOLERANCE, elect, own_labels
from stepensemble.core.aggregation.pooling import Vote, effective_weights, pool
from stepensemble.core.aggregation.uncertainty import (
    Spread,
    find_pivotal,
    measure_agreement,
    measure_entropies,
    measure_margin,
    measure_spread,
    select_class,
)
from stepensemble.core.arrays import Flags, Floats, Integers
from stepensemble.core.schema.manifest import EnsembleMember
from stepensemble.core.schema.outputs import Label
from stepensemble.core.schema.policy import VOTES, Confidence, Policy, Stacking, name_method
from stepensemble.core.schema.task import BinaryTask, MulticlassTask, RegressionTask, Task


class ShadowOutput(NamedTuple):
    """A shadow that responded, with its canonical output."""

    shadow: EnsembleMember
    output: Floats


@dataclass(frozen=True, slots=True)
class ShadowView:
    """How a shadow compares with the predictions, one entry a row.

    Attributes:
        agrees: its own label is the prediction's; of a regression: its value is within the range of the voters'.
        flips: with it among the voters, the label would be another one; None for a regression, and where the method
            cannot count it (a stack, which has no coefficient for it; a label where probabilities are averaged).
    """

    agrees: Flags
    flips: Flags | None


@dataclass(frozen=True, slots=True)
class ClassPredictions:
    """What predictions of classes have in addition, as arrays over rows.

    Attributes:
        label: index of the class, or `classification.ABSTAINED`.
        probabilities: `(rows, classes)`, pooled.
        pivotal: `(rows, voters)`.
    """

    label: Integers
    probabilities: Floats
    agreement: Floats
    tie: Flags
    margin: Floats
    entropy: Floats
    mean_entropy: Floats
    pivotal: Flags


@dataclass(frozen=True, slots=True)
class RowPredictions:
    """One prediction a row, as arrays.

    Attributes:
        value: a regression's number; a binary task's probability of the second class; of several classes the index of
            the predicted one, NaN where there is none.
        spread: of the voters' values; of their probabilities for the second (binary) or the best class.
        review: whether a person should check the row.
        shadows: how each shadow compares, by member id.
        classes: None for a regression.
    """

    value: Floats
    spread: Spread
    review: Flags
    shadows: Mapping[str, ShadowView]
    classes: ClassPredictions | None


def predict_rows(
    task: Task, policy: Policy, votes: Sequence[Vote], shadows: Sequence[ShadowOutput] = ()
) -> RowPredictions:
    """Predict rows from the voters' outputs.

    Args:
        task: what is predicted.
        policy: of which the method and `review` are used.
        votes: of the voters that responded, at least one.
        shadows: those that responded.
    """
    if isinstance(task, RegressionTask):
        predictions = _predict_values(task, policy, votes, shadows)
    else:
        predictions = _predict_classes(task, policy, votes, shadows)
    if policy.review is None:
        return predictions
    return replace(predictions, review=~meets_confidence(policy.review, predictions))


def _predict_values(
    task: RegressionTask, policy: Policy, votes: Sequence[Vote], shadows: Sequence[ShadowOutput]
) -> RowPredictions:
    outputs = [vote.output for vote in votes]
    low, high = np.minimum.reduce(outputs), np.maximum.reduce(outputs)
    views = {one.shadow.id: ShadowView((low <= one.output) & (one.output <= high), None) for one in shadows}
    value = pool(task, policy.aggregation, votes)
    return RowPredictions(value, measure_spread(outputs), np.zeros(len(value), dtype=np.bool_), views, None)


def _predict_classes(
    task: BinaryTask | MulticlassTask, policy: Policy, votes: Sequence[Vote], shadows: Sequence[ShadowOutput]
) -> RowPredictions:
    method, outputs = policy.aggregation, [vote.output for vote in votes]
    shares = effective_weights(method, votes)
    pooled = pool(task, method, votes)
    elected = elect(task, method, pooled, outputs, shares)
    label, best = elected.label, elected.best
    if isinstance(task, BinaryTask):
        value, spread = pooled[:, 1], measure_spread([output[:, 1] for output in outputs])
    else:
        value, spread = np.where(label == ABSTAINED, np.nan, label), measure_spread(select_class(outputs, best))
    entropies = measure_entropies(outputs, shares)
    classes = ClassPredictions(
        label=label,
        probabilities=pooled,
        agreement=measure_agreement(task, outputs, best),
        tie=elected.tie,
        margin=measure_margin(task, pooled, voted=name_method(method) in VOTES),
        entropy=entropies.of_mean,
        mean_entropy=entropies.mean,
        pivotal=find_pivotal(task, method, votes, label),
    )
    views = {one.shadow.id: _compare_shadow(task, policy, votes, label, one) for one in shadows}
    return RowPredictions(value, spread, np.zeros(len(label), dtype=np.bool_), views, classes)


def _compare_shadow(
    task: BinaryTask | MulticlassTask, policy: Policy, votes: Sequence[Vote], label: Integers, given: ShadowOutput
) -> ShadowView:
    shadow, output = given
    agrees = own_labels(task, output) == label
    method = policy.aggregation
    uncounted = isinstance(shadow.output, Label) and not shadow.output.one_hot and name_method(method) not in VOTES
    if uncounted or isinstance(method, Stacking):
        return ShadowView(agrees, None)
    with_shadow = [*votes, Vote(shadow.id, shadow.weight, output)]
    shares = effective_weights(method, with_shadow)
    pooled = pool(task, method, with_shadow)
    elected = elect(task, method, pooled, [vote.output for vote in with_shadow], shares)
    return ShadowView(agrees, elected.label != label)


def meets_confidence(confidence: Confidence, predictions: RowPredictions) -> Flags:
    """Return for each row whether its prediction meets every given bound, rounding aside; without a label none does."""
    certain = np.ones(len(predictions.value), dtype=np.bool_)
    if confidence.max_spread is not None:
        certain &= predictions.spread.std <= confidence.max_spread + TIE_TOLERANCE
    if predictions.classes is not None:
        certain &= predictions.classes.label != ABSTAINED
        if confidence.min_agreement is not None:
            certain &= predictions.classes.agreement >= confidence.min_agreement - TIE_TOLERANCE
        if confidence.min_margin is not None:
            certain &= predictions.classes.margin >= confidence.min_margin - TIE_TOLERANCE
    return certain


Arrays = TypeVar("Arrays")


def select_predictions(arrays: Arrays, rows: Flags) -> Arrays:
    """Return the same structure with these rows of each of its arrays."""
    selected: dict[str, Any] = {}
    for field in fields(arrays):  # type: ignore[arg-type] # any of the structures above
        part = getattr(arrays, field.name)
        if part is None or isinstance(part, np.ndarray):
            selected[field.name] = part if part is None else part[rows]
        elif isinstance(part, Mapping):
            selected[field.name] = {key: select_predictions(one, rows) for key, one in part.items()}
        else:
            selected[field.name] = select_predictions(part, rows)
    return type(arrays)(**selected)
