"""The gate: every model is loaded and run, and compared with the manifest, before anything is published.

`ensemble check` shows the gate's report. Every publish runs the gate first, before it writes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from stepensemble.admission.ensemble_checks import check_deadline, check_states
from stepensemble.admission.member_checks import Check, CheckedMember, check_member
from stepensemble.admission.probes import ProbedMember, ProbeResult, ProbeTarget, probe_members
from stepensemble.core.aggregation.canonical import check_output
from stepensemble.core.errors import InvalidManifest
from stepensemble.core.problems import Problem
from stepensemble.core.releases.fingerprint import Fingerprint
from stepensemble.core.slot_capacity import CAPACITIES, Capacity
from stepensemble.publishing.golden import GOLDEN_ROWS, draw_rows, golden_rows, read_golden
from stepensemble.publishing.manifest_loader import Sources
from stepensemble.publishing.publish import Now
from stepensemble.publishing.verification import make_fingerprint

MIN_ROWS = 2
"""A single golden row is predicted twice in one batch, which exposes a model that can only take one row."""


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the gate found.

    Attributes:
        sources: the manifest, model files and release that were checked.
        golden: the rows that every member predicted, as a payload has them.
        checks: all of them, member by member in the manifest's order, then those of the ensemble.
        results: by the member's id; a member without a result is not in it.
    """

    sources: Sources
    golden: Sequence[Mapping[str, Any]]
    checks: tuple[Check, ...]
    results: Mapping[str, ProbeResult]

    @property
    def batch_rows(self) -> int:
        """The number of rows in the batch that each member predicted."""
        return max(len(self.golden), MIN_ROWS)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems that block publishing; empty if there are none."""
        return self._problems("refused")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems that a person should inspect, and that do not block publishing."""
        return self._problems("warning")

    def raise_if_rejected(self) -> None:
        """Raise if any check failed.

        Raises:
            InvalidManifest: with every problem except the warnings.
        """
        if self.problems:
            raise InvalidManifest(self.problems)

    def fingerprint(self, now: Now = lambda: datetime.now(UTC)) -> Fingerprint:
        """Return the members' outputs for the golden rows, of a release that passed; no model runs again.

        Raises:
            InvalidManifest: the release was rejected.
        """
        self.raise_if_rejected()
        outputs = {
            id_: check_output(result.output, len(result.output))[: len(self.golden)]
            for id_, result in self.results.items()
        }
        taken_at = now().isoformat(timespec="milliseconds")
        return make_fingerprint(self.sources.release, self.sources.digest, outputs, self.golden, taken_at)

    def to_json(self) -> dict[str, Any]:
        """Return the report as `ensemble check --json` prints it."""
        members = [
            {
                "id": member.id,
                "version": member.version,
                "digest": member.artifact.digest,
                "size": member.artifact.size,
                "inputs": member.inputs,
                "load_ms": round(result.load_ms, 3),
                "predict_ms": round(result.predict_ms, 3),
                "peak_bytes": result.peak_bytes,
            }
            for member in self.sources.release.members
            if (result := self.results.get(member.id)) is not None
        ]
        return {
            "ok": not self.problems,
            "release": self.sources.digest,
            "members": members,
            "checks": msgspec.to_builtins(self.checks),
            "warnings": msgspec.to_builtins(self.warnings),
            "problems": msgspec.to_builtins(self.problems),
        }

    def _problems(self, verdict: str) -> tuple[Problem, ...]:
        return tuple(check.problem for check in self.checks if check.verdict == verdict and check.problem is not None)


def run_gate(
    sources: Sources, notify: Callable[[str], None] = lambda _: None, capacities: Mapping[str, Capacity] = CAPACITIES
) -> GateReport:
    """Run every member in child processes, and check the members and the ensemble.

    A member that crashes or hangs its process is rejected; the other members are still checked. The golden rows are the
    manifest's, or are drawn from its features if it declares none.

    Args:
        sources: a valid manifest, and artifacts with the digests they are pinned to.
        notify: called with the name of each slow step.
        capacities: the memory, disk and time of a score function, by runtime.

    Returns:
        All checks, passed or not; continue with `GateReport.raise_if_rejected` and `GateReport.fingerprint`.

    Raises:
        InvalidManifest: an image among the golden rows cannot be decoded.
    """
    manifest, release = sources.manifest, sources.release
    golden = golden_rows(manifest)
    columns = read_golden(release.features, golden if len(golden) >= MIN_ROWS else golden * MIN_ROWS)
    targets = [ProbeTarget(member, sources.artifacts[member.id], columns) for member in release.members]
    if any(target.rows_are_equal for target in targets):
        others = read_golden(release.features, draw_rows(release.features, GOLDEN_ROWS))
        targets = [replace(target, others=others) if target.rows_are_equal else target for target in targets]
    probes = probe_members(targets, capacities, notify)
    checks: list[Check] = []
    for index, (entry, target) in enumerate(zip(manifest.members, targets, strict=True)):
        checked = CheckedMember(f"$.members[{index}]", entry, target, probes[entry.id], release.features)
        checks += check_member(checked, release.task, capacities[entry.runtime])
    checks += [check_states(release, columns, golden), check_deadline(release)]
    results = {
        id_: probe.result
        for id_, probe in probes.items()
        if isinstance(probe, ProbedMember) and isinstance(probe.result, ProbeResult)
    }
    return GateReport(sources, golden, tuple(checks), results)


def enforce_gate(sources: Sources, notify: Callable[[str], None] = lambda _: None) -> GateReport:
    """Run the gate, and raise if it rejects the release; every publish starts with this.

    Args:
        sources: as for `run_gate`.
        notify: called with the name of each slow step.

    Returns:
        The report: show its `warnings` to a person, and publish its `fingerprint`.

    Raises:
        InvalidManifest: with every problem of every member at once.
    """
    report = run_gate(sources, notify)
    report.raise_if_rejected()
    return report
