"""The policy: how the members' outputs become a prediction, and when that prediction counts.

It has four parts of the manifest: `aggregation` (the method), `quorum` (the voters that must respond), `review` (which
predictions a person checks) and `cascade` (which predictions need no further tier). `core.aggregation` implements the
methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, structs

from stepensemble.core.number_limits import Number

TieRule = Annotated[
    Literal["first", "abstain", "highest_mean"],
    Meta(
        description="first: the class that comes first in the manifest, and at a threshold exactly reached the second "
        "class; abstain: no label; highest_mean: of the tied classes the one with the highest mean probability. Ties "
        "are flagged in any case."
    ),
]


class _Method(Struct, frozen=True, forbid_unknown_fields=True, tag_field="method"):
    tie: TieRule = "first"


class Mean(_Method, frozen=True, tag="mean"):
    """Arithmetic mean, all voters with equal weight."""


class WeightedMean(_Method, frozen=True, tag="weighted_mean"):
    """Arithmetic mean, weighted."""


class Median(_Method, frozen=True, tag="median"):
    """The median; of an even number of voters, the mean of the middle two."""


class TrimmedMean(_Method, frozen=True, tag="trimmed_mean"):
    """Mean without the lowest and the highest outputs."""

    trim: Annotated[float, Meta(ge=0, lt=0.5, description="Share of the voters that is cut off at each end.")] = 0.1


class GeometricMean(_Method, frozen=True, tag="geometric_mean"):
    """Weighted mean of the log-probabilities, normalized: of two classes, of their log-odds."""


class Min(_Method, frozen=True, tag="min"):
    """The lowest."""


class Max(_Method, frozen=True, tag="max"):
    """The highest."""


class SoftVote(_Method, frozen=True, tag="soft_vote"):
    """Weighted mean of the class probabilities."""


class HardVote(_Method, frozen=True, tag="hard_vote"):
    """Each voter has one vote."""


class WeightedVote(_Method, frozen=True, tag="weighted_vote"):
    """Each voter has as many votes as its weight."""


Coefficient = Number | tuple[tuple[Number, ...], ...]


class Stacking(_Method, frozen=True, tag="stack", kw_only=True):
    """A linear model over the voters' outputs: logistic for classes, linear for a regression."""

    coefficients: Annotated[
        Mapping[str, Coefficient],
        Meta(
            description="One for each voter, by its id. Regression and binary: a number, for its value or its "
            "probability of the second class. Multiclass: for each class a list with a number for each class's "
            "probability."
        ),
    ]
    intercept: Annotated[
        Number | tuple[Number, ...], Meta(description="A number; of a multiclass task a list with one for each class.")
    ] = 0.0
    missing: Annotated[
        Literal["refuse", "mean"],
        Meta(
            description="Where a voter has no output. refuse: there is no quorum; mean: the mean of the others "
            "replaces its output."
        ),
    ]


Aggregation = (
    Mean
    | WeightedMean
    | Median
    | TrimmedMean
    | GeometricMean
    | Min
    | Max
    | SoftVote
    | HardVote
    | WeightedVote
    | Stacking
)

WEIGHTED_METHODS = frozenset({"weighted_mean", "geometric_mean", "soft_vote", "weighted_vote"})
"""Methods that use the members' weights."""

VOTES = frozenset({"hard_vote", "weighted_vote"})
"""Methods that count labels, and so need no probabilities."""

CLASS_METHODS = VOTES | {"soft_vote", "geometric_mean"}
"""Methods that a regression cannot use."""


class Quorum(Struct, frozen=True, forbid_unknown_fields=True):
    """Which of the invoked voters must respond for a prediction to count."""

    min_members: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Fewest voters; more than half of them by default.")
    ] = None
    min_weight: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        Meta(description="Smallest share of the voters' total weight."),
    ] = None
    required: Annotated[tuple[str, ...], Meta(description="Ids of voters that must respond.")] = ()


class Confidence(Struct, frozen=True, forbid_unknown_fields=True):
    """How certain the prediction for a row must be; a row that misses one of the given bounds is not."""

    min_agreement: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        Meta(description="Smallest share of the voters on the winning label."),
    ] = None
    max_spread: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="Largest standard deviation of the voters' outputs."),
    ] = None
    min_margin: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        Meta(description="Smallest lead of the winning class over the next one."),
    ] = None


class Policy(Struct, frozen=True):
    """The four parts together, as releases and outputs hold them."""

    aggregation: Aggregation = Mean()
    quorum: Quorum = Quorum()
    review: Annotated[Confidence | None, Meta(description="Rows that are less certain get the decision review.")] = None
    cascade: Annotated[
        Confidence | None, Meta(description="Rows that are this certain are not sent to the next tier.")
    ] = None


def name_method(aggregation: Aggregation) -> str:
    """Return the name that the manifest gives a method."""
    return str(aggregation.__struct_config__.tag)


def override_quorum(policy: Policy, given: Mapping[str, Any]) -> Policy:
    """Return the policy with the quorum fields of a payload, which were validated before."""
    return structs.replace(policy, quorum=structs.replace(policy.quorum, **given))
