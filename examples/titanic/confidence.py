"""Compute how well agreement, margin and spread predict errors on the held-out passengers.

`charts.py` draws these numbers. TensorFlow is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Literal

import numpy as np
import numpy.typing as npt
from passengers import Passengers

from stepensemble import Ensemble
from stepensemble.core.schema.task import BinaryTask

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

CERTAINTY = 1.959964
"""Standard deviations to either side of the mean that hold 95 percent of a normal distribution."""

MARGIN_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
ROUNDING = 1e-12
"""Tolerance at a bound; the ensemble has the same."""

Field = Literal["min_agreement", "min_margin", "max_spread"]
BOUNDS: tuple[tuple[Field, float], ...] = (
    ("min_agreement", 0.75),
    ("min_agreement", 1.0),
    ("min_margin", 0.1),
    ("min_margin", 0.2),
    ("min_margin", 0.4),
    ("min_margin", 0.6),
    ("max_spread", 0.08),
    ("max_spread", 0.05),
)
"""The bounds of `review` that the table compares."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The ensemble's predictions for some passengers and the ground truth; each array has one value a passenger.

    Attributes:
        release: digest of the release that predicted.
        threshold: lowest probability for which "survived" is predicted.
        survived: the ground truth.
        probability: the ensemble's probability of survival, 0 to 1.
        members: member id to that member's probabilities.
        correct: whether the predicted label is the ground truth.
    """

    release: str
    threshold: float
    survived: Flags
    probability: Floats
    members: Mapping[str, Floats]
    agreement: Floats
    spread: Floats
    margin: Floats
    correct: Flags


@dataclass(frozen=True, slots=True)
class Band:
    """Passengers sorted by the ensemble's probability, with the members' lowest and highest and the ground truth."""

    probability: Floats
    low: Floats
    high: Floats
    survived: Flags


@dataclass(frozen=True, slots=True)
class Share:
    """A count, its total, and the 95 percent interval of the share."""

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share, 0 to 1."""
        return self.count / self.total


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Passengers of similar probability: its mean, and the share of them that survived."""

    predicted: float
    survived: Share


@dataclass(frozen=True, slots=True)
class Group:
    """Passengers with a similar agreement or margin, and how many of their predictions are correct."""

    name: str
    correct: Share


@dataclass(frozen=True, slots=True)
class BoundEffect:
    """The effect of one bound of `review`.

    Attributes:
        reviewed: rows that miss the bound.
        errors: wrong predictions among them.
        accepted: correct predictions among the other rows.
    """

    field: Field
    bound: float
    reviewed: int
    errors: int
    accepted: Share


def evaluate_passengers(ensemble: Ensemble, passengers: Passengers) -> Evaluated:
    """Predict passengers with the ensemble and compare with the ground truth.

    Raises:
        TypeError: the ensemble's task is not binary.
    """
    task = ensemble.release.task
    if not isinstance(task, BinaryTask):
        raise TypeError(f"the ensemble's task is {type(task).__name__}; survival is a binary task")
    output = ensemble.predict({"instances": passengers.rows})
    predictions = output["predictions"]
    survived = passengers.survived == 1
    predicted = np.array([prediction["label"] == task.classes[1] for prediction in predictions])
    return Evaluated(
        release=output["release"],
        threshold=task.threshold,
        survived=survived,
        probability=np.array([prediction["value"] for prediction in predictions]),
        members={member["id"]: np.array(member["outputs"]) for member in output["members"]},
        agreement=np.array([prediction["agreement"] for prediction in predictions]),
        spread=np.array([prediction["spread"] for prediction in predictions]),
        margin=np.array([prediction["margin"] for prediction in predictions]),
        correct=predicted == survived,
    )


def sort_band(evaluated: Evaluated) -> Band:
    """Sort the passengers by the ensemble's probability."""
    order = np.argsort(evaluated.probability, kind="stable")
    outputs = np.stack(list(evaluated.members.values()))[:, order]
    return Band(evaluated.probability[order], outputs.min(axis=0), outputs.max(axis=0), evaluated.survived[order])


