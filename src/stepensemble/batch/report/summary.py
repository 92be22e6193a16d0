"""A run as a whole: what `summary.json` says, and whether the run succeeded.

Pure: it is told what the shards reported; `results` reads that, and publishes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from msgspec import Struct

from stepensemble.batch.documents import Options, RunPlan, Shard, ShardFailure
from stepensemble.batch.report.calibration import Calibration, calibrate
from stepensemble.batch.report.cost import Cost, FunctionUse, MemberInvocations, add_up, count_transitions
from stepensemble.batch.report.drift import PREDICTION, stability_index
from stepensemble.batch.report.label_summary import LabelSummary, summarize_labels
from stepensemble.batch.report.statistics import (
    Histogram,
    MemberStatistics,
    Rejection,
    ShardReport,
    ShardStatistics,
    add,
)
from stepensemble.core.errors import DatasetChanged
from stepensemble.core.releases.release import Release, ReleasedMember
from stepensemble.core.schema.manifest import BooleanFeature, CategoryFeature
from stepensemble.core.schema.task import RegressionTask, name_classes, name_task

MOST_SLOW, MOST_FAILED = 10, 100
"""Shards that are listed."""


MOST_SHIFTED = 8
"""Features whose distributions are kept beside those of the run before: those that have shifted most."""

MOST_NAMED_BINS = 12
"""Categories up to which bins have names; fewer than `drift.MOST_CATEGORIES`, so that each has a bin of its own."""


class FailedShard(Struct, frozen=True):
    """A shard without an answer, where its rows are, and why; `rows` is None of gzip."""

    number: int
    file: str
    first_row: int
    rows: int | None
    error: str
    cause: str


class SlowShard(Struct, frozen=True):
    """A shard, and the seconds its functions took, one after the other; members count as the slowest of them."""

    number: int
    file: str
    rows: int
    seconds: float


class MemberSummary(Struct, frozen=True):
    """A member's part in a run.

    Attributes:
        shards: in which it was asked.
        failures: in how many of them it did not answer, by the name of the error.
        rows: that it answered.
        seconds: in its functions, where it answered.
        mean: of its values, or of its probabilities for the second of two classes; else None.
        pivotal: share of its rows that would be answered otherwise without it; None of a regression and of a shadow.
        unusable: rows for which its output was not what it declares: not finite, outside its range, or no class.
    """

    id: str
    version: str
    role: Literal["voter", "shadow"]
    shards: int
    failures: dict[str, int]
    rows: int
    seconds: float
    mean: float | None
    pivotal: float | None
    unusable: int = 0


class Drift(Struct, frozen=True):
    """How far a feature has moved; the prediction is named "". `index` is None where there is nothing to compare."""

    name: str
    index: float | None


class Summary(Struct, frozen=True):
    """`summary.json`: everything that is said of a run.

    Attributes:
        cause: why it failed; None where it succeeded.
        attempt: how many executions had the run, this one included.
        execution: ARN of the one that put it together.
        started_at, finished_at: ISO 8601 in UTC; of the first execution that worked on it, and its end.
        task: type of the release's.
        classes: of the task; empty of a regression.
        rows: of all shards, as far as they were counted: in, and `rows_failed` of shards without an answer.
        rows_in: of the shards that were answered: `rows_out` and `rows_rejected` together.
        statuses, decisions, labels, tiers: answered rows by COMPLETE and DEGRADED; by what was decided; by class; by
            the tier that decided.
        rejections: rows by column and reason, with places to look at; a row may have several.
        agreement: of each pair of members, in their order, the share of the rows that both answered in which they say
            the same; None where there are none. Empty of a regression.
        calibration: of the members and, last, of the ensemble; empty without labels.
        histograms: of features and, named "", of the prediction; the next run is compared with them.
        previous: key of the summary of the run before, with which this one was compared.
        before: that one's histogram of the prediction.
        shifted: that one's histograms of the features that have shifted most, the most first.
        bins: of these that are categories, what the bins stand for.
        sample: of a regression, predictions of some rows, with the truth where it is known.
        sample_before: that run's predictions of some rows.
        seconds_by_function, bytes: by what took them, over all shards.
        results: `s3://bucket/prefix/`; None where the run failed.
        rejected: the same of the rejected rows; None where there are none.
        report: `s3://bucket/key`.
        notes: as of the plan: columns that are not used, or not there.
        truth: what was read of the labels; None without a column of them.
    """

    run: str
    status: Literal["SUCCEEDED", "FAILED"]
    cause: str | None
    ensemble: str
    release: str
    task: str
    classes: tuple[str, ...]
    dataset: str
    date: str
    attempt: int
    execution: str
    started_at: str
    finished_at: str
    seconds: float
    options: Options
    files: int
    shards: int
    failed_shards: int
    rows: int
    rows_in: int
    rows_out: int
    rows_rejected: int
    rows_failed: int
    statuses: dict[str, int]
    decisions: dict[str, int]
    labels: dict[str, int]
    tiers: dict[str, int]
    rejections: dict[str, dict[str, Rejection]]
    members: tuple[MemberSummary, ...]
    agreement: tuple[tuple[float | None, ...], ...]
    calibration: tuple[Calibration, ...]
    histograms: dict[str, Histogram]
    drift: tuple[Drift, ...]
    previous: str | None
    before: Histogram | None
    slowest: tuple[SlowShard, ...]
    failures: tuple[FailedShard, ...]
    seconds_by_function: dict[str, float]
    bytes: dict[str, int]
    cost: Cost
    results: str | None
    rejected: str | None
    report: str
    notes: tuple[str, ...] = ()
    truth: LabelSummary | None = None
    shifted: dict[str, Histogram] = {}
    bins: dict[str, tuple[str, ...]] = {}
    sample: tuple[tuple[float, float | None], ...] = ()
    sample_before: tuple[float, ...] = ()

    @property
    def needs_review(self) -> int:
        """How many rows a person should look at."""
        return self.decisions.get("review", 0)


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of the shards.

    Attributes:
        reports: of those that were answered, in the order of their numbers.
        failures: of the others, by number.
    """

    reports: tuple[ShardReport, ...]
    failures: Mapping[int, ShardFailure]

    @property
    def changed(self) -> frozenset[int]:
        """The shards whose file is another one by now: no start of this run can answer them."""
        return frozenset(number for number, why in self.failures.items() if why.error == DatasetChanged.__name__)


