"""The gate: nothing is published that was not loaded, asked and found to be what the manifest says.

`ensemble check` shows what is found here, and every publish begins with it, before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from stepensemble.admission.ensemble_checks import check_deadline, check_states
from stepensemble.admission.member_checks import Applicant, Check, check_member
from stepensemble.admission.probes import ProbedMember, ProbeResult, Subject, screen
from stepensemble.core.aggregation.canonical import check_output
from stepensemble.core.errors import InvalidManifest
from stepensemble.core.problems import Problem
from stepensemble.core.releases.fingerprint import Fingerprint
from stepensemble.core.slot_capacity import CAPACITIES, Capacity
from stepensemble.publishing.golden import GOLDEN_ROWS, draw_rows, golden_rows, read_golden
from stepensemble.publishing.manifest_loader import Sources
from stepensemble.publishing.publish import Now
from stepensemble.publishing.verification import make_fingerprint

FEWEST_ROWS = 2
"""So that a model that takes only one row, and does not say so, shows it; one golden row is asked about twice."""


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the gate found.

    Attributes:
        sources: what was looked at.
        golden: the rows that every member was asked about, as a payload has them.
        checks: all of them, member by member in the manifest's order, then those of the ensemble.
        answers: by the member's id; one that has none is not in it.
    """

    sources: Sources
    golden: Sequence[Mapping[str, Any]]
    checks: tuple[Check, ...]
    answers: Mapping[str, ProbeResult]

    @property
    def asked(self) -> int:
        """How many rows a member was asked about at once."""
        return max(len(self.golden), FEWEST_ROWS)

    @property
    def refused(self) -> tuple[Problem, ...]:
        """Why it is refused; nothing where it is not."""
        return self._problems("refused")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What a person should look at."""
        return self._problems("warning")

    def raise_if_refused(self) -> None:
        """Do nothing where everything is admitted.

        Raises:
            InvalidManifest: with every problem but the warnings.
        """
        if self.refused:
            raise InvalidManifest(self.refused)

    def fingerprint(self, now: Now = lambda: datetime.now(UTC)) -> Fingerprint:
        """Return what the members said of the golden rows, for a release that is admitted; none is asked again.

        Raises:
            InvalidManifest: it is refused.
        """
        self.raise_if_refused()
        outputs = {
            id_: check_output(answer.output, len(answer.output))[: len(self.golden)]
            for id_, answer in self.answers.items()
        }
        taken_at = now().isoformat(timespec="milliseconds")
        return make_fingerprint(self.sources.release, self.sources.digest, outputs, self.golden, taken_at)

    def to_json(self) -> dict[str, Any]:
        """Return it as `ensemble check --json` prints it."""
        members = [
            {
                "id": member.id,
                "version": member.version,
                "digest": member.artifact.digest,
                "size": member.artifact.size,
                "inputs": member.inputs,
                "load_ms": round(answer.load_ms, 3),
                "predict_ms": round(answer.predict_ms, 3),
                "peak_bytes": answer.peak_bytes,
            }
            for member in self.sources.release.members
            if (answer := self.answers.get(member.id)) is not None
        ]
        return {
            "ok": not self.refused,
            "release": self.sources.digest,
            "members": members,
            "checks": msgspec.to_builtins(self.checks),
            "warnings": msgspec.to_builtins(self.warnings),
            "problems": msgspec.to_builtins(self.refused),
        }

    def _problems(self, verdict: str) -> tuple[Problem, ...]:
        return tuple(check.problem for check in self.checks if check.verdict == verdict and check.problem is not None)


def examine(
    sources: Sources, notify: Callable[[str], None] = lambda _: None, capacities: Mapping[str, Capacity] = CAPACITIES
) -> GateReport:
    """Try every member in processes of their own, and check it and the ensemble.

    A member may do to its process what it likes: it is refused, and the others are tried all the same. The golden rows
    are the manifest's, else drawn from its features.

    Args:
        sources: as read, so that the manifest is sound and the artifacts have the digests they are pinned to.
        notify: told what takes a while.
        capacities: what the score functions have, by runtime.

    Returns:
        Everything that was found, whatever it is; `Report.raise_if_refused` and `Report.fingerprint` come next.

    Raises:
        InvalidManifest: a picture among the golden rows cannot be decoded.
    """
    manifest, release = sources.manifest, sources.release
    golden = golden_rows(manifest)
    columns = read_golden(release.features, golden if len(golden) >= FEWEST_ROWS else golden * FEWEST_ROWS)
    subjects = [Subject(member, sources.artifacts[member.id], columns) for member in release.members]
    if any(subject.alike for subject in subjects):
        others = read_golden(release.features, draw_rows(release.features, GOLDEN_ROWS))
        subjects = [replace(subject, others=others) if subject.alike else subject for subject in subjects]
    showed = screen(subjects, capacities, notify)
    checks: list[Check] = []
    for index, (entry, subject) in enumerate(zip(manifest.members, subjects, strict=True)):
        applicant = Applicant(f"$.members[{index}]", entry, subject, showed[entry.id], release.features)
        checks += check_member(applicant, release.task, capacities[entry.runtime])
    checks += [check_states(release, columns, golden), check_deadline(release)]
    answers = {
        id_: one.answer
        for id_, one in showed.items()
        if isinstance(one, ProbedMember) and isinstance(one.answer, ProbeResult)
    }
    return GateReport(sources, golden, tuple(checks), answers)


def try_members(sources: Sources, notify: Callable[[str], None] = lambda _: None) -> GateReport:
    """Examine, and refuse what is to be refused: what every publish begins with.

    Args:
        sources: as read.
        notify: told what takes a while.

    Returns:
        What was found; its `warnings` are for a person to see, its `fingerprint` is what is published.

    Raises:
        InvalidManifest: with everything that is wrong, of all members at once.
    """
    report = examine(sources, notify)
    report.raise_if_refused()
    return report