def count_share(flags: Flags) -> Share:
    """Count flags, with Wilson's interval, which holds for small numbers and for shares near 0 and 1, too."""
    count, total = int(np.count_nonzero(flags)), len(flags)
    share, z = count / total, CERTAINTY
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return Share(count, total, max(0.0, centre - half), min(1.0, centre + half))


def measure_reliability(probabilities: Floats, survived: Flags, bins: int) -> list[ReliabilityBin]:
    """Compare probabilities with the ground truth in bins of nearly equal count; equal probabilities share a bin.

    The bins are those of scikit-learn's `calibration_curve(strategy="quantile")`, which returns no counts.
    """
    edges = np.percentile(probabilities, np.linspace(0, 1, bins + 1) * 100)
    places = np.searchsorted(edges[1:-1], probabilities)
    return [
        ReliabilityBin(float(probabilities[places == place].mean()), count_share(survived[places == place]))
        for place in np.unique(places)
    ]


def group_by_agreement(evaluated: Evaluated) -> list[Group]:
    """Group the passengers by how many members have the predicted label."""
    voters = len(evaluated.members)
    agreeing = np.rint(evaluated.agreement * voters).astype(int)
    return [
        Group(f"{number} of {voters}", count_share(evaluated.correct[agreeing == number]))
        for number in np.unique(agreeing)
    ]


def group_by_margin(evaluated: Evaluated) -> list[Group]:
    """Group the passengers by the prediction's margin."""
    places = np.digitize(evaluated.margin, MARGIN_EDGES[1:-1])
    return [
        Group(f"{low:g} to {high:g}", count_share(evaluated.correct[places == place]))
        for place, (low, high) in enumerate(pairwise(MARGIN_EDGES))
        if (places == place).any()
    ]


def measure_bounds(evaluated: Evaluated, bounds: Iterable[tuple[Field, float]] = BOUNDS) -> list[BoundEffect]:
    """Return for each bound the rows it sends to review, and the accuracy of the others."""
    effects = []
    for field, bound in bounds:
        reviewed = _misses_bound(evaluated, field, bound)
        errors = int(np.count_nonzero(reviewed & ~evaluated.correct))
        accepted = count_share(evaluated.correct[~reviewed])
        effects.append(BoundEffect(field, bound, int(np.count_nonzero(reviewed)), errors, accepted))
    return effects


def _misses_bound(evaluated: Evaluated, field: Field, bound: float) -> Flags:
    match field:
        case "min_agreement":
            return evaluated.agreement < bound - ROUNDING
        case "min_margin":
            return evaluated.margin < bound - ROUNDING
        case "max_spread":
            return evaluated.spread > bound + ROUNDING


def format_tables(evaluated: Evaluated) -> str:
    """Return two Markdown tables: the numbers of the chart, and the effects of the bounds."""
    rows = len(evaluated.correct)
    lines = ["| | rows | share of all | correct | accuracy | 95 % interval |", "| --- | --: | --: | --: | --: | --- |"]
    lines += _format_groups("agreement", group_by_agreement(evaluated), rows)
    lines += _format_groups("margin", group_by_margin(evaluated), rows)
    wrong = rows - int(np.count_nonzero(evaluated.correct))
    lines += [
        "",
        f"| `review` | rows to review | of the {wrong} errors | of as many at random | accuracy of the others |",
    ]
    lines += ["| --- | --: | --: | --: | --: |", f"| none | 0 | 0 | 0 | {1 - wrong / rows:.3f} |"]
    lines += [
        f'| `{{"{one.field}": {one.bound:g}}}` | {one.reviewed} ({one.reviewed / rows:.0%}) | {one.errors} '
        f"| {one.reviewed * wrong / rows:.0f} | {one.accepted.value:.3f} |"
        for one in measure_bounds(evaluated)
    ]
    return "\n".join(lines) + "\n"


def _format_groups(noun: str, groups: Sequence[Group], rows: int) -> list[str]:
    return [
        f"| {noun} {group.name} | {group.correct.total} | {group.correct.total / rows:.0%} | {group.correct.count} "
        f"| {group.correct.value:.3f} | {group.correct.low:.2f} to {group.correct.high:.2f} |"
        for group in groups
    ]
