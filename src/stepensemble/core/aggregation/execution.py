"""An execution's result: what `decide_rows` decided, in the published form.

Aggregate and `Ensemble.predict` call `decide`. The batch calls `decide_rows`, and makes a table of the arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal

import numpy as np
from msgspec import Struct, structs

from stepensemble.core.aggregation.canonical import Faults, list_entries
from stepensemble.core.aggregation.decision import Decision, DecisionRules, Undecided, decide_rows
from stepensemble.core.aggregation.output import MemberReport, Output, Participation, Prediction
from stepensemble.core.aggregation.output_source import (
    CollectedResults,
    MemberResult,
    OutputSource,
    Results,
    report_invalid,
)
from stepensemble.core.aggregation.prediction import ExplainedRows, list_predictions
from stepensemble.core.aggregation.quorum import Status, least_members, weight_share
from stepensemble.core.releases.release import Release, ReleasedMember
from stepensemble.core.schema.policy import Policy


class ExecutionResult(Struct, frozen=True):
    """A decided execution; `cause` is why there is no quorum in any row, None where there is one."""

    status: Status
    policy: Policy
    participation: dict[Literal["voter", "shadow"], Participation]
    predictions: list[Prediction]
    members: list[MemberReport]
    cause: str | None

    @property
    def needs_review(self) -> int:
        """How many rows a person should check."""
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


ONLY_ROW = np.arange(1)
"""The number of a row that is the only one."""

FastPath = Callable[[Results], ExecutionResult | None]
"""Decides one row from its members' results, under the release's own policy; see `single_row.prepare_fast_path`."""


def decide(
    release: Release, policy: Policy, rows: int, source: OutputSource, fast_path: FastPath | None = None
) -> ExecutionResult | Undecided:
    """Combine the members' results into an execution's result.

    Args:
        release: its task and members.
        policy: the release's, with the payload's quorum.
        rows: how many rows there are.
        source: supplies each tier's results.
        fast_path: the release's, if it has one. It decides a single row under the release's own policy; where it
            returns None, the row is decided as arrays.

    Returns:
        `Undecided` if a tier must be invoked first.
    """
    if rows == 1 and fast_path is not None and policy is release.policy:
        results = source.get_results(1, ONLY_ROW)
        if results is not None:
            result = fast_path(results)
            if result is not None:
                return result
            source = CollectedResults([results])  # a release with a fast path has one tier
    decision = decide_rows(DecisionRules(release.task, policy, release.members), rows, source)
    return decision if isinstance(decision, Undecided) else _build_result(release, policy, decision)


def _build_result(release: Release, policy: Policy, decision: Decision) -> ExecutionResult:
    invoked = [member for member in release.members if member.tier in decision.reached]
    members = [
        report_member(m, decision.results.get(m.id), decision.weights.get(m.id, 0.0), decision.faults.get(m.id))
        for m in release.members
    ]
    responded = [report.id for report in members if report.status in ("ok", "partial")]
    participation = count_participation(invoked, responded)
    failed = [ExplainedRows(part, decision.explain(part, release.voters)) for part in decision.failed]
    status, cause = decision.status, decision.cause
    if status == "FAILED" and cause is None:  # no row has a prediction: the first row's reason stands for all
        cause = min((int(one.rows.numbers[0]), one.reasons[0]) for one in failed)[1]
    return ExecutionResult(
        status=status,
        policy=resolve_quorum(policy, participation["voter"].invoked),
        participation=participation,
        predictions=[]
        if status == "FAILED"
        else list_predictions(release.task, decision.decided, failed, tiers=release.tiers),
        members=members,
        cause=cause,
    )


def resolve_quorum(policy: Policy, voters: int) -> Policy:
    """Return a policy as an output states it: a default quorum replaced by its number.

    Args:
        policy: that was applied.
        voters: how many were invoked.
    """
    least = least_members(policy.quorum, voters)
    return structs.replace(policy, quorum=structs.replace(policy.quorum, min_members=least))


def count_participation(
    invoked: Sequence[ReleasedMember], responded: Collection[str]
) -> dict[Literal["voter", "shadow"], Participation]:
    """Count the members that were invoked, and those of them that responded, by role."""
    counted: dict[Literal["voter", "shadow"], Participation] = {}
    for role in ("voter", "shadow"):
        members = [member for member in invoked if member.role == role]
        present = [member.id for member in members if member.id in responded]
        counted[role] = Participation(len(members), len(present), weight_share(members, present))
    return counted


def report_member(
    member: ReleasedMember, result: MemberResult | None, weight: float, faults: Faults | None = None
) -> MemberReport:
    """Return a member's part in an execution.

    Args:
        member: of the release.
        result: None where it was not invoked.
        weight: its share in the prediction.
        faults: the rows in which its output is not what was declared; None where there are none.
    """
    known = result or MemberResult(member.id)
    error = known.failure if faults is None else report_invalid(faults.describe())
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
