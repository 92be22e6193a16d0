"""An execution's output: the answer a row, and every member's part in it.

`decide` takes raw outputs to canonical ones and leaves the decision to `decision.decide`. `Output` and its parts are
the published form (`docs/output.schema.json` is written from them).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from stepensemble.core.aggregation import decision
from stepensemble.core.aggregation.canonical import Faults, list_entries, read_output, shape_output
from stepensemble.core.aggregation.classification import ABSTAINED
from stepensemble.core.aggregation.decision import (
    ClassPredictions,
    DecidedRows,
    Decision,
    FailedRows,
    RowPredictions,
    Undecided,
)
from stepensemble.core.aggregation.quorum import Status, least_members, weight_share
from stepensemble.core.arrays import Array, Floats, Integers
from stepensemble.core.errors import InvalidOutput
from stepensemble.core.payload import Pointer
from stepensemble.core.releases.release import Release, ReleasedMember
from stepensemble.core.schema.policy import Policy
from stepensemble.core.schema.task import RegressionTask, Task, name_classes


class MemberFailure(Struct, frozen=True):
    """Why a member has no outputs."""

    type: Annotated[str, Meta(description="Name of the error, as Lambda and Step Functions report it.")]
    message: str


class ShadowReport(Struct, frozen=True):
    """How a shadow would have fared in one row."""

    agrees: Annotated[
        bool,
        Meta(
            description="Its own label is the answer's; of a regression: its value is within the range of the voters'."
        ),
    ]
    flips: Annotated[
        bool | None,
        Meta(description="Counting it would have changed the label; null where it cannot be counted."),
    ]


class Prediction(Struct, frozen=True):
    """The answer for one row; of a row whose decision is `failed` there are `missing` and `failure`, and no numbers."""

    value: Annotated[
        float | None,
        Meta(
            description="regression: the number; binary: the probability of the second class; multiclass: the index of "
            "the answered class, null where there is none."
        ),
    ]
    spread: Annotated[
        float | None,
        Meta(
            description="Population standard deviation over the voters: of their values, or of their probabilities for "
            "the second (binary) or the best class; null where there is no answer."
        ),
    ]
    range: Annotated[float | None, Meta(description="Of the same numbers, the greatest less the smallest.")]
    decision: Annotated[
        Literal["accept", "abstain", "review", "failed"],
        Meta(
            description="abstain: a tie that is not to be broken; review: the answer shows less than the manifest's "
            "`review` asks for; failed: too few voters have a usable output for the row."
        ),
    ]
    label: Annotated[str | UnsetType | None, Meta(description="The answered class; null where there is none.")] = UNSET
    score: Annotated[float | UnsetType | None, Meta(description="Its probability.")] = UNSET
    probabilities: Annotated[list[float] | UnsetType, Meta(description="In the manifest's class order.")] = UNSET
    agreement: Annotated[
        float | UnsetType, Meta(description="Share of the voters whose own label is the best one.")
    ] = UNSET
    tie: Annotated[bool | UnsetType, Meta(description="The best class shared its place; the rule decided.")] = UNSET
    margin: Annotated[
        float | UnsetType, Meta(description="Lead of the best class over the next, 0 to 1; 0 where the answer changes.")
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
        dict[str, ShadowReport] | UnsetType, Meta(description="With shadows: how each would have fared.")
    ] = UNSET
    missing: Annotated[
        list[str] | UnsetType,
        Meta(description="Voters without a usable output for this row; not there where all have one."),
    ] = UNSET
    failure: Annotated[str | UnsetType, Meta(description="Why there is no answer, where the decision is failed.")] = (
        UNSET
    )


class MemberReport(Struct, frozen=True):
    """One member's part in an answer."""

    id: str
    version: str
    digest: Annotated[str, Meta(description="SHA-256 of the artifact.")]
    role: Literal["voter", "shadow"]
    status: Annotated[
        Literal["ok", "partial", "failed", "skipped"],
        Meta(
            description="partial: it has a usable output for some of the rows, the first other one is the error; "
            "failed: for none; skipped: its tier was not reached, it was not asked."
        ),
    ]
    weight: Annotated[
        float,
        Meta(
            description="Share in the answer of a row that no voter is missing in; 0 for who has none, and for shadows."
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
    """How many of one role were asked, how many answered in any row, and the share of their weight that did."""

    invoked: int
    responded: int
    weight: float


class Output(Struct, frozen=True):
    """The output of an execution."""

    prediction_id: str
    release: Annotated[str, Meta(description="Digest of the release that answered.")]
    status: Annotated[
        Status,
        Meta(description="COMPLETE: every voter asked answered in every row; DEGRADED: some did not."),
    ]
    policy: Annotated[Policy, Meta(description="As it was in force, defaults and the payload's own quorum included.")]
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


class MemberResult(Struct, frozen=True):
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


Results = Mapping[str, MemberResult]
"""Member id to what came back; a member that was asked and is not there has failed."""

AskMembers = Callable[[int, Integers], Results | None]
"""Returns what came back from a tier's members for these rows; None where they are yet to be asked."""


class ExecutionResult(Struct, frozen=True):
    """A decided execution; `cause` says why there is no quorum in any row, and is None where there is in one."""

    status: Status
    policy: Policy
    participation: dict[Literal["voter", "shadow"], Participation]
    predictions: list[Prediction]
    members: list[MemberReport]
    cause: str | None

    @property
    def needs_review(self) -> int:
        """How many rows a person should look at."""
        return sum(prediction.decision == "review" for prediction in self.predictions)

    def to_output(self, prediction_id: str, release: str) -> Output:
        """Return it in the published form."""
        return Output(
            prediction_id=prediction_id,
            release=release,
            status=self.status,
            policy=self.policy,
            participation=self.participation,
            needs_review=self.needs_review,
            predictions=self.predictions,
            members=self.members,
            rows_failed=sum(prediction.decision == "failed" for prediction in self.predictions),
        )


@dataclass(frozen=True, slots=True)
class Heard:
    """What was decided, and what it was decided from.

    Attributes:
        results: of every member that was asked; one whose output as a whole is not what it declared has failed.
        outputs: canonical ones, of the members that did not fail; NaN in rows that are not what was declared.
        faults: which rows these are, of the members that have some.
        asked: tier to the rows that its members were asked.
    """

    decided: Decision
    results: Results
    outputs: Mapping[str, Floats]
    faults: Mapping[str, Faults]
    asked: Mapping[int, Integers]

    def explain(self, part: FailedRows, release: Release) -> list[str]:
        """Say of each of these rows why it has no answer: the quorum's cause, and what is wrong with outputs."""
        reasons: list[list[str]] = [[part.cause] for _ in part.numbers]
        for member in release.voters:
            faults, asked = self.faults.get(member.id), self.asked.get(member.tier)
            if faults is None or asked is None or member.id not in part.missing:
                continue
            explained = faults.explain(np.searchsorted(asked, part.numbers))
            for said, reason in zip(reasons, explained, strict=True):
                said += [] if reason is None else [f"{member.id}: {reason}"]
        return ["; ".join(said) for said in reasons]


def hear(release: Release, policy: Policy, rows: int, ask: AskMembers) -> Heard | Undecided:
    """Check what the members said and decide the rows by it; see `decide`, which puts it in the published form."""
    results: dict[str, MemberResult] = {}
    outputs: dict[str, Floats] = {}
    found: dict[str, Faults] = {}
    asked: dict[int, Integers] = {}

    def listen(tier: int, numbers: Integers) -> Mapping[str, Floats] | None:
        came = ask(tier, numbers)
        if came is None:
            return None
        said: dict[str, Floats] = {}
        for member in release.in_tier(tier):
            result, output, faults = _check(member, release.task, len(numbers), came.get(member.id))
            results[member.id] = result
            if output is not None:
                said[member.id] = output
            if faults is not None:
                found[member.id] = faults
        outputs.update(said)
        asked[tier] = numbers
        return said

    decided = decision.decide(release.task, policy, release.members, rows, listen)
    return decided if isinstance(decided, Undecided) else Heard(decided, results, outputs, found, asked)


def decide(release: Release, policy: Policy, rows: int, ask: AskMembers) -> ExecutionResult | Undecided:
    """Combine what the members said.

    Args:
        release: which members there are and what their outputs mean.
        policy: the release's, with what the payload says of the quorum.
        rows: how many rows were asked.
        ask: gives what came back from each tier.
    """
    heard = hear(release, policy, rows, ask)
    if isinstance(heard, Undecided):
        return heard
    decided = heard.decided
    asked = [member for member in release.members if member.id in decided.asked]
    members = [
        report_member(m, heard.results.get(m.id), decided.weights.get(m.id, 0.0), heard.faults.get(m.id))
        for m in release.members
    ]
    participation = count_participation(asked, [report.id for report in members if report.status in ("ok", "partial")])
    failures = [(part, heard.explain(part, release)) for part in decided.failed]
    cause = decided.cause
    if decided.status == "FAILED" and cause is None:
        cause = min((int(part.numbers[0]), causes[0]) for part, causes in failures)[1]
    return ExecutionResult(
        status=decided.status,
        policy=state_policy(policy, participation["voter"].invoked),
        participation=participation,
        predictions=[]
        if decided.status == "FAILED"
        else list_predictions(release.task, decided.settled, failures, tiers=release.tiers),
        members=members,
        cause=cause,
    )


def ask_once(results: Results) -> AskMembers:
    """Return the asking function of an execution whose one tier has answered."""
    return lambda tier, _: results if tier == 1 else None


def list_predictions(
    task: Task, settled: Sequence[DecidedRows], failed: Sequence[tuple[FailedRows, Sequence[str]]] = (), *, tiers: int
) -> list[Prediction]:
    """Turn arrays into one `Prediction` a row, in the order of the rows.

    Args:
        task: what is asked.
        settled: the rows that are answered.
        failed: those that are not, with the reason of each.
        tiers: how many there are.
    """
    if len(settled) == 1 and not failed:
        return _list_settled(task, settled[0], cascaded=tiers > 1)
    parts = [part.numbers for part in settled] + [part.numbers for part, _ in failed]
    listed = [one for part in settled for one in _list_settled(task, part, cascaded=tiers > 1)]
    label = UNSET if isinstance(task, RegressionTask) else None
    for part, causes in failed:
        missing = list(part.missing)
        listed += [
            Prediction(
                None, None, None, "failed", label, tier=tiers if tiers > 1 else UNSET, missing=missing, failure=why
            )
            for why in causes
        ]
    return [listed[place] for place in np.argsort(np.concatenate([*parts, np.arange(0)])).tolist()]


def measures(answers: RowPredictions) -> dict[str, Array]:
    """Return the numbers and flags of answers under their published names, an array each.

    `value` and `score` are NaN where there is none.
    """
    arrays: dict[str, Array] = {
        "value": answers.value,
        "spread": answers.spread.std,
        "range": answers.spread.range,
    }
    if answers.classes is None:
        return arrays
    classes = answers.classes
    best = np.maximum(classes.label, 0)[:, None]
    score = np.take_along_axis(classes.probabilities, best, axis=1)[:, 0]
    return arrays | {
        "score": np.where(classes.label == ABSTAINED, np.nan, score),
        "probabilities": classes.probabilities,
        "agreement": classes.agreement,
        "tie": classes.tie,
        "margin": classes.margin,
        "entropy": classes.entropy,
        "mean_entropy": classes.mean_entropy,
        "mutual_information": classes.entropy - classes.mean_entropy,
    }


DECISIONS = ("accept", "abstain", "review")


def decision_codes(answers: RowPredictions) -> npt.NDArray[np.int64]:
    """Return what was decided of each row, as indices of `DECISIONS`."""
    abstained: Any = False if answers.classes is None else answers.classes.label == ABSTAINED
    return np.where(answers.review, DECISIONS.index("review"), np.where(abstained, DECISIONS.index("abstain"), 0))


def _list_settled(task: Task, part: DecidedRows, *, cascaded: bool) -> list[Prediction]:
    answers = part.answers
    rows = len(part.numbers)
    columns: dict[str, Sequence[Any]] = dict.fromkeys(Prediction.__struct_fields__, [UNSET] * rows)
    columns |= {name: array.tolist() for name, array in measures(answers).items()}
    columns["value"] = _list_present(columns["value"])
    columns["decision"] = [DECISIONS[code] for code in decision_codes(answers).tolist()]
    if answers.classes is not None:
        columns["score"] = _list_present(columns["score"])
        columns |= _list_names(task, answers.classes, part.voters)
    if cascaded:
        columns["tier"] = [part.tier] * rows
    if answers.shadows:
        columns["shadows"] = _list_shadows(answers, rows)
    if part.missing:
        columns["missing"] = [list(part.missing)] * rows
    return [Prediction(*row) for row in zip(*columns.values(), strict=True)]  # by position: by name takes longer


def _list_present(numbers: Sequence[float]) -> list[float | None]:
    return [None if isnan(number) else number for number in numbers]


def _list_names(task: Task, answers: ClassPredictions, voters: Sequence[str]) -> dict[str, Sequence[Any]]:
    names = (*name_classes(task), None)  # ABSTAINED, -1, is the last
    pivotal: list[list[str]] = [[] for _ in answers.label]
    for row, voter in np.argwhere(answers.pivotal).tolist():
        pivotal[row].append(voters[voter])
    return {"label": [names[label] for label in answers.label.tolist()], "pivotal": pivotal}


def _list_shadows(answers: RowPredictions, rows: int) -> Sequence[Any]:
    listed = {
        id_: [
            ShadowReport(agrees, flips)
            for agrees, flips in zip(
                view.agrees.tolist(), [None] * rows if view.flips is None else view.flips.tolist(), strict=True
            )
        ]
        for id_, view in answers.shadows.items()
    }
    return [dict(zip(listed, row, strict=True)) for row in zip(*listed.values(), strict=True)]


def state_policy(policy: Policy, voters_asked: int) -> Policy:
    """Return a policy as an output states it: the number that the quorum came to in the place of a default."""
    least = least_members(policy.quorum, voters_asked)
    return structs.replace(policy, quorum=structs.replace(policy.quorum, min_members=least))


def count_participation(
    asked: Sequence[ReleasedMember], answered: Collection[str]
) -> dict[Literal["voter", "shadow"], Participation]:
    """Count the members that were asked, and those of them that answered, by role."""
    counted: dict[Literal["voter", "shadow"], Participation] = {}
    for role in ("voter", "shadow"):
        alike = [member for member in asked if member.role == role]
        present = [member.id for member in alike if member.id in answered]
        counted[role] = Participation(len(alike), len(present), weight_share(alike, present))
    return counted


def _check(
    member: ReleasedMember, task: Task, rows: int, result: MemberResult | None
) -> tuple[MemberResult, Floats | None, Faults | None]:
    if result is None:
        failure = MemberFailure("NoResult", "no result came back")
        return MemberResult(member.id, failure=failure), None, None
    if result.outputs is None:
        return result, None, None
    try:
        return result, *read_output(shape_output(result.outputs, rows), task, member.output)
    except InvalidOutput as error:
        return structs.replace(result, failure=_invalid(str(error))), None, None


def _invalid(message: str) -> MemberFailure:
    return MemberFailure(InvalidOutput.__name__, message)


def report_member(
    member: ReleasedMember, result: MemberResult | None, weight: float, faults: Faults | None = None
) -> MemberReport:
    """Return a member's part in an answer.

    Args:
        member: of the release.
        result: what came back; None where it was not asked.
        weight: its share.
        faults: the rows in which its output is not what was declared; None where there are none.
    """
    known = result or MemberResult(member.id)
    error = known.failure if faults is None else _invalid(faults.describe())
    status: Literal["ok", "partial", "failed", "skipped"] = "skipped" if result is None else "ok"
    if error is not None:
        status = "failed" if faults is None or faults.count == faults.rows else "partial"
    return MemberReport(
        id=member.id,
        version=member.version,
        digest=member.artifact.digest,
        role=member.role,
        status=status,
        weight=weight,
        outputs=None if known.outputs is None else list_entries(known.outputs),
        duration_ms=known.duration_ms,
        cold=known.cold,
        error=error,
    )
