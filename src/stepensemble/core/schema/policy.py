"""The policy: how the members' outputs become an answer, and when that answer counts.

Four parts of the manifest: `aggregation` (which method), `quorum` (what must have answered), `review` (which answers a
person should look at) and `cascade` (which answers are good enough without the next tier). What the methods compute is
in `aggregation`.
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
    """Arithmetic mean, every voter alike."""


class WeightedMean(_Method, frozen=True, tag="weighted_mean"):
    """Arithmetic mean, weighted."""


class Median(_Method, frozen=True, tag="median"):
    """The middle one; the mean of the two in the middle."""


class TrimmedMean(_Method, frozen=True, tag="trimmed_mean"):
    """Mean without the lowest and the highest."""

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
    """One voter, one vote."""


class WeightedVote(_Method, frozen=True, tag="weighted_vote"):
    """One voter, as many votes as its weight."""


Coefficient = Number | tuple[tuple[Number, ...], ...]


class Stacking(_Method, frozen=True, tag="stack", kw_only=True):
    """A linear model over what the voters say: logistic for classes, linear for a regression."""

    coefficients: Annotated[
        Mapping[str, Coefficient],
        Meta(
            description="One a voter, by its id. Regression and binary: a number, for its value or its probability of "
            "the second class. Multiclass: a list a class, holding a number for each class's probability."
        ),
    ]
    intercept: Annotated[
        Number | tuple[Number, ...], Meta(description="A number; of a multiclass task a list of one a class.")
    ] = 0.0
    missing: Annotated[
        Literal["refuse", "mean"],
        Meta(
            description="A voter without an output. refuse: there is no quorum without it; mean: it counts as if it "
            "had said the mean of the others."
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
"""Those that use the members' weights."""

VOTES = frozenset({"hard_vote", "weighted_vote"})
"""Those that count labels, and so need no probabilities."""

CLASS_METHODS = VOTES | {"soft_vote", "geometric_mean"}
"""Those that make no sense for a regression."""


class Quorum(Struct, frozen=True, forbid_unknown_fields=True):
    """What must have answered, of the voters that were asked, for the answer to count."""

    min_members: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Fewest voters; more than half of them by default.")
    ] = None
    min_weight: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        Meta(description="Smallest share of the voters' total weight."),
    ] = None
    required: Annotated[tuple[str, ...], Meta(description="Ids of voters without whom no answer counts.")] = ()


class Confidence(Struct, frozen=True, forbid_unknown_fields=True):
    """What a row's answer must show; a row that misses one of the bounds given does not show it."""

    min_agreement: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        Meta(description="Smallest share of the voters on the winning label."),
    ] = None
    max_spread: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="Greatest standard deviation of what the voters say."),
    ] = None
    min_margin: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        Meta(description="Smallest lead of the winning class over the next one."),
    ] = None


class Policy(Struct, frozen=True):
    """The four parts together, as a release holds them and an output states them."""

    aggregation: Aggregation = Mean()
    quorum: Quorum = Quorum()
    review: Annotated[Confidence | None, Meta(description="Rows that show less are for a person to look at.")] = None
    cascade: Annotated[Confidence | None, Meta(description="Rows that show this are not sent to the next tier.")] = None


def name_method(aggregation: Aggregation) -> str:
    """Return the name that the manifest gives a method."""
    return str(aggregation.__struct_config__.tag)


def override_quorum(policy: Policy, given: Mapping[str, Any]) -> Policy:
    """Return a policy whose quorum has the fields that an execution's payload gives, checked already."""
    return structs.replace(policy, quorum=structs.replace(policy.quorum, **given))
