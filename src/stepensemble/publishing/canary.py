"""Compares a canary with the current release, promotes it or aborts it."""

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
from stepensemble.core.releases.release import Canary, Release, ReleasePointer
from stepensemble.core.replay.report import ChangeCount, ComparedExecution, DecidedExecution, Shift, compare
from stepensemble.core.schema.task import MulticlassTask, Task, name_classes, name_task
from stepensemble.publishing.publish import Now
from stepensemble.storage.releases import ReleaseStore

if TYPE_CHECKING:
    from stepensemble.storage.record_table import RecordTable

Predict = Callable[[Mapping[str, Any]], Output]
"""Predicts a payload in process, or raises an `EnsembleError`."""

LoadRelease = Callable[[Release, str, Mapping[str, bytes]], Predict]
"""Loads a release, given the release, its digest, and its artifacts by member id; returns its `Predict`."""


class Activity(Struct, frozen=True):
    """What one release predicted since the canary began.

    Attributes:
        executions: how many were recorded.
        statuses: how many executions ended with each status.
        mean, std: of its values, over the rows of the records that were read; None without values, and for a
            multiclass task.
        labels: how often each label was predicted, over the same rows.
    """

    release: str
    executions: int
    statuses: Mapping[str, int]
    rows: Annotated[int, Meta(description="Rows of the records that were read.")]
    mean: float | None
    std: float | None
    labels: Mapping[str, int]


class RejectedInputs(Struct, frozen=True):
    """Recorded inputs that the other release rejects."""

    release: Annotated[str, Meta(description="The release that rejects them.")]
    records: int
    example: Annotated[str, Meta(description="Its error for the first of them.")]


class ReleaseAgreement(Struct, frozen=True):
    """How both releases predict the same recorded inputs: one predicted in the execution, the other in process.

    Attributes:
        flips: changes from the current release's label to the canary's, the most frequent change first.
        shift: the canary's numbers minus the current release's; None if no row is compared.
        rejected: inputs that one release predicted and the other rejects.
    """

    records: int
    rows: int
    labels_differ: int
    flips: tuple[ChangeCount, ...]
    shift: Shift | None
    rejected: tuple[RejectedInputs, ...]


class CanaryReport(Struct, frozen=True):
    """How a canary compares with the current release.

    Attributes:
        percent: its share of the executions.
        since: when it began, ISO 8601 in UTC.
        agreement: None if the two releases have different tasks or classes.
    """

    percent: int
    since: str
    current: Activity
    canary: Activity
    agreement: ReleaseAgreement | None


def promote_canary(store: ReleaseStore, *, now: Now = lambda: datetime.now(UTC)) -> ReleasePointer:
    """Make the canary the current release, and return the pointer.

    Raises:
        NoCanary: there is none.
        PublishConflict: the pointer was changed concurrently.
    """
    current, tag = store.read_current()
    promoted = pointer.promote_canary(current, now().isoformat(timespec="milliseconds"))
    store.move_current(promoted, tag)
    return promoted


def abort_canary(store: ReleaseStore) -> Canary:
    """End the canary, and return it.

    Raises:
        NoCanary: there is none.
        PublishConflict: the pointer was changed concurrently.
    """
    current, tag = store.read_current()
    canary = pointer.find_canary(current)
    store.move_current(pointer.abort_canary(current), tag)
    return canary


@dataclass(frozen=True, slots=True)
class _LoadedRelease:
    """One of the two releases, loaded."""

    digest: str
    release: Release
    predict: Predict


def report_canary(store: ReleaseStore, records: RecordTable, load: LoadRelease, limit: int) -> CanaryReport:
    """Count what both releases predicted since the canary began, and let each predict the other's recorded inputs.

    Args:
        store: the stack's artifact bucket; every artifact of both releases is read, and its digest checked.
        records: the stack's.
        load: loads a release in process.
        limit: how many of the latest records are read and compared, of both releases together.

    Raises:
        NoCanary: there is none.
        MemberError: an artifact is missing or damaged.
        ReleaseCorrupt: a release is missing or damaged.
    """
    current, _ = store.read_current()
    canary = pointer.find_canary(current)
    began = date.fromisoformat(canary.since[:10])
    both = (current.release, canary.release)
    since = [one for one in records.since(began) if one.recorded_at >= canary.since and one.release in both]
    read = [
        record
        for record in records.read_all([summary.prediction_id for summary in since[:limit]])
        if not record.metadata.get("verify")  # golden rows are not traffic
    ]
    old, new = (_load(store, digest, load) for digest in both)
    return CanaryReport(
        percent=canary.percent,
        since=canary.since,
        current=_count(old, since, read),
        canary=_count(new, since, read),
        agreement=_compare(old, new, read),
    )


def _load(store: ReleaseStore, digest: str, load: LoadRelease) -> _LoadedRelease:
    release = store.read_release(digest)
    artifacts = {member.id: store.read_artifact(member.artifact) for member in release.members}
    return _LoadedRelease(digest, release, load(release, digest, artifacts))


def _count(loaded: _LoadedRelease, summaries: Iterable[RecordSummary], records: Iterable[Record]) -> Activity:
    own = [summary for summary in summaries if summary.release == loaded.digest]
    predictions = [one for record in records if record.release == loaded.digest for one in _predictions(record.output)]
    numbers = [one.value for one in predictions if one.value is not None]
    measured = bool(numbers) and not isinstance(loaded.release.task, MulticlassTask)
    return Activity(
        release=loaded.digest,
        executions=len(own),
        statuses=dict(Counter(summary.status for summary in own)),
        rows=len(predictions),
        mean=float(np.mean(numbers)) if measured else None,
        std=float(np.std(numbers)) if measured else None,
        labels=dict(Counter(one.label for one in predictions if isinstance(one.label, str)).most_common()),
    )


def _compare(old: _LoadedRelease, new: _LoadedRelease, records: Sequence[Record]) -> ReleaseAgreement | None:
    if _identify_task(old.release.task) != _identify_task(new.release.task):
        return None
    predicted = [record for record in records if record.failure is None]
    rejected: dict[str, list[str]] = {}
    pairs: list[ComparedExecution] = []
    for record in predicted:
        other = new if record.release == old.digest else old
        try:
            predicted_again = _outcome(other.predict(record.input))
        except EnsembleError as error:
            rejected.setdefault(other.digest, []).append(f"{type(error).__name__}: {error}")
            continue
        recorded = _outcome(record.output)
        pairs.append(
            ComparedExecution(recorded, predicted_again)
            if other is new
            else ComparedExecution(predicted_again, recorded)
        )
    report = compare(old.release.task, pairs, sum(len(one.predictions) for one, _ in pairs), (), ())
    return ReleaseAgreement(
        records=report.records,
        rows=report.compared,
        labels_differ=report.labels_flipped,
        flips=report.flips,
        shift=report.shift,
        rejected=tuple(RejectedInputs(digest, len(reasons), reasons[0]) for digest, reasons in rejected.items()),
    )


def _identify_task(task: Task) -> tuple[str, tuple[str, ...]]:
    return name_task(task), name_classes(task)


def _outcome(output: Output) -> DecidedExecution:
    return DecidedExecution(output.prediction_id, output.status, list(_predictions(output)))


def _predictions(output: Output) -> Iterator[Prediction]:
    return iter(output.predictions if isinstance(output.predictions, list) else ())
