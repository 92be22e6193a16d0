"""Verify: does a stack answer the golden rows as the release did at the gate?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from msgspec import Struct

from stepensemble.core.aggregation.prediction import Output
from stepensemble.core.arrays import Array
from stepensemble.core.errors import VerificationFailed
from stepensemble.core.payload import Pointer
from stepensemble.core.releases.fingerprint import Fingerprint, MemberFingerprint
from stepensemble.core.releases.release import SHORT, Release, ReleasedMember
from stepensemble.core.schema.outputs import Label
from stepensemble.core.tolerance import compare, measure_deviation, place_rows

Ask = Callable[[dict[str, Any]], tuple[Output | None, str]]
"""Runs an execution with a payload; returns its output with pointers followed, or None and why there is none."""


class MemberVerdict(Struct, frozen=True):
    """How one member compares.

    Attributes:
        status: failed: it did not answer, or nothing is known of what it should. varies: it differs, as the manifest
            declares.
        deviation: greatest distance from the fingerprint, relative to the scale of its outputs; None without numbers.
        reasons: what differs, or why it failed.
    """

    member: str
    status: Literal["same", "varies", "differs", "failed"]
    deviation: float | None
    reasons: tuple[str, ...]


class Verification(Struct, frozen=True):
    """How a release compares.

    Attributes:
        taken_at: when the fingerprint was taken, ISO 8601 in UTC.
        prediction_id: of the execution with all golden rows; its record is kept as any other.
    """

    release: str
    taken_at: str
    rows: int
    prediction_id: str
    members: tuple[MemberVerdict, ...]

    @property
    def passed(self) -> bool:
        """Whether every member is the same, or varies as declared."""
        return all(verdict.status in ("same", "varies") for verdict in self.members)


def make_fingerprint(
    release: Release, digest: str, outputs: Mapping[str, Array], rows: Sequence[Mapping[str, Any]], taken_at: str
) -> Fingerprint:
    """Make a fingerprint.

    Args:
        release: whose members were asked.
        digest: its name.
        outputs: member id to its checked output, one entry a golden row.
        rows: the golden rows, as a payload has them.
        taken_at: ISO 8601 in UTC.
    """
    members = {member.id: MemberFingerprint(member.runtime, outputs[member.id].tolist()) for member in release.members}
    return Fingerprint(digest, taken_at, tuple(rows), members)


@dataclass(frozen=True, slots=True)
class _Round:
    """One execution: which golden rows are predicted, in their order, and in which way."""

    how: str
    numbers: Sequence[int]


def verify(release: Release, fingerprint: Fingerprint, ask: Ask) -> Verification:
    """Have a stack answer the golden rows, and compare every member's raw outputs with the fingerprint.

    It answers all of them together, then again in another order, then the first one alone: a member whose answer to a
    row depends on more than the row differs in one of these.

    Args:
        release: as the stack holds it.
        fingerprint: of that release.
        ask: runs an execution.

    Raises:
        VerificationFailed: the stack has no answer at all.
    """
    numbers = range(len(fingerprint.instances))
    rounds = [_Round("", numbers), _Round("again, in another order: ", numbers[::-1])]
    if len(numbers) > 1:
        rounds.append(_Round("alone: ", numbers[:1]))
    answered: list[tuple[_Round, Output]] = []
    for one in rounds:
        output, why = ask(make_golden_payload(release, fingerprint, one.numbers))
        if output is None:
            raise VerificationFailed(
                f"release {fingerprint.release[:SHORT]} does not answer the golden rows: {one.how}{why}"
            )
        answered.append((one, output))
    return Verification(
        release=fingerprint.release,
        taken_at=fingerprint.taken_at,
        rows=len(fingerprint.instances),
        prediction_id=answered[0][1].prediction_id,
        members=tuple(_judge(member, fingerprint.members.get(member.id), answered) for member in release.members),
    )


def make_golden_payload(
    release: Release, fingerprint: Fingerprint, numbers: Sequence[int] | None = None
) -> dict[str, Any]:
    """Return the payload that asks every member of a release about golden rows: all, or those of some numbers."""
    wanted = range(len(fingerprint.instances)) if numbers is None else numbers
    payload: dict[str, Any] = {
        "instances": [fingerprint.instances[number] for number in wanted],
        "release": fingerprint.release,
        "metadata": {"verify": True},
    }
    if release.tiers > 1:
        # No tier before the last has as many voters: none decides a row, and all members are asked about all of them.
        payload["quorum"] = {"min_members": len(release.voters)}
    return payload


def _judge(
    member: ReleasedMember, expected: MemberFingerprint | None, answered: Sequence[tuple[_Round, Output]]
) -> MemberVerdict:
    """Compare a member in every round, up to the first in which it failed."""
    if expected is None:
        return MemberVerdict(member.id, "failed", None, ("the fingerprint does not have it; publish again",))
    reasons: list[str] = []
    deviations: list[float] = []
    for one, output in answered:
        report = next((report for report in output.members if report.id == member.id), None)
        if report is None or report.outputs is None or isinstance(report.outputs, Pointer):
            error = None if report is None else report.error
            reason = "it was not asked" if error is None else f"{error.type}: {error.message}"
            return MemberVerdict(member.id, "failed", None, (f"{one.how}{reason}",))
        said = place_rows(expected.outputs, one.numbers, report.outputs)
        differences = compare(expected.outputs, said, labels=isinstance(member.output, Label))
        reasons += [f"{one.how}{difference}" for difference in differences]
        deviation = measure_deviation(expected.outputs, said)
        deviations += [] if deviation is None else [deviation]
    status: Literal["same", "varies", "differs"] = "same"
    if reasons:
        status = "varies" if member.varies else "differs"
    return MemberVerdict(member.id, status, max(deviations, default=None), tuple(reasons))