@dataclass(frozen=True, slots=True)
class Times:
    """Which execution puts a run together, how many have had the run, and what time it is (ISO 8601)."""

    execution: str
    attempt: int
    now: str


@dataclass(frozen=True, slots=True)
class RunLocations:
    """Where things go: see `Summary`."""

    results: str
    rejected: str
    report: str


def explain_run_failure(plan: RunPlan, shards: Sequence[Shard], ended: Ended) -> str | None:
    """Say why a run fails, a line a reason; None where it succeeds.

    No file may have changed; every row that Plan counted must have been answered or rejected; so many shards may have
    failed, and such a share of the rows may be rejected, as the options say.
    """
    return "\n".join(_find_faults(plan, shards, ended)) or None


def _find_faults(plan: RunPlan, shards: Sequence[Shard], ended: Ended) -> Iterator[str]:
    planned = {shard.number: shard for shard in shards}
    for report in ended.reports:
        shard = planned[report.number]
        place = f"shard {shard.number} of {plan.files[shard.file].name}"
        if shard.rows is not None and shard.rows != report.rows_in:
            yield f"{place}: {shard.rows:,} rows were planned and {report.rows_in:,} were read"
        if report.rows_in != report.rows_out + report.rows_rejected:
            yield (
                f"{place}: of {report.rows_in:,} rows {report.rows_out:,} were answered and {report.rows_rejected:,} "
                "rejected"
            )
    if plan.shards != len(ended.reports) + len(ended.failures):
        yield f"{plan.shards:,} shards were planned, and {len(ended.reports) + len(ended.failures):,} are accounted for"
    if ended.changed:
        yield (
            f"{len(ended.changed):,} of {len(shards):,} shards found their file changed or removed since the run was "
            f"planned, the first {plan.files[planned[min(ended.changed)].file].name}; start the batch again: that is "
            "another run, over the files as they are then"
        )
    failures = {number: why for number, why in ended.failures.items() if number not in ended.changed}
    if len(failures) > plan.options.max_failed_shards:
        number, first = min(failures.items())
        shard = planned[number]
        yield (
            f"{len(failures):,} of {len(shards):,} shards failed, where max_failed_shards is "
            f"{plan.options.max_failed_shards:,}; start the run again to do these alone. Shard {number} of "
            f"{plan.files[shard.file].name}, from row {shard.first_row:,} on: {first.error}: {first.cause}"
        )
    rows, rejected = (sum(getattr(one, name) for one in ended.reports) for name in ("rows_in", "rows_rejected"))
    if rejected > plan.options.max_rejected * rows:
        yield (
            f"{rejected:,} of {rows:,} rows were rejected ({rejected / rows:.1%}), where max_rejected is "
            f"{plan.options.max_rejected:.1%}; look at the rejected rows, mend the dataset, or allow more of them"
        )


