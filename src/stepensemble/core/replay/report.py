"""What a replay changes: its report, and how two predictions for a row are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Generic, Literal, NamedTuple, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType, field

from stepensemble.core.aggregation.output import Prediction
from stepensemble.core.aggregation.quorum import Status
from stepensemble.core.schema.task import MulticlassTask, Task, name_classes

Kind_co = TypeVar("Kind_co", covariant=True)

Reason = Literal["not invoked", "failed", "invalid"]
Trait = Literal["version", "artifact"]


class Change(Struct, Generic[Kind_co], frozen=True):
    """What was recorded, and what it is under the policy that is tried; `from` and `to` in JSON."""

    before: Kind_co = field(name="from")
    after: Kind_co = field(name="to")


class ChangeCount(Struct, frozen=True):
    """How often one change occurs."""

    change: Change[str | None]
    count: int


class Shift(Struct, frozen=True):
    """How far the rows' numbers moved, new less recorded.

    In a regression and a binary task that is `value`; with several classes, the probability of the label that was
    recorded (where there was none, of the most probable class).
    """

    mean: float
    mean_absolute: float
    greatest: Annotated[float, Meta(description="The one farthest from 0, with its sign.")]


class ChangedRow(Struct, frozen=True):
    """A row whose prediction differs between the record and the policy that is tried."""

    prediction_id: str
    row: Annotated[int, Meta(description="From 0, in the payload's order.")]
    label: Annotated[Change[str | None] | UnsetType, Meta(description="null where there is none.")]
    decision: Change[str]
    value: Change[float | None]
    shift: float


class ChangedStatus(Struct, frozen=True):
    """A record whose status changes: COMPLETE, DEGRADED or FAILED."""

    prediction_id: str
    status: Change[Status]


class MissingOutputs(Struct, frozen=True):
    """Outputs that the policy needs and the records do not have; the voter counts as one that did not respond."""

    member: str
    reason: Annotated[
        Reason,
        Meta(
            description="not invoked: it was no member, or its tier was not reached; failed: in the execution; "
            "invalid: its output is not what is declared."
        ),
    ]
    records: int
    rows: int
    example: Annotated[str | None, Meta(description="The message of its failure, in one of these records.")]


class ReleaseMismatch(Struct, frozen=True):
    """A voter whose outputs were recorded from another model than the manifest's."""

    member: str
    of: Annotated[Trait, Meta(description="artifact: by its digest, under the same version.")]
    recorded: str
    manifest: str
    records: int


class Replay(Struct, frozen=True):
    """The report of a replay.

    Attributes:
        compared: rows that have a prediction both in the record and now; flips and shifts are of these.
        flips: changes of labels, the most frequent first.
        decisions: changes of decisions, likewise.
        statuses: changes of records' statuses, likewise.
        shift: None where no row is compared.
        changed_rows: those with the largest shift first.
    """

    records: int = 0
    rows: int = 0
    compared: int = 0
    labels_flipped: int = 0
    decisions_changed: int = 0
    statuses_changed: int = 0
    flips: tuple[ChangeCount, ...] = ()
    decisions: tuple[ChangeCount, ...] = ()
    statuses: tuple[ChangeCount, ...] = ()
    shift: Shift | None = None
    missing: tuple[MissingOutputs, ...] = ()
    mismatches: tuple[ReleaseMismatch, ...] = ()
    changed_records: tuple[ChangedStatus, ...] = ()
    changed_rows: tuple[ChangedRow, ...] = ()


class DecidedExecution(Struct, frozen=True):
    """The outcome of one record: a prediction a row, none where there is no quorum."""

    prediction_id: str
    status: Status
    predictions: Sequence[Prediction]


class ComparedExecution(NamedTuple):
    """A record's outcome, and its outcome under the policy that is tried."""

    recorded: DecidedExecution
    tried: DecidedExecution


def compare(
    task: Task,
    pairs: Iterable[ComparedExecution],
    rows: int,
    missing: Sequence[MissingOutputs],
    mismatches: Sequence[ReleaseMismatch],
) -> Replay:
    """Compare recorded outcomes with those under the policy that is tried.

    Args:
        task: of all of them.
        pairs: one a record.
        rows: how many rows all the records have, those without a prediction included.
        missing: for the report.
        mismatches: for the report.
    """
    records = 0
    shifts: list[float] = []
    changed_records: list[ChangedStatus] = []
    changed_rows: list[ChangedRow] = []
    for recorded, tried in pairs:
        records += 1
        if tried.status != recorded.status:
            changed_records.append(ChangedStatus(recorded.prediction_id, Change(recorded.status, tried.status)))
        if "FAILED" not in {tried.status, recorded.status}:
            measured, changed = _compare_rows(task, recorded, tried)
            shifts += measured
            changed_rows += changed
    flips = [row.label for row in changed_rows if row.label is not UNSET and row.label.before != row.label.after]
    decisions = [row.decision for row in changed_rows if row.decision.before != row.decision.after]
    return Replay(
        records=records,
        rows=rows,
        compared=len(shifts),
        labels_flipped=len(flips),
        decisions_changed=len(decisions),
        statuses_changed=len(changed_records),
        flips=_count_changes(flips),
        decisions=_count_changes(decisions),
        statuses=_count_changes(record.status for record in changed_records),
        shift=_summarize(shifts),
        missing=tuple(missing),
        mismatches=tuple(mismatches),
        changed_records=tuple(changed_records),
        changed_rows=tuple(sorted(changed_rows, key=lambda row: -abs(row.shift))),
    )


def _compare_rows(
    task: Task, recorded: DecidedExecution, tried: DecidedExecution
) -> tuple[list[float], list[ChangedRow]]:
    """Return the shift of each row that has a prediction both times, and the rows that change."""
    shifts: list[float] = []
    changed: list[ChangedRow] = []
    for row, (before, after) in enumerate(zip(recorded.predictions, tried.predictions, strict=True)):
        if "failed" in {before.decision, after.decision}:
            if before.decision != after.decision:
                changed.append(_describe(recorded.prediction_id, row, before, after, 0.0))
            continue
        shift = _measure_shift(task, before, after)
        shifts.append(shift)
        if shift != 0.0 or after.label != before.label or after.decision != before.decision:
            changed.append(_describe(recorded.prediction_id, row, before, after, shift))
    return shifts, changed


def _measure_shift(task: Task, before: Prediction, after: Prediction) -> float:
    if isinstance(task, MulticlassTask):
        was, now = list(before.probabilities or ()), list(after.probabilities or ())
        best = was.index(max(was)) if before.label is None else name_classes(task).index(str(before.label))
        return now[best] - was[best]
    return (after.value or 0.0) - (before.value or 0.0)


def _describe(prediction_id: str, row: int, before: Prediction, after: Prediction, shift: float) -> ChangedRow:
    was, now = before.label, after.label
    label = UNSET if was is UNSET or now is UNSET else Change(was, now)
    decision, value = Change(str(before.decision), str(after.decision)), Change(before.value, after.value)
    return ChangedRow(prediction_id, row, label, decision, value, shift)


def _count_changes(changes: Iterable[Change[str | None]]) -> tuple[ChangeCount, ...]:
    counted = Counter((change.before, change.after) for change in changes)
    return tuple(ChangeCount(Change(was, now), count) for (was, now), count in counted.most_common())


def _summarize(shifts: Sequence[float]) -> Shift | None:
    if not shifts:
        return None
    count = len(shifts)
    return Shift(sum(shifts) / count, sum(map(abs, shifts)) / count, max(shifts, key=abs))
