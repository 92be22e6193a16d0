"""The members' outputs in many records, over all their rows, in canonical form by any declared output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stepensemble.core.aggregation.canonical import Faults, find_usable, read_entries, read_output, shape_output
from stepensemble.core.aggregation.decision import Decision, DecisionRules, decide_rows
from stepensemble.core.aggregation.output import MemberReport
from stepensemble.core.aggregation.output_source import CollectedResults, MemberResult, Results
from stepensemble.core.arrays import Array, Flags, Floats, Integers
from stepensemble.core.errors import InvalidOutput
from stepensemble.core.payload import Pointer, apply_quorum, parse_payload
from stepensemble.core.record import Record
from stepensemble.core.releases.release import Release
from stepensemble.core.replay.report import Reason
from stepensemble.core.schema.manifest import EnsembleMember
from stepensemble.core.schema.outputs import Output
from stepensemble.core.schema.policy import Policy
from stepensemble.core.schema.task import Task, name_classes


@dataclass(frozen=True, slots=True)
class NumberedRecord:
    """One of several records, whose rows are numbered consecutively from one record to the next.

    Attributes:
        rows: their numbers.
        reports: of the members that were invoked, by id.
        invoked: member id to the numbers of the rows that it was invoked for.
    """

    rows: Integers
    reports: Mapping[str, MemberReport]
    invoked: Mapping[str, Integers]


@dataclass(frozen=True, slots=True)
class AbsentOutput:
    """Why a member has no usable output, and the message of its failure."""

    reason: Reason
    message: str | None


NOT_INVOKED = AbsentOutput("not invoked", None)


@dataclass(frozen=True, slots=True)
class RecordedOutput:
    """One member's outputs for all rows.

    Attributes:
        output: canonical; NaN where there is no usable output.
        present: places of the records in which it has an output, even if unusable in some rows.
        absent: by a record's place, why it has no output, or no usable one in some rows; a record without an entry did
            not invoke it.
    """

    output: Floats
    present: frozenset[int]
    absent: Mapping[int, AbsentOutput]

    @property
    def usable(self) -> Flags:
        """Whether there is a usable output, one entry a row."""
        return find_usable(self.output)


@dataclass(frozen=True, slots=True)
class RecordedOutputs:
    """The voters' recorded outputs: an `OutputSource` with the results of every tier."""

    voters: Sequence[EnsembleMember]
    recorded: Mapping[str, RecordedOutput]

    def get_results(self, tier: int, rows: Integers) -> Results:
        """Return the outputs of a tier's voters, NaN where a record has none."""
        return {
            voter.id: MemberResult(voter.id, canonical=self.recorded[voter.id].output[rows])
            for voter in self.voters
            if voter.tier == tier
        }


def recorded_policy(record: Record, release: Release) -> Policy:
    """Return the policy by which a record was decided: its release's, with the payload's quorum."""
    return apply_quorum(parse_payload(record.input), release.policy, release.members)


def number_rows(records: Sequence[Record], releases: Mapping[str, Release]) -> list[NumberedRecord]:
    """Number the rows of records consecutively.

    Args:
        records: in any order.
        releases: the records' releases, by digest.
    """
    numbered: list[NumberedRecord] = []
    first = 0
    for record in records:
        release = releases[record.release]
        reached = {tier: numbers + first for tier, numbers in _find_reached(record, release).items()}
        reports = {report.id: report for report in record.output.members if report.status != "skipped"}
        invoked = {member.id: reached[member.tier] for member in release.members if member.id in reports}
        numbered.append(NumberedRecord(np.arange(first, first + record.rows), reports, invoked))
        first += record.rows
    return numbered


def _find_reached(record: Record, release: Release) -> Mapping[int, Integers]:
    """Return the rows that reached each tier."""
    predictions = record.output.predictions
    if release.tiers == 1:
        return {1: np.arange(record.rows)}
    if isinstance(predictions, list) and predictions:
        tiers = np.array([prediction.tier for prediction in predictions])
        return {tier: np.flatnonzero(tiers >= tier) for tier in range(1, release.tiers + 1)}
    # The record of a failed execution has no predictions: its rows are decided again to find which of them went on.
    results = {report.id: _read_result(report) for report in record.output.members}
    terms = DecisionRules(release.task, recorded_policy(record, release), release.members)
    decision = decide_rows(terms, record.rows, CollectedResults([results] * release.tiers))
    return decision.reached if isinstance(decision, Decision) else {}


def _read_result(report: MemberReport) -> MemberResult:
    if report.outputs is None or isinstance(report.outputs, Pointer):  # a record holds no pointers
        return MemberResult(report.id, failure=report.error)
    return MemberResult(report.id, read_entries(report.outputs))


class _RawOutput(NamedTuple):
    """A member's raw output in one record: the record's place, the numbers of the rows, and an entry for each."""

    place: int
    numbers: Integers
    raw: Array


class _Converted(NamedTuple):
    """A canonical output, and its rows that are not what is declared."""

    output: Floats
    faults: Faults | None


def collect_output(member: EnsembleMember, task: Task, records: Sequence[NumberedRecord]) -> RecordedOutput:
    """Collect one member's outputs from records.

    Args:
        member: its declared output is applied, which may differ from that of the record's release.
        task: what is predicted.
        records: as `number_rows` returns them, or some of them.
    """
    rows, classes = int(records[-1].rows[-1]) + 1, len(name_classes(task))
    output = np.full((rows, classes) if classes else rows, np.nan)
    absent: dict[int, AbsentOutput] = {}
    present: set[int] = set()
    given: list[_RawOutput] = []
    for place, record in enumerate(records):
        report = record.reports.get(member.id)
        if report is None:
            continue
        if report.outputs is None or isinstance(report.outputs, Pointer):
            absent[place] = AbsentOutput("failed", None if report.error is None else report.error.message)
        else:
            given.append(_RawOutput(place, record.invoked[member.id], read_entries(report.outputs)))
    for (place, numbers, _), converted in zip(given, _convert(given, task, member.output), strict=True):
        if isinstance(converted, AbsentOutput):
            absent[place] = converted
            continue
        present.add(place)
        output[numbers] = converted.output
        if converted.faults is not None:
            absent[place] = AbsentOutput("invalid", converted.faults.describe())
    return RecordedOutput(output, frozenset(present), absent)


def _convert(given: Sequence[_RawOutput], task: Task, declared: Output) -> Sequence[_Converted | AbsentOutput]:
    """Convert raw outputs: all at once where all are valid, else one by one to find those that are not."""
    lengths = [len(one.raw) for one in given]
    forms = {(one.raw.dtype.kind == "U", one.raw.shape[1:]) for one in given}
    if len(forms) == 1 and lengths == [len(one.numbers) for one in given]:
        try:
            together = shape_output(np.concatenate([one.raw for one in given]), sum(lengths))
            output, faults = read_output(together, task, declared)
        except InvalidOutput:
            pass
        else:
            if faults is None:
                return [_Converted(part, None) for part in np.split(output, np.cumsum(lengths)[:-1])]
    return [_convert_one(one.raw, len(one.numbers), task, declared) for one in given]


def _convert_one(raw: Array, rows: int, task: Task, declared: Output) -> _Converted | AbsentOutput:
    try:
        return _Converted(*read_output(shape_output(raw, rows), task, declared))
    except InvalidOutput as error:
        return AbsentOutput("invalid", str(error))
