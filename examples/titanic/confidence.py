"""How far the ensemble's own doubts can be trusted, on the held-out passengers: the numbers behind the charts.

TensorFlow is not needed; `charts.py` draws what is computed here.
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
"""What the ensemble, too, forgives at a bound."""

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
class Told:
    """What the ensemble says of some passengers, and what happened to them; one entry a passenger.

    Attributes:
        release: digest of the release that was asked.
        threshold: from which probability on "survived" is answered.
        members: id to the probabilities that the member gave.
        right: whether the answered label is what happened.
    """

    release: str
    threshold: float
    survived: Flags
    probability: Floats
    members: Mapping[str, Floats]
    agreement: Floats
    spread: Floats
    margin: Floats
    right: Flags


@dataclass(frozen=True, slots=True)
class Band:
    """The passengers in the order of their probability: that, the members' lowest and highest, and what happened."""

    probability: Floats
    low: Floats
    high: Floats
    survived: Flags


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many, and the 95 percent interval of the share."""

    count: int
    of: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share, 0 to 1."""
        return self.count / self.of


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Passengers of similar probability: the mean of it, and the share of them that survived."""

    predicted: float
    survived: Share


@dataclass(frozen=True, slots=True)
class Group:
    """Passengers whose answers are alike in agreement or margin: how many of the answers are right."""

    name: str
    right: Share


@dataclass(frozen=True, slots=True)
class Bought:
    """What one bound of `review` buys.

    Attributes:
        reviewed: rows that miss the bound.
        errors: wrong answers among them.
        kept: right answers among the others.
    """

    field: Field
    bound: float
    reviewed: int
    errors: int
    kept: Share


def ask(ensemble: Ensemble, passengers: Passengers) -> Told:
    """Ask the ensemble about passengers.

    Raises:
        TypeError: it is asked something else than whether they survived.
    """
    task = ensemble.release.task
    if not isinstance(task, BinaryTask):
        raise TypeError("whether somebody survived is a binary task")
    output = ensemble.predict({"instances": passengers.rows})
    predictions = output["predictions"]
    survived = passengers.survived == 1
    answered = np.array([prediction["label"] == task.classes[1] for prediction in predictions])
    return Told(
        release=output["release"],
        threshold=task.threshold,
        survived=survived,
        probability=np.array([prediction["value"] for prediction in predictions]),
        members={member["id"]: np.array(member["outputs"]) for member in output["members"]},
        agreement=np.array([prediction["agreement"] for prediction in predictions]),
        spread=np.array([prediction["spread"] for prediction in predictions]),
        margin=np.array([prediction["margin"] for prediction in predictions]),
        right=answered == survived,
    )


def sort_band(told: Told) -> Band:
    """Sort the passengers by the ensemble's probability."""
    order = np.argsort(told.probability, kind="stable")
    outputs = np.stack(list(told.members.values()))[:, order]
    return Band(told.probability[order], outputs.min(axis=0), outputs.max(axis=0), told.survived[order])


def count_share(flags: Flags) -> Share:
    """Count, with Wilson's interval: sound for small numbers, and for shares near 0 and 1."""
    count, of = int(np.count_nonzero(flags)), len(flags)
    share, z = count / of, CERTAINTY
    centre = (share + z * z / (2 * of)) / (1 + z * z / of)
    reach = z / (1 + z * z / of) * sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return Share(count, of, max(0.0, centre - reach), min(1.0, centre + reach))


def measure_reliability(probabilities: Floats, survived: Flags, bins: int) -> list[ReliabilityBin]:
    """Compare probabilities with what happened, in bins of nearly equal count; equal probabilities stay together.

    The bins are those of scikit-learn's `calibration_curve(strategy="quantile")`, which tells no counts.
    """
    edges = np.percentile(probabilities, np.linspace(0, 1, bins + 1) * 100)
    places = np.searchsorted(edges[1:-1], probabilities)
    return [
        ReliabilityBin(float(probabilities[places == place].mean()), count_share(survived[places == place]))
        for place in np.unique(places)
    ]


def group_by_agreement(told: Told) -> list[Group]:
    """Group the passengers by how many members have the answered label."""
    voters = len(told.members)
    agreeing = np.rint(told.agreement * voters).astype(int)
    return [
        Group(f"{number} of {voters}", count_share(told.right[agreeing == number])) for number in np.unique(agreeing)
    ]


def group_by_margin(told: Told) -> list[Group]:
    """Group the passengers by the answer's margin."""
    places = np.digitize(told.margin, MARGIN_EDGES[1:-1])
    return [
        Group(f"{low:g} to {high:g}", count_share(told.right[places == place]))
        for place, (low, high) in enumerate(pairwise(MARGIN_EDGES))
        if (places == place).any()
    ]


def weigh_bounds(told: Told, bounds: Iterable[tuple[Field, float]] = BOUNDS) -> list[Bought]:
    """Tell for each bound what it would send to review, and how right the rest is."""
    found = []
    for field, bound in bounds:
        reviewed = _misses(told, field, bound)
        errors = int(np.count_nonzero(reviewed & ~told.right))
        found.append(Bought(field, bound, int(np.count_nonzero(reviewed)), errors, count_share(told.right[~reviewed])))
    return found


def _misses(told: Told, field: Field, bound: float) -> Flags:
    match field:
        case "min_agreement":
            return told.agreement < bound - ROUNDING
        case "min_margin":
            return told.margin < bound - ROUNDING
        case "max_spread":
            return told.spread > bound + ROUNDING


def format_tables(told: Told) -> str:
    """Return the numbers as two Markdown tables: what the picture shows, and what the bounds buy."""
    rows = len(told.right)
    lines = ["| | rows | share of all | right | accuracy | 95 % interval |", "| --- | --: | --: | --: | --: | --- |"]
    lines += _format_groups("agreement", group_by_agreement(told), rows)
    lines += _format_groups("margin", group_by_margin(told), rows)
    wrong = rows - int(np.count_nonzero(told.right))
    lines += ["", f"| `review` | rows for a person | of the {wrong} errors | by lot | accuracy of the others |"]
    lines += ["| --- | --: | --: | --: | --: |", f"| none | 0 | 0 | 0 | {1 - wrong / rows:.3f} |"]
    lines += [
        f'| `{{"{one.field}": {one.bound:g}}}` | {one.reviewed} ({one.reviewed / rows:.0%}) | {one.errors} '
        f"| {one.reviewed * wrong / rows:.0f} | {one.kept.value:.3f} |"
        for one in weigh_bounds(told)
    ]
    return "\n".join(lines) + "\n"


def _format_groups(noun: str, groups: Sequence[Group], rows: int) -> list[str]:
    return [
        f"| {noun} {group.name} | {group.right.of} | {group.right.of / rows:.0%} | {group.right.count} "
        f"| {group.right.value:.3f} | {group.right.low:.2f} to {group.right.high:.2f} |"
        for group in groups
    ]
