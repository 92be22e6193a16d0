"""What-if replay: recorded outputs decided again, by another policy, without asking any model.

Rows that are decided on the same terms are decided together by one call of `decision.decide`, whatever records they are
of. A voter whose outputs a record does not have counts as one that did not answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from stepensemble.core.aggregation import decision
from stepensemble.core.aggregation.decision import DecidedRows, Decision, FailedRows
from stepensemble.core.aggregation.prediction import list_predictions
from stepensemble.core.aggregation.quorum import Status, quorum_status
from stepensemble.core.arrays import Flags, Floats, Integers
from stepensemble.core.record import Record
from stepensemble.core.releases.release import SHORT, Release
from stepensemble.core.replay.recorded_outputs import (
    NOT_ASKED,
    Page,
    Recollection,
    Silence,
    lay_out,
    policy_in_force,
    recall,
)
from stepensemble.core.replay.report import (
    DecidedExecution,
    MissingOutputs,
    Reason,
    ReleaseMismatch,
    Replay,
    Trait,
    compare,
)
from stepensemble.core.replay.what_if import AnyMember, Terms, WhatIf, check_question, check_weights, set_terms
from stepensemble.core.schema.manifest import select_voters
from stepensemble.core.schema.policy import Quorum


def replay(records: Iterable[Record], releases: Mapping[str, Release], what_if: WhatIf | None = None) -> Replay:
    """Decide records again and report what changes.

    Args:
        records: as they are kept.
        releases: every release that one of them names, by digest.
        what_if: what to try; with nothing to try, nothing changes, to the last bit.

    Raises:
        ReplayRefused: what is tried does not fit the records, or they are not of one task.
    """
    kept, tried = list(records), what_if or WhatIf()
    if not kept:
        return Replay()
    task = (tried.manifest or releases[kept[0].release]).task
    for digest in dict.fromkeys(record.release for record in kept):
        check_question(releases[digest].task, task, digest[:SHORT])
    groups = _group(kept, releases, tried)
    check_weights(tried.weights, [member.id for group in groups for member in group.terms.members])
    outcomes: dict[int, DecidedExecution] = {}
    lacks: list[Lack] = []
    for group in groups:
        decided, lacking = _decide_group(group.terms, [kept[place] for place in group.places], releases)
        outcomes |= zip(group.places, decided, strict=True)
        lacks += lacking
    pairs = [(_recorded_outcome(record), outcomes[place]) for place, record in enumerate(kept)]
    rows = sum(record.rows for record in kept)
    return compare(task, pairs, rows, _name_missing(lacks), _name_mismatches(kept, tried))


@dataclass(frozen=True, slots=True)
class Group:
    """Records, by their places, that are decided on the same terms."""

    terms: Terms
    places: list[int]


@dataclass(frozen=True, slots=True)
class Lack:
    """Rows of one record for which a voter is asked and not heard."""

    member: str
    silence: Silence
    rows: int


def _group(records: Sequence[Record], releases: Mapping[str, Release], what_if: WhatIf) -> list[Group]:
    groups: dict[tuple[str, Quorum] | None, Group] = {}
    for place, record in enumerate(records):
        release = releases[record.release]
        in_force = policy_in_force(record, release)
        # Of a release's policy, an execution changes the quorum alone; a manifest replaces all of it.
        key = (record.release, in_force.quorum) if what_if.manifest is None else None
        if key not in groups:
            groups[key] = Group(set_terms(what_if, release, in_force), [])
        groups[key].places.append(place)
    return list(groups.values())


def _decide_group(
    terms: Terms, records: Sequence[Record], releases: Mapping[str, Release]
) -> tuple[list[DecidedExecution], list[Lack]]:
    pages = lay_out(records, releases)
    recalled = {voter.id: recall(voter, terms.task, pages) for voter in terms.voters}
    rows = int(pages[-1].rows[-1]) + 1
    asked = np.zeros(rows, dtype=np.int64)

    def ask(tier: int, numbers: Integers) -> Mapping[str, Floats]:
        asked[numbers] = tier
        return {voter.id: recalled[voter.id].output[numbers] for voter in terms.voters if voter.tier == tier}

    # Every row has the voters that its record has, so none is decided by what another record lacks.
    decided = cast("Decision", decision.decide(terms.task, terms.policy, terms.voters, rows, ask))  # all are asked
    if decided.cause is not None:
        return [DecidedExecution(record.prediction_id, "FAILED", []) for record in records], []
    predictions = list_predictions(
        terms.task, decided.settled, [(one, [one.cause] * len(one.numbers)) for one in decided.failed], tiers=1
    )
    degraded = np.zeros(rows, dtype=np.bool_)
    parts: list[DecidedRows | FailedRows] = [*decided.settled, *decided.failed]
    for part in parts:
        degraded[part.numbers] = bool(part.missing)
    outcomes = []
    for place, (record, page) in enumerate(zip(records, pages, strict=True)):
        answers = [predictions[row] for row in page.rows.tolist()]
        status: Status = "DEGRADED" if degraded[page.rows].any() else "COMPLETE"
        failed = [answer.decision == "failed" for answer in answers]
        if all(failed) or (any(failed) and not _has_quorum(terms, place, recalled, asked[page.rows].max())):
            status, answers = "FAILED", []
        outcomes.append(DecidedExecution(record.prediction_id, status, answers))
    lacks = [
        lack for voter in terms.voters for lack in _find_lacks(voter, recalled[voter.id], asked >= voter.tier, pages)
    ]
    return outcomes, lacks


def _has_quorum(terms: Terms, place: int, recalled: Mapping[str, Recollection], last: int) -> bool:
    """Say whether the voters hold the quorum whose outputs a record has, whatever is wrong in single rows."""
    reached = [voter for voter in terms.voters if voter.tier <= last]
    present = [voter.id for voter in reached if place in recalled[voter.id].spoken]
    return quorum_status(terms.policy, reached, present) != "FAILED"


def _recorded_outcome(record: Record) -> DecidedExecution:
    predictions = record.output.predictions
    listed = predictions if isinstance(predictions, list) else []  # a record holds no pointers
    return DecidedExecution(record.prediction_id, record.output.status, listed)


def _find_lacks(voter: AnyMember, recalled: Recollection, asked: Flags, pages: Sequence[Page]) -> Iterator[Lack]:
    counts = np.add.reduceat(~recalled.heard & asked, [page.rows[0] for page in pages], dtype=np.int64)
    for place in np.flatnonzero(counts).tolist():
        yield Lack(voter.id, recalled.silences.get(place, NOT_ASKED), int(counts[place]))


def _name_missing(lacks: Sequence[Lack]) -> list[MissingOutputs]:
    """Bring together what is missing, by voter and reason."""
    found: dict[tuple[str, Reason], list[Lack]] = {}
    for lack in lacks:
        found.setdefault((lack.member, lack.silence.reason), []).append(lack)
    return [
        MissingOutputs(member, reason, len(some), sum(lack.rows for lack in some), some[0].silence.message)
        for (member, reason), some in found.items()
    ]


def _name_mismatches(records: Sequence[Record], what_if: WhatIf) -> list[ReleaseMismatch]:
    """Name the manifest's voters whose recorded outputs are of another version, or of another artifact."""
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
