"""An execution's output: the answer a row, and every member's part in it.

`decide` is the whole aggregation: canonical outputs, quorum, combination. `Output` and its parts are the published form
(`docs/output.schema.json` is written from them).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from stepensemble.core.aggregation import Combined, combine, effective_weights
from stepensemble.core.errors import InvalidOutput
from stepensemble.core.manifest import RegressionTask, Task
from stepensemble.core.outputs import Array, Floats, canonical, check_output
from stepensemble.core.payload import Pointer
from stepensemble.core.quorum import Status, explain_failure, judge
from stepensemble.core.release import Release, ReleasedMember


class MemberFailure(Struct, frozen=True):
    """Why a member has no outputs."""

    type: Annotated[str, Meta(description="Name of the error, as Lambda and Step Functions report it.")]
    message: str


class Prediction(Struct, frozen=True):
    """The answer for one row."""

    value: Annotated[
        float,
        Meta(
            description="regression: the number; binary: the probability of the second class; multiclass: the index of "
            "the winning class."
        ),
    ]
    spread: Annotated[
        float,
        Meta(
            description="Population standard deviation over the voters: of their values, or of their probabilities for "
            "the second (binary) or the winning class."
        ),
    ]
    label: Annotated[str | UnsetType, Meta(description="The winning class.")] = UNSET
    score: Annotated[float | UnsetType, Meta(description="Its probability.")] = UNSET
    probabilities: Annotated[list[float] | UnsetType, Meta(description="In the manifest's class order.")] = UNSET
    agreement: Annotated[
        float | UnsetType, Meta(description="Share of the voters whose own label is the winning one.")
    ] = UNSET
    tie: Annotated[
        bool | UnsetType,
        Meta(
            description="Decided by the rule: in a vote the class that comes first in the manifest; at a threshold "
            "exactly reached, the second class."
        ),
    ] = UNSET


class MemberReport(Struct, frozen=True):
    """One member's part in an answer."""

    id: str
    version: str
    digest: Annotated[str, Meta(description="SHA-256 of the artifact.")]
    role: Literal["voter", "shadow"]
    status: Literal["ok", "failed"]
    weight: Annotated[float, Meta(description="Share in this answer; 0 for who failed, and for shadows.")]
    outputs: Annotated[
        list[Any] | Pointer | None,
        Meta(description="One entry a row, a number or a list of numbers; or a pointer to a NumPy file."),
    ]
    duration_ms: Annotated[float | None, Meta(description="Time in the function, loading included.")]
    cold: Annotated[bool | None, Meta(description="Whether this call loaded the model.")]
    error: MemberFailure | None


class Output(Struct, frozen=True):
    """The output of an execution."""

    prediction_id: str
    release: Annotated[str, Meta(description="Digest of the release that answered.")]
    status: Annotated[Status, Meta(description="COMPLETE: every voter answered; DEGRADED: some did not.")]
    predictions: Annotated[
        list[Prediction] | Pointer,
        Meta(description="One entry a row, in the payload's order; or a pointer to them as a JSON file."),
    ]
    members: Annotated[list[MemberReport], Meta(description="In the manifest's order.")]


def output_schema() -> dict[str, Any]:
    """Return the published JSON Schema (draft 2020-12) of an execution's output."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "stepensemble output",
        **msgspec.json.schema(Output),
    }


@dataclass(frozen=True, slots=True)
class MemberResult:
    """What came back from one member: outputs, or a failure.

    Attributes:
        outputs: `(rows,)` or `(rows, numbers)`; None where it failed.
        pointer: where the outputs lie, when they are too large to travel.
    """

    id: str
    outputs: Array | None = None
    duration_ms: float | None = None
    cold: bool | None = None
    failure: MemberFailure | None = None
    pointer: Pointer | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A decided execution; `cause` says why there is no quorum, and is None where there is."""

    status: Status
    predictions: list[Prediction]
    members: list[MemberReport]
    cause: str | None


def decide(release: Release, rows: int, results: Mapping[str, MemberResult]) -> Answer:
    """Combine what the members said.

    Args:
        release: which members there are and what their outputs mean.
        rows: how many rows were asked.
        results: member id to what came back; a member without a result has failed.
    """
    checked = {member.id: _check(member, release.task, rows, results.get(member.id)) for member in release.members}
    answered = {id_: part for id_, (_, part) in checked.items() if part is not None}
    voters = release.voters
    status = judge(voters, answered, release.min_members)
    present = [member for member in voters if member.id in answered]
    shares: dict[str, float] = {}
    predictions: list[Prediction] = []
    if status != "FAILED":
        weights = [member.weight for member in present]
        method = release.aggregation.method
        effective = effective_weights(method, weights).tolist()
        shares = dict(zip((member.id for member in present), effective, strict=True))
        combined = combine(release.task, method, [answered[member.id] for member in present], weights)
        predictions = list_predictions(release.task, combined)
    return Answer(
        status=status,
        predictions=predictions,
        members=[_report(member, checked[member.id][0], shares.get(member.id, 0.0)) for member in release.members],
        cause=explain_failure(voters, answered, release.min_members) if status == "FAILED" else None,
    )


def list_predictions(task: Task, combined: Combined) -> list[Prediction]:
    """Turn arrays into one `Prediction` a row."""
    values, spreads = combined.value.tolist(), combined.spread.tolist()
    if (
        isinstance(task, RegressionTask)
        or combined.label is None
        or combined.probabilities is None
        or combined.agreement is None
        or combined.tie is None
    ):
        return [Prediction(value, spread) for value, spread in zip(values, spreads, strict=True)]
    rows = zip(
        values,
        spreads,
        combined.label.tolist(),
        combined.probabilities.tolist(),
        combined.agreement.tolist(),
        combined.tie.tolist(),
        strict=True,
    )
    return [
        Prediction(value, spread, task.classes[label], shares[label], shares, agreement, tie)
        for value, spread, label, shares, agreement, tie in rows
    ]


def _check(
    member: ReleasedMember, task: Task, rows: int, result: MemberResult | None
) -> tuple[MemberResult, Floats | None]:
    if result is None:
        failure = MemberFailure("NoResult", "no result came back")
        return MemberResult(member.id, failure=failure), None
    if result.outputs is None:
        return result, None
    try:
        return result, canonical(check_output(result.outputs, rows), task, member.output)
    except InvalidOutput as error:
        failure = MemberFailure(type(error).__name__, str(error))
        return (
            MemberResult(member.id, result.outputs, result.duration_ms, result.cold, failure, result.pointer),
            None,
        )


def _report(member: ReleasedMember, result: MemberResult, weight: float) -> MemberReport:
    return MemberReport(
        id=member.id,
        version=member.version,
        digest=member.artifact.digest,
        role=member.role,
        status="ok" if result.failure is None else "failed",
        weight=weight,
        outputs=None if result.outputs is None else result.outputs.tolist(),
        duration_ms=result.duration_ms,
        cold=result.cold,
        error=result.failure,
    )


def name_failure(error: str, cause: Any) -> MemberFailure:
    """Read what a state machine caught: `Error`, and a `Cause` that is Lambda's JSON, or plain text."""
    message = str(cause)
    try:
        details = msgspec.json.decode(message)
    except msgspec.DecodeError:
        details = None
    if isinstance(details, dict) and "errorMessage" in details:
        message = str(details["errorMessage"])
    return MemberFailure(error, message or "no cause was given")
