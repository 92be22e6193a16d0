"""What members said in many records, brought together: canonical by any output contract, over all their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stepensemble.core.aggregation import prediction
from stepensemble.core.aggregation.canonical import Faults, find_usable, read_entries, read_output, shape_output
from stepensemble.core.aggregation.prediction import MemberReport, MemberResult, Results
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
class Page:
    """A record among others, whose rows are numbered on from one record to the next.

    Attributes:
        rows: their numbers.
        reports: of the members that were asked, by id.
        asked: member id to the numbers of the rows that it was asked.
    """

    rows: Integers
    reports: Mapping[str, MemberReport]
    asked: Mapping[str, Integers]


@dataclass(frozen=True, slots=True)
class Silence:
    """Why a member is not heard, and what its failure said."""

    reason: Reason
    message: str | None


NOT_ASKED = Silence("not asked", None)


@dataclass(frozen=True, slots=True)
class Recollection:
    """What one member said of all rows.

    Attributes:
        output: canonical; NaN where it is not heard.
        spoken: places of the pages in which it has an output, be it unusable in a row.
        silences: by the page's place, why there is no output, or no usable one in some rows; `NOT_ASKED` where a page
            has no entry.
    """

    output: Floats
    spoken: frozenset[int]
    silences: Mapping[int, Silence]

    @property
    def heard(self) -> Flags:
        """Whether there is a usable output, a row."""
        return find_usable(self.output)


def policy_in_force(record: Record, release: Release) -> Policy:
    """Return the policy by which a record was decided: its release's, with the quorum that its payload brought."""
    return apply_quorum(parse_payload(record.input), release.policy, release.members)


def lay_out(records: Sequence[Record], releases: Mapping[str, Release]) -> list[Page]:
    """Number the rows of records on from one to the next.

    Args:
        records: in any order.
        releases: those they are of, by digest.
    """
    pages: list[Page] = []
    first = 0
    for record in records:
        release = releases[record.release]
        reached = [numbers + first for numbers in _find_reached(record, release)]
        reports = {report.id: report for report in record.output.members if report.status != "skipped"}
        asked = {member.id: reached[member.tier - 1] for member in release.members if member.id in reports}
        pages.append(Page(np.arange(first, first + record.rows), reports, asked))
        first += record.rows
    return pages


def _find_reached(record: Record, release: Release) -> list[Integers]:
    """Return, a tier, the rows that were sent to it."""
    predictions = record.output.predictions
    if release.tiers == 1:
        return [np.arange(record.rows)]
    if isinstance(predictions, list) and predictions:
        tiers = np.array([prediction.tier for prediction in predictions])
        return [np.flatnonzero(tiers >= tier) for tier in range(1, release.tiers + 1)]
    # An execution that failed says nothing of its rows: deciding it once more tells which of them went on.
    reached: list[Integers] = []
    results = {report.id: _read_result(report) for report in record.output.members}

    def ask(_: int, numbers: Integers) -> Results:
        reached.append(numbers)
        return results

    prediction.decide(release, policy_in_force(record, release), record.rows, ask)
    return reached


def _read_result(report: MemberReport) -> MemberResult:
    if report.outputs is None or isinstance(report.outputs, Pointer):  # a record holds no pointers
        return MemberResult(report.id, failure=report.error)
    return MemberResult(report.id, read_entries(report.outputs))


def recall(member: EnsembleMember, task: Task, pages: Sequence[Page]) -> Recollection:
    """Bring together what a member said.

    Args:
        member: whose output contract is in force, be it the recorded one or another.
        task: what is asked.
        pages: as `lay_out` returns them, or some of them.
    """
    rows, classes = int(pages[-1].rows[-1]) + 1, len(name_classes(task))
    output = np.full((rows, classes) if classes else rows, np.nan)
    silences: dict[int, Silence] = {}
    places: set[int] = set()
    spoken: list[tuple[int, Integers, Array]] = []
    for place, page in enumerate(pages):
        report = page.reports.get(member.id)
        if report is None:
            continue
        if report.outputs is None or isinstance(report.outputs, Pointer):
            silences[place] = Silence("failed", None if report.error is None else report.error.message)
        else:
            spoken.append((place, page.asked[member.id], read_entries(report.outputs)))
    for (place, numbers, _), said in zip(spoken, _convert(spoken, task, member.output), strict=True):
        if isinstance(said, Silence):
            silences[place] = said
            continue
        places.add(place)
        output[numbers], faults = said
        if faults is not None:
            silences[place] = Silence("refused", faults.describe())
    return Recollection(output, frozenset(places), silences)


Said = tuple[Floats, Faults | None]
"""A canonical output, and which of its rows are at fault."""


def _convert(
    spoken: Sequence[tuple[int, Integers, Array]], task: Task, contract: Output
) -> Sequence[Said] | list[Said | Silence]:
    """Make raw outputs canonical: all at once where all are sound, else one by one to name those that are not."""
    lengths = [len(raw) for _, _, raw in spoken]
    forms = {(raw.dtype.kind == "U", raw.shape[1:]) for _, _, raw in spoken}
    if len(forms) == 1 and lengths == [len(numbers) for _, numbers, _ in spoken]:
        try:
            together = shape_output(np.concatenate([raw for _, _, raw in spoken]), sum(lengths))
            said, faults = read_output(together, task, contract)
        except InvalidOutput:
            pass
        else:
            if faults is None:
                return [(part, None) for part in np.split(said, np.cumsum(lengths)[:-1])]
    return [_convert_one(raw, len(numbers), task, contract) for _, numbers, raw in spoken]


def _convert_one(raw: Array, rows: int, task: Task, contract: Output) -> Said | Silence:
    try:
        return read_output(shape_output(raw, rows), task, contract)
    except InvalidOutput as error:
        return Silence("refused", str(error))