def summarize(
    plan: RunPlan,
    shards: Sequence[Shard],
    release: Release,
    ended: Ended,
    times: Times,
    memory: Mapping[str, int],
    previous: Summary | None,
    places: RunLocations,
) -> Summary:
    """Say what there is to say of a run.

    Args:
        plan: of the run.
        shards: all of them.
        release: that answered.
        ended: what became of the shards.
        times: who asks, and when.
        memory: MB of `normalize_shard`, `score` and `aggregate_shard`; a function that is missing costs nothing.
        previous: of the run with which this one is compared; None where there is none.
        places: where things go.
    """
    cause = explain_run_failure(plan, shards, ended)
    tally = add(report.tally for report in ended.reports)
    planned = {shard.number: shard for shard in shards}
    rows_in, rows_out, rows_rejected = (
        sum(getattr(report, name) for report in ended.reports) for name in ("rows_in", "rows_out", "rows_rejected")
    )
    drift = tuple(_measure_drift(plan, tally, previous))
    shifted = _find_shifted(drift, previous)
    rows_failed = sum(planned[number].rows or 0 for number in ended.failures)
    return Summary(
        run=plan.run,
        status="SUCCEEDED" if cause is None else "FAILED",
        cause=cause,
        ensemble=plan.ensemble,
        release=plan.release,
        task=name_task(release.task),
        classes=name_classes(release.task),
        dataset=plan.dataset,
        date=plan.date,
        attempt=times.attempt,
        execution=times.execution,
        started_at=plan.started_at,
        finished_at=times.now,
        seconds=(datetime.fromisoformat(times.now) - datetime.fromisoformat(plan.started_at)).total_seconds(),
        options=plan.options,
        files=len(plan.files),
        shards=len(shards),
        failed_shards=len(ended.failures),
        rows=rows_in + rows_failed,
        rows_in=rows_in,
        rows_out=rows_out,
        rows_rejected=rows_rejected,
        rows_failed=rows_failed,
        statuses=tally.statuses,
        decisions=tally.decisions,
        labels=tally.labels,
        tiers=tally.tiers,
        rejections=tally.rejected,
        members=tuple(_summarize_member(release, member, tally) for member in release.members),
        agreement=_make_matrix(release, tally),
        calibration=calibrate(release, tally),
        histograms=tally.histograms,
        drift=drift,
        previous=None if previous is None else plan.previous,
        before=None if previous is None else previous.histograms.get(PREDICTION),
        slowest=_find_slowest(plan, planned, ended.reports),
        failures=tuple(_list_failures(plan, planned, ended))[:MOST_FAILED],
        seconds_by_function=tally.seconds,
        bytes=tally.bytes,
        cost=_count_cost(release, ended, tally, memory),
        results=places.results if cause is None else None,
        rejected=places.rejected if rows_rejected else None,
        report=places.report,
        notes=plan.notes,
        truth=summarize_labels(plan, release, tally),
        shifted=shifted,
        bins=_name_bins(release, shifted),
        sample=tuple((value, true) for _, value, true in tally.sample.rows),
        sample_before=() if previous is None else tuple(value for value, _ in previous.sample),
    )


def _summarize_member(release: Release, member: ReleasedMember, tally: ShardStatistics) -> MemberSummary:
    own = tally.members.get(member.id, MemberStatistics())
    classes = len(name_classes(release.task))
    return MemberSummary(
        id=member.id,
        version=member.version,
        role=member.role,
        shards=own.shards,
        failures=own.failures,
        rows=own.rows,
        seconds=own.seconds,
        mean=_divide(own.total, own.rows) if classes < 3 else None,
        pivotal=_divide(own.pivotal, own.rows) if classes and member.role == "voter" else None,
        unusable=own.unusable,
    )


