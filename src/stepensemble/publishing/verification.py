"""Verifies a stack: compares its outputs for the golden rows with the fingerprint that the gate made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from msgspec import Struct

from stepensemble.core.aggregation.output import Output
from stepensemble.core.arrays import Array
from stepensemble.core.errors import VerificationFailed
from stepensemble.core.payload import Pointer
from stepensemble.core.releases.fingerprint import Fingerprint, MemberFingerprint
from stepensemble.core.releases.release import SHORT, Release, ReleasedMember
from stepensemble.core.schema.outputs import Label
from stepensemble.core.tolerance import compare, measure_deviation, place_rows

Execute = Callable[[dict[str, Any]], tuple[Output | None, str]]
"""Runs an execution with a payload; returns its output with pointers followed, or None and the reason."""


class MemberVerdict(Struct, frozen=True):
    """How one member compares.

    Attributes:
        status: failed: it did not respond, or the fingerprint does not have it. varies: it differs, as the manifest
            declares.
        deviation: greatest distance from the fingerprint, relative to the scale of its outputs; None without numbers.
        reasons: the differences, or why it failed.
    """

    member: str
    status: Literal["same", "varies", "differs", "failed"]
    deviation: float | None
    reasons: tuple[str, ...]


class Verification(Struct, frozen=True):
    """How a release compares.

    Attributes:
        taken_at: when the fingerprint was taken, ISO 8601 in UTC.
        prediction_id: of the execution with all golden rows, which is recorded like any other.
    """

    release: str
    taken_at: str
    rows: int
    prediction_id: str
    members: tuple[MemberVerdict, ...]

    @property
    def passed(self) -> bool:
        """Whether every member's outputs are the same, or vary as declared."""
        return all(verdict.status in ("same", "varies") for verdict in self.members)


def make_fingerprint(
    release: Release, digest: str, outputs: Mapping[str, Array], rows: Sequence[Mapping[str, Any]], taken_at: str
) -> Fingerprint:
    """Make a fingerprint.

    Args:
        release: the release that the members are of.
        digest: the release's digest.
        outputs: member id to its checked output, one entry for each golden row.
        rows: the golden rows, as a payload has them.
        taken_at: ISO 8601 in UTC.
    """
    members = {member.id: MemberFingerprint(member.runtime, outputs[member.id].tolist()) for member in release.members}
    return Fingerprint(digest, taken_at, tuple(rows), members)


@dataclass(frozen=True, slots=True)
class _Round:
    """One execution: the numbers of the golden rows to predict, in order, and a prefix for messages."""

    prefix: str
    numbers: Sequence[int]


def verify(release: Release, fingerprint: Fingerprint, execute: Execute) -> Verification:
    """Let a stack predict the golden rows, and compare every member's raw outputs with the fingerprint.

    There are three executions: all rows, all rows in another order, and the first row alone. If a member's output for a
    row depends on anything but the row, it differs in one of them.

    Args:
        release: as the stack stores it.
        fingerprint: of that release.
        execute: runs an execution.

    Raises:
        VerificationFailed: an execution has no output.
    """
    numbers = range(len(fingerprint.instances))
    rounds = [_Round("", numbers), _Round("again, in another order: ", numbers[::-1])]
    if len(numbers) > 1:
        rounds.append(_Round("alone: ", numbers[:1]))
    outputs: list[tuple[_Round, Output]] = []
    for one in rounds:
        output, reason = execute(make_golden_payload(release, fingerprint, one.numbers))
        if output is None:
            raise VerificationFailed(
                f"release {fingerprint.release[:SHORT]} does not predict the golden rows: {one.prefix}{reason}"
            )
        outputs.append((one, output))
    return Verification(
        release=fingerprint.release,
        taken_at=fingerprint.taken_at,
        rows=len(fingerprint.instances),
        prediction_id=outputs[0][1].prediction_id,
        members=tuple(
            _compare_member(member, fingerprint.members.get(member.id), outputs) for member in release.members
        ),
    )


def make_golden_payload(
    release: Release, fingerprint: Fingerprint, numbers: Sequence[int] | None = None
) -> dict[str, Any]:
    """Return a payload for which every member predicts golden rows: all, or those with the given numbers."""
    chosen = range(len(fingerprint.instances)) if numbers is None else numbers
    payload: dict[str, Any] = {
        "instances": [fingerprint.instances[number] for number in chosen],
        "release": fingerprint.release,
        "metadata": {"verify": True},
    }
    if release.tiers > 1:
        # Only the last tier reaches this many voters, so no earlier tier decides a row: all members predict all rows.
        payload["quorum"] = {"min_members": len(release.voters)}
    return payload


def _compare_member(
    member: ReleasedMember, expected: MemberFingerprint | None, outputs: Sequence[tuple[_Round, Output]]
) -> MemberVerdict:
    """Compare a member in every round, up to the first in which it failed."""
    if expected is None:
        return MemberVerdict(member.id, "failed", None, ("the fingerprint does not have it; publish again",))
    reasons: list[str] = []
    deviations: list[float] = []
    for one, output in outputs:
        report = next((report for report in output.members if report.id == member.id), None)
        if report is None or report.outputs is None or isinstance(report.outputs, Pointer):
            error = None if report is None else report.error
            reason = "it was not invoked" if error is None else f"{error.type}: {error.message}"
            return MemberVerdict(member.id, "failed", None, (f"{one.prefix}{reason}",))
        values = place_rows(expected.outputs, one.numbers, report.outputs)
        differences = compare(expected.outputs, values, labels=isinstance(member.output, Label))
        reasons += [f"{one.prefix}{difference}" for difference in differences]
        deviation = measure_deviation(expected.outputs, values)
        deviations += [] if deviation is None else [deviation]
    status: Literal["same", "varies", "differs"] = "same"
    if reasons:
        status = "varies" if member.varies else "differs"
    return MemberVerdict(member.id, status, max(deviations, default=None), tuple(reasons))
