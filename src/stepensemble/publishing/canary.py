"""The canary: how it fares beside the current release, and how it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from msgspec import Meta, Struct

from stepensemble.core.aggregation.output import Output, Prediction
from stepensemble.core.errors import EnsembleError
from stepensemble.core.record import Record, RecordSummary
from stepensemble.core.releases import pointer
from stepensemble.core.releases.release import Canary, Current, Release
from stepensemble.core.replay.report import ChangeCount, ComparedExecution, DecidedExecution, Shift, compare
from stepensemble.core.schema.task import MulticlassTask, Task, name_classes, name_task
from stepensemble.publishing.publish import Now
from stepensemble.storage.releases import ReleaseStore

if TYPE_CHECKING:
    from stepensemble.storage.record_table import RecordTable

Answer = Callable[[Mapping[str, Any]], Output]
"""Answers a payload in process, or raises an `EnsembleError`."""

LoadRelease = Callable[[Release, str, Mapping[str, bytes]], Answer]
"""Makes a release ready to answer: the release, its digest, and its artifacts by member id."""


class Activity(Struct, frozen=True):
    """What one release did since the canary began.

    Attributes:
        executions: that were recorded.
        statuses: how many of them ended how.
        mean, std: of its values, over the rows of the records that were read; None where there is none, and of several
            classes.
        labels: how often each was answered, over the same rows.
    """

    release: str
    executions: int
    statuses: Mapping[str, int]
    rows: Annotated[int, Meta(description="Of the records that were read.")]
    mean: float | None
    std: float | None
    labels: Mapping[str, int]


class RejectedInputs(Struct, frozen=True):
    """Recorded inputs that the other release does not answer."""

    release: Annotated[str, Meta(description="The one that does not answer.")]
    records: int
    example: Annotated[str, Meta(description="What it said of the first of them.")]


class ReleaseAgreement(Struct, frozen=True):
    """How both releases answer the same recorded inputs: one answered in the execution, the other in process.

    Attributes:
        flips: changes of labels, the current release's first, the most frequent change first.
        shift: the canary's numbers less the current release's; None where no row is compared.
    """

    records: int
    rows: int
    labels_differ: int
    flips: tuple[ChangeCount, ...]
    shift: Shift | None
    refusals: tuple[RejectedInputs, ...]


class CanaryReport(Struct, frozen=True):
    """How a canary fares.

    Attributes:
        percent: its share of the executions.
        since: when it began, ISO 8601 in UTC.
        agreement: None where the two answer different questions.
    """

    percent: int
    since: str
    current: Activity
    canary: Activity
    agreement: ReleaseAgreement | None


def promote_canary(store: ReleaseStore, *, now: Now = lambda: datetime.now(UTC)) -> Current:
    """Make the canary the current release, and return the pointer.

    Raises:
        NoCanary: there is none.
        PublishConflict: somebody else published meanwhile.
    """
    current, tag = store.read_current()
    promoted = pointer.promote_canary(current, now().isoformat(timespec="milliseconds"))
    store.move_current(promoted, tag)
    return promoted


def abort_canary(store: ReleaseStore) -> Canary:
    """End the canary, and return what it was.

    Raises:
        NoCanary: there is none.
        PublishConflict: somebody else published meanwhile.
    """
    current, tag = store.read_current()
    canary = pointer.find_canary(current)
    store.move_current(pointer.abort_canary(current), tag)
    return canary


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two releases, ready to answer."""

    digest: str
    release: Release
    answer: Answer


def report_canary(store: ReleaseStore, records: RecordTable, load: LoadRelease, limit: int) -> CanaryReport:
    """Count what both releases did since the canary began, and have each answer what the other was asked.

    Args:
        store: the stack's artifact bucket; every artifact of both releases is read, its digest checked.
        records: the stack's.
        load: makes a release ready to answer in process.
        limit: how many records are read and compared, of both releases together, the latest ones.

    Raises:
        NoCanary: there is none.
        MemberError: an artifact is missing or damaged.
        ReleaseCorrupt: a release is.
    """
    current, _ = store.read_current()
    canary = pointer.find_canary(current)
    began = date.fromisoformat(canary.since[:10])
    both = (current.release, canary.release)
    since = [one for one in records.since(began) if one.recorded_at >= canary.since and one.release in both]
    read = [
        record
        for record in records.read_all([summary.prediction_id for summary in since[:limit]])
        if not record.metadata.get("verify")  # golden rows are no traffic
    ]
    old, new = (_load(store, digest, load) for digest in both)
    return CanaryReport(
        percent=canary.percent,
        since=canary.since,
        current=_count(old, since, read),
        canary=_count(new, since, read),
        agreement=_compare(old, new, read),
    )


def _load(store: ReleaseStore, digest: str, load: LoadRelease) -> _Side:
    release = store.read_release(digest)
    artifacts = {member.id: store.read_artifact(member.artifact) for member in release.members}
    return _Side(digest, release, load(release, digest, artifacts))


def _count(side: _Side, summaries: Iterable[RecordSummary], records: Iterable[Record]) -> Activity:
    mine = [summary for summary in summaries if summary.release == side.digest]
    answered = [one for record in records if record.release == side.digest for one in _predictions(record.output)]
    numbers = [one.value for one in answered if one.value is not None]
    measured = bool(numbers) and not isinstance(side.release.task, MulticlassTask)
    return Activity(
        release=side.digest,
        executions=len(mine),
        statuses=dict(Counter(summary.status for summary in mine)),
        rows=len(answered),
        mean=float(np.mean(numbers)) if measured else None,
        std=float(np.std(numbers)) if measured else None,
        labels=dict(Counter(one.label for one in answered if isinstance(one.label, str)).most_common()),
    )


def _compare(old: _Side, new: _Side, records: Sequence[Record]) -> ReleaseAgreement | None:
    if _question(old.release.task) != _question(new.release.task):
        return None
    answered = [record for record in records if record.failure is None]
    refused: dict[str, list[str]] = {}
    pairs: list[ComparedExecution] = []
    for record in answered:
        other = new if record.release == old.digest else old
        try:
            tried = _outcome(other.answer(record.input))
        except EnsembleError as error:
            refused.setdefault(other.digest, []).append(f"{type(error).__name__}: {error}")
            continue
        said = _outcome(record.output)
        pairs.append(ComparedExecution(said, tried) if other is new else ComparedExecution(tried, said))
    report = compare(old.release.task, pairs, sum(len(one.predictions) for one, _ in pairs), (), ())
    return ReleaseAgreement(
        records=report.records,
        rows=report.compared,
        labels_differ=report.labels_flipped,
        flips=report.flips,
        shift=report.shift,
        refusals=tuple(RejectedInputs(digest, len(reasons), reasons[0]) for digest, reasons in refused.items()),
    )


def _question(task: Task) -> tuple[str, tuple[str, ...]]:
    return name_task(task), name_classes(task)


def _outcome(output: Output) -> DecidedExecution:
    return DecidedExecution(output.prediction_id, output.status, list(_predictions(output)))


def _predictions(output: Output) -> Iterator[Prediction]:
    return iter(output.predictions if isinstance(output.predictions, list) else ())