def _make_matrix(release: Release, tally: ShardStatistics) -> tuple[tuple[float | None, ...], ...]:
    if isinstance(release.task, RegressionTask):
        return ()
    ids = [member.id for member in release.members]

    def share(one: str, other: str) -> float | None:
        if one == other:
            return 1.0 if tally.members.get(one, MemberStatistics()).rows else None
        counted = tally.agreement.get(one, {}).get(other) or tally.agreement.get(other, {}).get(one)
        return None if counted is None else _divide(counted.same, counted.rows)

    return tuple(tuple(share(one, other) for other in ids) for one in ids)


def _measure_drift(plan: RunPlan, tally: ShardStatistics, previous: Summary | None) -> Iterator[Drift]:
    if previous is None:
        return
    for name in plan.edges:
        before, now = previous.histograms.get(name), tally.histograms.get(name)
        index = None
        if before is not None and now is not None and before.edges == now.edges:
            counts = (*before.counts, before.missing), (*now.counts, now.missing)
            index = stability_index(*counts) if all(map(any, counts)) else None
        yield Drift(name, index)


def _find_shifted(drift: Sequence[Drift], previous: Summary | None) -> dict[str, Histogram]:
    """Return the histograms that the features with the greatest shift had in the run before."""
    if previous is None:
        return {}
    known = [(-one.index, one.name) for one in drift if one.index is not None and one.name != PREDICTION]
    return {name: previous.histograms[name] for _, name in sorted(known)[:MOST_SHIFTED]}


def _name_bins(release: Release, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Say what the bins of categories and booleans stand for; those of a long vocabulary have no names."""
    named: dict[str, tuple[str, ...]] = {}
    wanted = set(names)
    for feature in release.features:
        if feature.name not in wanted:
            continue
        if isinstance(feature, BooleanFeature):
            named[feature.name] = ("false", "true")
        elif isinstance(feature, CategoryFeature) and len(feature.vocabulary) <= MOST_NAMED_BINS:
            named[feature.name] = (*map(str, feature.vocabulary), *(["other"] if feature.unknown == "other" else []))
    return named


def _find_slowest(plan: RunPlan, planned: Mapping[int, Shard], reports: Iterable[ShardReport]) -> tuple[SlowShard, ...]:
    slow = sorted(reports, key=lambda report: (-_add_seconds(report), report.number))[:MOST_SLOW]
    return tuple(
        SlowShard(one.number, plan.files[planned[one.number].file].name, one.rows_in, _add_seconds(one)) for one in slow
    )


def _add_seconds(report: ShardReport) -> float:
    members = (member.seconds for member in report.tally.members.values())
    return sum(report.tally.seconds.values()) + max(members, default=0.0)


def _list_failures(plan: RunPlan, planned: Mapping[int, Shard], ended: Ended) -> Iterator[FailedShard]:
    for number, failure in sorted(ended.failures.items()):
        shard = planned[number]
        name = plan.files[shard.file].name
        yield FailedShard(number, name, shard.first_row, shard.rows, failure.error, failure.cause)


def _count_cost(release: Release, ended: Ended, tally: ShardStatistics, memory: Mapping[str, int]) -> Cost:
    members = [tally.members.get(member.id, MemberStatistics()) for member in release.members]
    asked = [MemberInvocations(member.shards, sum(member.failures.values())) for member in members]
    unasked = sum(not report.rows_out for report in ended.reports)
    shards = len(ended.reports)
    rounds = unasked + sum(
        max(one.shards for one, member in zip(members, release.members, strict=True) if member.tier == tier)
        for tier in range(1, release.tiers + 1)
    )
    requests = {"normalize_shard": shards, "aggregate_shard": rounds}
    used = [
        FunctionUse(name, memory.get(name, 0), count, tally.seconds.get(name, 0.0))
        for name, count in requests.items()
        if count
    ]
    calls = sum(one.shards for one in members)
    if calls:
        used.append(FunctionUse("score", memory.get("score", 0), calls, sum(one.seconds for one in members)))
    return add_up(used, count_transitions(release, shards, unasked, asked))


def _divide(part: float, whole: int) -> float | None:
    return part / whole if whole else None
