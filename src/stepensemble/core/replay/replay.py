"""What-if replay: recorded outputs decided again by another policy, without invoking a model.

Rows with the same terms are decided together by one call of `decision.decide_rows`, whichever records they are in. A
voter whose outputs are not in a record counts as one that did not respond.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np

from stepensemble.core.aggregation.decision import DecidedRows, Decision, DecisionRules, FailedRows, decide_rows
from stepensemble.core.aggregation.prediction import ExplainedRows, list_predictions
from stepensemble.core.aggregation.quorum import Status, quorum_status
from stepensemble.core.arrays import Flags
from stepensemble.core.record import Record
from stepensemble.core.releases.release import SHORT, Release
from stepensemble.core.replay.recorded_outputs import (
    NOT_INVOKED,
    AbsentOutput,
    NumberedRecord,
    RecordedOutput,
    RecordedOutputs,
    collect_output,
    number_rows,
    recorded_policy,
)
from stepensemble.core.replay.report import (
    ComparedExecution,
    DecidedExecution,
    MissingOutputs,
    Reason,
    ReleaseMismatch,
    Replay,
    Trait,
    compare,
)
from stepensemble.core.replay.what_if import WhatIf, check_task, check_weights, resolve_terms
from stepensemble.core.schema.manifest import EnsembleMember, select_voters
from stepensemble.core.schema.policy import Quorum


def replay(records: Iterable[Record], releases: Mapping[str, Release], what_if: WhatIf | None = None) -> Replay:
    """Decide records again and report what changes.

    Args:
        records: as they are stored.
        releases: the releases of all records, by digest.
        what_if: what to try; with nothing to try, nothing changes, to the last bit.

    Raises:
        ReplayRefused: what is tried does not fit the records, or the records have different tasks.
    """
    recorded, tried = list(records), what_if or WhatIf()
    if not recorded:
        return Replay()
    task = (tried.manifest or releases[recorded[0].release]).task
    for digest in dict.fromkeys(record.release for record in recorded):
        check_task(releases[digest].task, task, digest[:SHORT])
    groups = _group(recorded, releases, tried)
    check_weights(tried.weights, [member.id for group in groups for member in group.terms.members])
    outcomes: dict[int, DecidedExecution] = {}
    missing: list[_MissingRows] = []
    for group in groups:
        decided, absent = _decide_group(group.terms, [recorded[place] for place in group.places], releases)
        outcomes |= zip(group.places, decided, strict=True)
        missing += absent
    pairs = [ComparedExecution(_read_outcome(record), outcomes[place]) for place, record in enumerate(recorded)]
    rows = sum(record.rows for record in recorded)
    return compare(task, pairs, rows, _sum_missing(missing), _find_mismatches(recorded, tried))


@dataclass(frozen=True, slots=True)
class Group:
    """Records, by their places, that are decided by the same terms."""

    terms: DecisionRules
    places: list[int]


class _MissingRows(NamedTuple):
    """Rows of one record for which a voter is needed and has no usable output."""

    member: str
    absent: AbsentOutput
    rows: int


class _DecidedGroup(NamedTuple):
    """The outcome of each record of a group, and the rows without a voter's output."""

    outcomes: list[DecidedExecution]
    missing: list[_MissingRows]


def _group(records: Sequence[Record], releases: Mapping[str, Release], what_if: WhatIf) -> list[Group]:
    groups: dict[tuple[str, Quorum] | None, Group] = {}
    for place, record in enumerate(records):
        release = releases[record.release]
        policy = recorded_policy(record, release)
        # An execution can change only the quorum of its release's policy; a manifest replaces the whole policy.
        key = (record.release, policy.quorum) if what_if.manifest is None else None
        if key not in groups:
            groups[key] = Group(resolve_terms(what_if, release, policy), [])
        groups[key].places.append(place)
    return list(groups.values())


