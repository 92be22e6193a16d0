"""The published form of a prediction: an execution's output, as `docs/output.schema.json` describes it.

Only structures are here. `execution` fills them in.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from stepensemble.core.aggregation.quorum import Status
from stepensemble.core.payload import Pointer
from stepensemble.core.schema.policy import Policy


class MemberFailure(Struct, frozen=True):
    """Why a member has no outputs."""

    type: Annotated[str, Meta(description="Name of the error, as Lambda and Step Functions report it.")]
    message: str


class ShadowReport(Struct, frozen=True):
    """How a shadow compares with the prediction for one row."""

    agrees: Annotated[
        bool,
        Meta(
            description="Its own label is the prediction's; of a regression: its value is within the range of the "
            "voters'."
        ),
    ]
    flips: Annotated[
        bool | None,
        Meta(description="Counting it would have changed the label; null where it cannot be counted."),
    ]


class Prediction(Struct, frozen=True):
    """The prediction for one row; a row with the decision `failed` has `missing` and `failure`, and no numbers."""

    value: Annotated[
        float | None,
        Meta(
            description="regression: the number; binary: the probability of the second class; multiclass: the index of "
            "the predicted class, null where there is none."
        ),
    ]
    spread: Annotated[
        float | None,
        Meta(
            description="Population standard deviation over the voters: of their values, or of their probabilities for "
            "the second (binary) or the best class; null where the decision is failed."
        ),
    ]
    range: Annotated[float | None, Meta(description="Of the same numbers, the greatest less the smallest.")]
    decision: Annotated[
        Literal["accept", "abstain", "review", "failed"],
        Meta(
            description="abstain: a tie that the manifest leaves unbroken; review: the prediction misses a bound of "
            "the manifest's `review`; failed: too few voters have a usable output for the row."
        ),
    ]
    label: Annotated[str | UnsetType | None, Meta(description="The predicted class; null where there is none.")] = UNSET
    score: Annotated[float | UnsetType | None, Meta(description="Its probability.")] = UNSET
    probabilities: Annotated[list[float] | UnsetType, Meta(description="In the manifest's class order.")] = UNSET
    agreement: Annotated[
        float | UnsetType, Meta(description="Share of the voters whose own label is the best one.")
    ] = UNSET
    tie: Annotated[
        bool | UnsetType, Meta(description="Several classes were tied for the best; the rule for ties was applied.")
    ] = UNSET
    margin: Annotated[
        float | UnsetType,
        Meta(description="Lead of the best class over the next, 0 to 1; 0 where the label changes."),
    ] = UNSET
    entropy: Annotated[float | UnsetType, Meta(description="Of the voters' mean distribution, in nats.")] = UNSET
    mean_entropy: Annotated[float | UnsetType, Meta(description="Mean of the voters' own entropies, in nats.")] = UNSET
    mutual_information: Annotated[
        float | UnsetType, Meta(description="The first less the second: how much the voters disagree, in nats.")
    ] = UNSET
    pivotal: Annotated[
        list[str] | UnsetType, Meta(description="Voters without any one of whom the label would be another.")
    ] = UNSET
    tier: Annotated[int | UnsetType, Meta(description="With a cascade: the tier that decided.")] = UNSET
    shadows: Annotated[
        dict[str, ShadowReport] | UnsetType,
        Meta(description="With shadows: how each compares with the prediction."),
    ] = UNSET
    missing: Annotated[
        list[str] | UnsetType,
        Meta(description="Voters without a usable output for this row; left out where all have one."),
    ] = UNSET
    failure: Annotated[
        str | UnsetType, Meta(description="Why there is no prediction, where the decision is failed.")
    ] = UNSET


class MemberReport(Struct, frozen=True):
    """One member's part in an execution."""

    id: str
    version: str
    digest: Annotated[str, Meta(description="SHA-256 of the artifact.")]
    role: Literal["voter", "shadow"]
    status: Annotated[
        Literal["ok", "partial", "failed", "skipped"],
        Meta(
            description="partial: it has a usable output for some of the rows, and the error describes the first row "
            "without one; failed: for none; skipped: it was not invoked, as no row reached its tier."
        ),
    ]
    weight: Annotated[
        float,
        Meta(
            description="Share in the prediction of a row for which every voter has an output; 0 for a voter that has "
            "no outputs, and for shadows."
        ),
    ]
    outputs: Annotated[
        list[Any] | Pointer | None,
        Meta(
            description="One entry a row, with a cascade one a row that reached its tier: a number, a name, or a list "
            "of numbers, null for one that is not finite; or a pointer to a NumPy file."
        ),
    ]
    duration_ms: Annotated[float | None, Meta(description="Time in the function, loading included.")]
    cold: Annotated[bool | None, Meta(description="Whether this call loaded the model.")]
    error: MemberFailure | None


class Participation(Struct, frozen=True):
    """Members of one role: how many were invoked, how many responded for any row, and the latter's weight share."""

    invoked: int
    responded: int
    weight: float


class Output(Struct, frozen=True):
    """The output of an execution."""

    prediction_id: str
    release: Annotated[str, Meta(description="Digest of the release that predicted.")]
    status: Annotated[
        Status,
        Meta(description="COMPLETE: every invoked voter responded for every row; DEGRADED: some did not."),
    ]
    policy: Annotated[
        Policy, Meta(description="The policy that was applied, defaults and the payload's own quorum included.")
    ]
    participation: Annotated[dict[Literal["voter", "shadow"], Participation], Meta(description="By role.")]
    needs_review: Annotated[int, Meta(description="Rows whose decision is review.")]
    predictions: Annotated[
        list[Prediction] | Pointer,
        Meta(description="One entry a row, in the payload's order; or a pointer to them as a JSON file."),
    ]
    members: Annotated[list[MemberReport], Meta(description="In the manifest's order.")]
    rows_failed: Annotated[int, Meta(description="Rows whose decision is failed.")] = 0


def output_schema() -> dict[str, Any]:
    """Return the published JSON Schema (draft 2020-12) of an execution's output."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "stepensemble output",
        **msgspec.json.schema(Output),
    }
