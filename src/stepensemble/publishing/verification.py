"""Verify: does a stack answer the golden rows as the release did at the gate?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from stepensemble.core.answer import MemberReport, Output
from stepensemble.core.closeness import compare, measure_deviation
from stepensemble.core.errors import VerificationFailed
from stepensemble.core.outputs import Array, Label
from stepensemble.core.payload import Pointer
from stepensemble.core.releases.fingerprint import Fingerprint, MemberFingerprint
from stepensemble.core.releases.release import SHORT, Release, ReleasedMember

Ask = Callable[[dict[str, Any]], tuple[Output | None, str]]
"""Runs an execution with a payload; returns its output with pointers followed, or None and why there is none."""


class MemberVerdict(Struct, frozen=True):
    """How one member compares.

    Attributes:
        status: failed: it did not answer, or nothing is known of what it should.
        deviation: greatest distance from the fingerprint, relative to the scale of its outputs; None without numbers.
        reasons: what differs, or why it failed.
    """

    member: str
    status: Literal["same", "differs", "failed"]
    deviation: float | None
    reasons: tuple[str, ...]


class Verification(Struct, frozen=True):
    """How a release compares.

    Attributes:
        taken_at: when the fingerprint was taken, ISO 8601 in UTC.
        prediction_id: of the execution that was made; its record is kept as any other.
    """

    release: str
    taken_at: str
    rows: int
    prediction_id: str
    members: tuple[MemberVerdict, ...]

    @property
    def passed(self) -> bool:
        """Whether every member is the same."""
        return all(verdict.status == "same" for verdict in self.members)


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


def verify(release: Release, fingerprint: Fingerprint, ask: Ask) -> Verification:
    """Have a stack answer the golden rows, and compare every member's raw outputs with the fingerprint.

    Args:
        release: as the stack holds it.
        fingerprint: of that release.
        ask: runs the one execution that this takes.

    Raises:
        VerificationFailed: the stack has no answer at all.
    """
    output, why = ask(golden_payload(release, fingerprint))
    if output is None:
        raise VerificationFailed(f"release {fingerprint.release[:SHORT]} does not answer the golden rows: {why}")
    reports = {report.id: report for report in output.members}
    return Verification(
        release=fingerprint.release,
        taken_at=fingerprint.taken_at,
        rows=len(fingerprint.instances),
        prediction_id=output.prediction_id,
        members=tuple(
            _judge(member, fingerprint.members.get(member.id), reports.get(member.id)) for member in release.members
        ),
    )


def golden_payload(release: Release, fingerprint: Fingerprint) -> dict[str, Any]:
    """Return the payload that asks every member of a release about the golden rows."""
    payload: dict[str, Any] = {
        "instances": list(fingerprint.instances),
        "release": fingerprint.release,
        "metadata": {"verify": True},
    }
    if release.tiers > 1:
        # No tier before the last has as many voters: none decides a row, and all members are asked about all of them.
        payload["quorum"] = {"min_members": len(release.voters)}
    return payload


def _judge(member: ReleasedMember, expected: MemberFingerprint | None, report: MemberReport | None) -> MemberVerdict:
    if expected is None:
        return MemberVerdict(member.id, "failed", None, ("the fingerprint does not have it; publish again",))
    if report is None or report.outputs is None or isinstance(report.outputs, Pointer):
        error = None if report is None else report.error
        reason = "it was not asked" if error is None else f"{error.type}: {error.message}"
        return MemberVerdict(member.id, "failed", None, (reason,))
    reasons = tuple(compare(expected.outputs, report.outputs, labels=isinstance(member.output, Label)))
    deviation = measure_deviation(expected.outputs, report.outputs)
    return MemberVerdict(member.id, "differs" if reasons else "same", deviation, reasons)