def _decide_group(terms: DecisionRules, records: Sequence[Record], releases: Mapping[str, Release]) -> _DecidedGroup:
    numbered = number_rows(records, releases)
    voters = DecisionRules(terms.task, terms.policy, terms.voters)
    recorded = {voter.id: collect_output(voter, terms.task, numbered) for voter in voters.members}
    rows = int(numbered[-1].rows[-1]) + 1
    # A row has only the voters of its own record, so another record's missing voters do not affect it. The source has
    # the results of every tier, so no row is left undecided.
    decision = cast("Decision", decide_rows(voters, rows, RecordedOutputs(voters.members, recorded)))
    if decision.cause is not None:
        return _DecidedGroup([DecidedExecution(record.prediction_id, "FAILED", []) for record in records], [])
    last_tiers = np.zeros(rows, dtype=np.int64)
    for tier, numbers in decision.reached.items():
        last_tiers[numbers] = tier
    failed = [ExplainedRows(part, [part.cause] * len(part.numbers)) for part in decision.failed]
    predictions = list_predictions(terms.task, decision.decided, failed, tiers=1)
    degraded = np.zeros(rows, dtype=np.bool_)
    parts: list[DecidedRows | FailedRows] = [*decision.decided, *decision.failed]
    for part in parts:
        degraded[part.numbers] = bool(part.missing)
    outcomes = []
    for place, (record, one) in enumerate(zip(records, numbered, strict=True)):
        of_record = [predictions[row] for row in one.rows.tolist()]
        status: Status = "DEGRADED" if degraded[one.rows].any() else "COMPLETE"
        without = [prediction.decision == "failed" for prediction in of_record]
        if all(without) or (any(without) and not _has_quorum(voters, place, recorded, last_tiers[one.rows].max())):
            status, of_record = "FAILED", []
        outcomes.append(DecidedExecution(record.prediction_id, status, of_record))
    missing = [
        rows_without
        for voter in voters.members
        for rows_without in _find_missing(voter, recorded[voter.id], last_tiers >= voter.tier, numbered)
    ]
    return _DecidedGroup(outcomes, missing)


def _has_quorum(terms: DecisionRules, place: int, recorded: Mapping[str, RecordedOutput], last_tier: int) -> bool:
    """Return whether the voters with an output in a record hold the quorum, even if it is unusable in some rows."""
    reached = [voter for voter in terms.members if voter.tier <= last_tier]
    present = [voter.id for voter in reached if place in recorded[voter.id].present]
    return quorum_status(terms.policy, reached, present) != "FAILED"


def _read_outcome(record: Record) -> DecidedExecution:
    predictions = record.output.predictions
    listed = predictions if isinstance(predictions, list) else []  # a record holds no pointers
    return DecidedExecution(record.prediction_id, record.output.status, listed)


def _find_missing(
    voter: EnsembleMember, recorded: RecordedOutput, needed: Flags, records: Sequence[NumberedRecord]
) -> Iterator[_MissingRows]:
    counts = np.add.reduceat(~recorded.usable & needed, [record.rows[0] for record in records], dtype=np.int64)
    for place in np.flatnonzero(counts).tolist():
        yield _MissingRows(voter.id, recorded.absent.get(place, NOT_INVOKED), int(counts[place]))


def _sum_missing(missing: Sequence[_MissingRows]) -> list[MissingOutputs]:
    """Sum up the missing rows by voter and reason."""
    found: dict[tuple[str, Reason], list[_MissingRows]] = {}
    for one in missing:
        found.setdefault((one.member, one.absent.reason), []).append(one)
    return [
        MissingOutputs(member, reason, len(some), sum(one.rows for one in some), some[0].absent.message)
        for (member, reason), some in found.items()
    ]


def _find_mismatches(records: Sequence[Record], what_if: WhatIf) -> list[ReleaseMismatch]:
    """Return the manifest's voters whose outputs were recorded from another version, or from another artifact."""
    if what_if.manifest is None:
        return []
    voters = {voter.id: voter for voter in select_voters(what_if.manifest.members)}
    counted: Counter[tuple[str, Trait, str, str]] = Counter()
    for record in records:
        for report in record.output.members:
            voter = voters.get(report.id)
            if voter is None or report.outputs is None:
                continue
            digest = what_if.digests.get(voter.id, report.digest)
            if report.version != voter.version:
                counted[voter.id, "version", report.version, voter.version] += 1
            elif report.digest != digest:
                counted[voter.id, "artifact", report.digest, digest] += 1
    return [ReleaseMismatch(*found, records=count) for found, count in counted.items()]
