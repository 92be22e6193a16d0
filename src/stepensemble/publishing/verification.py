"""Verify: does a stack answer the golden rows as the release did at the gate?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from msgspec import Struct

from stepensemble.core.answer import MemberReport, Output
from stepensemble.core.columns import stack_columns
from stepensemble.core.errors import VerificationFailed
from stepensemble.core.features import normalize
from stepensemble.core.fingerprint import Fingerprint, MemberFingerprint, compare, measure_deviation
from stepensemble.core.outputs import Array, Label, check_output
from stepensemble.core.payload import Pointer
from stepensemble.core.release import SHORT, Release, ReleasedMember
from stepensemble.publishing.golden import GOLDEN_ROWS, draw_rows
from stepensemble.publishing.publish import Now
from stepensemble.publishing.sources import Sources
from stepensemble.runtimes import load_model

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


def take_fingerprint(
    release: Release, digest: str, artifacts: Mapping[str, bytes], rows: Sequence[Mapping[str, Any]], taken_at: str
) -> Fingerprint:
    """Ask every member about the golden rows, in process.

    Args:
        release: whose members are asked.
        digest: its name.
        artifacts: member id to the model file's content.
        rows: as a payload has them.
        taken_at: ISO 8601 in UTC.

    Raises:
        MemberError: one does not load or answer; the gate has seen to that.
    """
    columns = normalize(release.features, rows)
    outputs: dict[str, Array] = {}
    for member in release.members:
        model = load_model(member.runtime, artifacts[member.id])
        outputs[member.id] = check_output(model.predict(stack_columns(columns, member.columns)), len(rows))
    return make_fingerprint(release, digest, outputs, rows, taken_at)


def make_fingerprint(
    release: Release, digest: str, outputs: Mapping[str, Array], rows: Sequence[Mapping[str, Any]], taken_at: str
) -> Fingerprint:
    """Make a fingerprint of raw outputs that are at hand; see `take_fingerprint`."""
    members = {member.id: MemberFingerprint(member.runtime, outputs[member.id].tolist()) for member in release.members}
    return Fingerprint(digest, taken_at, tuple(rows), members)


def fingerprint_sources(sources: Sources, now: Now = lambda: datetime.now(UTC)) -> Fingerprint:
    """Take the fingerprint of a manifest's release, on golden rows drawn from its features."""
    rows = draw_rows(sources.release.features, GOLDEN_ROWS)
    taken_at = now().isoformat(timespec="milliseconds")
    return take_fingerprint(sources.release, sources.digest, sources.artifacts, rows, taken_at)


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
