"""Summarizes a run: computes `summary.json` from the shards' reports, and decides whether the run succeeded.

Pure: `publication` reads the reports and stores the summary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Literal

from msgspec import Struct

from stepensemble.batch.documents import SCHEMA_VERSION, Options, RunPlan, Shard, ShardFailure
from stepensemble.batch.report.calibration import CalibrationSummary, calibrate
from stepensemble.batch.report.cost import Cost, FunctionUse, MemberInvocations, count_transitions, sum_cost
from stepensemble.batch.report.drift import stability_index
from stepensemble.batch.report.label_summary import LabelSummary, summarize_labels
from stepensemble.batch.report.statistics import (
    Histogram,
    Histograms,
    MemberStatistics,
    Rejection,
    ShardReport,
    ShardStatistics,
    merge_statistics,
)
from stepensemble.core.errors import DatasetChanged
from stepensemble.core.releases.release import Release, ReleasedMember
from stepensemble.core.schema.manifest import BooleanFeature, CategoryFeature
from stepensemble.core.schema.task import RegressionTask, name_classes, name_task

MAX_SLOW, MAX_FAILED = 10, 100
"""How many of the slowest and of the failed shards are listed."""

MAX_SHIFTED = 8
"""How many features have their distribution in the previous run in the summary: those with the largest drift."""

MAX_NAMED_BINS = 12
"""Up to so many categories, bins have names; fewer than `drift.MAX_CATEGORIES`, so that each has a bin of its own."""


class FailedShard(Struct, frozen=True):
    """A failed shard: where its rows are, and why it failed; `rows` is None for gzip."""

    number: int
    file: str
    first_row: int
    rows: int | None
    error: str
    cause: str


class SlowShard(Struct, frozen=True):
    """A shard, and the seconds that its functions took in sequence; of the members the slowest one counts."""

    number: int
    file: str
    rows: int
    seconds: float


class MemberSummary(Struct, frozen=True):
    """One member in a run.

    Attributes:
        shards: shards in which it was invoked.
        failures: shards in which it failed, by the name of the error.
        rows: rows for which it has a usable output.
        seconds: time in its functions, in shards where it did not fail.
        mean: mean of its values, or of its probabilities for the second of two classes; None for a multiclass task.
        pivotal: share of its rows whose label would be another without it; None for a regression and for a shadow.
        unusable: rows whose output is not what the member declares: not finite, outside its range, or no class.
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
    """Population stability indexes since the previous run; None where the two runs cannot be compared."""

    prediction: float | None
    features: dict[str, float | None]


class SampledPrediction(Struct, frozen=True):
    """A regression's prediction of one row, and the ground truth; None where that is not known."""

    predicted: float
    actual: float | None


class Summary(Struct, frozen=True):
    """`summary.json`: a run in numbers.

    Attributes:
        cause: why the run failed; None if it succeeded.
        attempt: how many executions have worked on the run, including this one.
        execution: ARN of the execution that wrote the summary.
        started_at, finished_at: ISO 8601 in UTC: the start of the first execution that worked on the run, and its end.
        task: type of the release's task.
        classes: of the task; empty for a regression.
        rows: rows of all shards, as far as they were counted: `rows_in` and `rows_failed` together.
        rows_in: rows of the shards that succeeded: `rows_out` and `rows_rejected` together.
        rows_failed: rows of failed shards.
        statuses, decisions, labels, tiers: predicted rows by COMPLETE and DEGRADED, by decision, by predicted class,
            and by the tier that decided.
        rejections: rows by column and reason, with examples; a row may have several. The column is empty for a record
            that is no row, and for a row without a prediction.
        members: in the release's order.
        agreement: for each pair of members, in the release's order: the share of the rows with outputs of both for
            which both have the same label; None if there are no such rows. Empty for a regression.
        calibration: how predictions compare with the ground truth; None where there is none.
        histograms: of the prediction and of the features; the next run is compared with them.
        drift: since the previous run; None if there is none.
        previous_summary: key of the summary of the previous run, with which this one was compared.
        previous_histograms: of that run: of the prediction, and of the features with the largest drift, in descending
            order.
        bin_names: for those of these features that are categories or booleans, the names of the bins.
        sample: for a regression, the predictions of some rows.
        previous_sample: the previous run's predictions of some rows.
        slowest, failures: some of the shards.
        seconds_by_function, bytes: over all shards; bytes by kind of object.
        results: `s3://bucket/prefix/`; None if the run failed.
        rejected: the same for the rejected rows; None if there are none.
        report: `s3://bucket/key`.
        notes: of the plan: columns that are not used, or missing.
        ground_truth: the column of labels and how it was read; None without such a column.
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
    calibration: CalibrationSummary | None
    histograms: Histograms
    drift: Drift | None
    previous_summary: str | None
    slowest: tuple[SlowShard, ...]
    failures: tuple[FailedShard, ...]
    seconds_by_function: dict[str, float]
    bytes: dict[str, int]
    cost: Cost
    results: str | None
    rejected: str | None
    report: str
    notes: tuple[str, ...] = ()
    ground_truth: LabelSummary | None = None
    previous_histograms: Histograms = Histograms()
    bin_names: dict[str, tuple[str, ...]] = {}
    sample: tuple[SampledPrediction, ...] = ()
    previous_sample: tuple[float, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def needs_review(self) -> int:
        """The number of rows that a person should review."""
        return self.decisions.get("review", 0)


@dataclass(frozen=True, slots=True)
class ShardOutcomes:
    """How the shards of a run ended.

    Attributes:
        reports: of the shards that succeeded, in the order of their numbers.
        failures: of the others, by number.
    """

    reports: tuple[ShardReport, ...]
    failures: Mapping[int, ShardFailure]

    @property
    def changed(self) -> frozenset[int]:
        """The shards whose file has changed: resuming this run cannot predict them."""
        return frozenset(
            number for number, failure in self.failures.items() if failure.error == DatasetChanged.__name__
        )


@dataclass(frozen=True, slots=True)
class RunAttempt:
    """The ARN of the execution that completes a run, how many have worked on it, and the time now (ISO 8601)."""

    execution: str
    number: int
    now: str


@dataclass(frozen=True, slots=True)
class RunContext:
    """What is known of a run before its shards' reports are read.

    Attributes:
        plan: of the run.
        shards: all of them.
        release: that predicts.
        attempt: the execution that completes the run.
        memory_mb: memory of `normalize_shard`, `score` and `aggregate_shard`; a function that is missing costs nothing.
    """

    plan: RunPlan
    shards: Sequence[Shard]
    release: Release
    attempt: RunAttempt
    memory_mb: Mapping[str, int]

    def find_shard(self, number: int) -> Shard:
        """Return the shard with a number."""
        return self.shards[number]

    def name_file(self, shard: Shard) -> str:
        """Return the name of a shard's file."""
        return self.plan.files[shard.file].name


@dataclass(frozen=True, slots=True)
class RunLocations:
    """Where results, rejected rows and report are stored; see `Summary`."""

    results: str
    rejected: str
    report: str


def explain_run_failure(run: RunContext, outcomes: ShardOutcomes) -> str | None:
    """Return why a run fails, one line for each reason; None if it succeeds.

    No file may have changed; every row that Plan counted must be predicted or rejected; at most `max_failed_shards`
    shards may have failed, and at most a share of `max_rejected` of the rows may be rejected.
    """
    return "\n".join(chain(_find_lost_rows(run, outcomes), _find_exceeded_limits(run, outcomes))) or None


def _find_lost_rows(run: RunContext, outcomes: ShardOutcomes) -> Iterator[str]:
    for report in outcomes.reports:
        shard = run.find_shard(report.number)
        place = f"shard {shard.number} of {run.name_file(shard)}"
        if shard.rows is not None and shard.rows != report.rows_in:
            yield f"{place}: {shard.rows:,} rows were planned and {report.rows_in:,} were read"
        if report.rows_in != report.rows_out + report.rows_rejected:
            yield (
                f"{place}: of {report.rows_in:,} rows {report.rows_out:,} were predicted and {report.rows_rejected:,} "
                "rejected"
            )
    ended = len(outcomes.reports) + len(outcomes.failures)
    if run.plan.shards != ended:
        yield f"{run.plan.shards:,} shards were planned, and {ended:,} are accounted for"


def _find_exceeded_limits(run: RunContext, outcomes: ShardOutcomes) -> Iterator[str]:
    options, changed = run.plan.options, outcomes.changed
    if changed:
        yield (
            f"{len(changed):,} of {len(run.shards):,} shards found their file changed or removed since the run was "
            f"planned, the first {run.name_file(run.find_shard(min(changed)))}; start the batch again: that is a new "
            "run over the files as they are then"
        )
    failures = {number: failure for number, failure in outcomes.failures.items() if number not in changed}
    if len(failures) > options.max_failed_shards:
        number, first = min(failures.items())
        shard = run.find_shard(number)
        yield (
            f"{len(failures):,} of {len(run.shards):,} shards failed, and max_failed_shards is "
            f"{options.max_failed_shards:,}; start the run again to repeat only these. Shard {number} of "
            f"{run.name_file(shard)}, from row {shard.first_row:,} on: {first.error}: {first.cause}"
        )
    rows, rejected = (sum(getattr(one, name) for one in outcomes.reports) for name in ("rows_in", "rows_rejected"))
    if rejected > options.max_rejected * rows:
        yield (
            f"{rejected:,} of {rows:,} rows were rejected ({rejected / rows:.1%}), and max_rejected is "
            f"{options.max_rejected:.1%}; inspect the rejected rows and fix the dataset, or raise max_rejected"
        )


def summarize(run: RunContext, outcomes: ShardOutcomes, previous: Summary | None, locations: RunLocations) -> Summary:
    """Return the summary of a run.

    Args:
        run: the run.
        outcomes: how its shards ended.
        previous: the summary of the run that this one is compared with; None if there is none.
        locations: where results and report are stored.
    """
    plan, release, attempt = run.plan, run.release, run.attempt
    cause = explain_run_failure(run, outcomes)
    statistics = merge_statistics(report.statistics for report in outcomes.reports)
    rows_in, rows_out, rows_rejected = (
        sum(getattr(report, name) for report in outcomes.reports) for name in ("rows_in", "rows_out", "rows_rejected")
    )
    drift = None if previous is None else _measure_drift(plan, statistics.histograms, previous.histograms)
    previous_histograms = Histograms() if previous is None else _select_shifted(drift, previous.histograms)
    rows_failed = sum(run.find_shard(number).rows or 0 for number in outcomes.failures)
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
        attempt=attempt.number,
        execution=attempt.execution,
        started_at=plan.started_at,
        finished_at=attempt.now,
        seconds=(datetime.fromisoformat(attempt.now) - datetime.fromisoformat(plan.started_at)).total_seconds(),
        options=plan.options,
        files=len(plan.files),
        shards=len(run.shards),
        failed_shards=len(outcomes.failures),
        rows=rows_in + rows_failed,
        rows_in=rows_in,
        rows_out=rows_out,
        rows_rejected=rows_rejected,
        rows_failed=rows_failed,
        statuses=statistics.statuses,
        decisions=statistics.decisions,
        labels=statistics.labels,
        tiers=statistics.tiers,
        rejections=statistics.rejections,
        members=tuple(_summarize_member(release, member, statistics) for member in release.members),
        agreement=_compute_agreement(release, statistics),
        calibration=calibrate(release, statistics),
        histograms=statistics.histograms,
        drift=drift,
        previous_summary=None if previous is None else plan.previous_summary,
        slowest=_find_slowest(run, outcomes.reports),
        failures=tuple(_list_failures(run, outcomes))[:MAX_FAILED],
        seconds_by_function=statistics.seconds,
        bytes=statistics.bytes,
        cost=_estimate_cost(run, outcomes, statistics),
        results=locations.results if cause is None else None,
        rejected=locations.rejected if rows_rejected else None,
        report=locations.report,
        notes=plan.notes,
        ground_truth=summarize_labels(plan, release, statistics),
        previous_histograms=previous_histograms,
        bin_names=_name_bins(release, previous_histograms.features),
        sample=tuple(SampledPrediction(row.predicted, row.actual) for row in statistics.sample.rows),
        previous_sample=() if previous is None else tuple(row.predicted for row in previous.sample),
    )


def _summarize_member(release: Release, member: ReleasedMember, statistics: ShardStatistics) -> MemberSummary:
    own = statistics.members.get(member.id, MemberStatistics())
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


def _compute_agreement(release: Release, statistics: ShardStatistics) -> tuple[tuple[float | None, ...], ...]:
    if isinstance(release.task, RegressionTask):
        return ()
    ids = [member.id for member in release.members]

    def share(one: str, other: str) -> float | None:
        if one == other:
            return 1.0 if statistics.members.get(one, MemberStatistics()).rows else None
        counted = statistics.agreement.get(one, {}).get(other) or statistics.agreement.get(other, {}).get(one)
        return None if counted is None else _divide(counted.same, counted.rows)

    return tuple(tuple(share(one, other) for other in ids) for one in ids)


def _measure_drift(plan: RunPlan, now: Histograms, before: Histograms) -> Drift:
    return Drift(
        _compare(before.prediction, now.prediction),
        {name: _compare(before.features.get(name), now.features.get(name)) for name in plan.edges.features},
    )


def _compare(before: Histogram | None, now: Histogram | None) -> float | None:
    """Return the stability index of two histograms; None if they have different bins, or one has no rows."""
    if before is None or now is None or before.edges != now.edges:
        return None
    counts = (*before.counts, before.missing), (*now.counts, now.missing)
    return stability_index(*counts) if all(map(any, counts)) else None


def _select_shifted(drift: Drift | None, before: Histograms) -> Histograms:
    """Return the previous run's histograms of the prediction, and of the features with the largest drift."""
    indexes = {} if drift is None else drift.features
    known = sorted((-index, name) for name, index in indexes.items() if index is not None)
    return Histograms(before.prediction, {name: before.features[name] for _, name in known[:MAX_SHIFTED]})


def _name_bins(release: Release, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the names of the bins of categories and booleans; those of a long vocabulary have none."""
    named: dict[str, tuple[str, ...]] = {}
    wanted = set(names)
    for feature in release.features:
        if feature.name not in wanted:
            continue
        if isinstance(feature, BooleanFeature):
            named[feature.name] = ("false", "true")
        elif isinstance(feature, CategoryFeature) and len(feature.vocabulary) <= MAX_NAMED_BINS:
            named[feature.name] = (*map(str, feature.vocabulary), *(["other"] if feature.unknown == "other" else []))
    return named


def _find_slowest(run: RunContext, reports: Iterable[ShardReport]) -> tuple[SlowShard, ...]:
    slow = sorted(reports, key=lambda report: (-_sum_seconds(report), report.number))[:MAX_SLOW]
    return tuple(
        SlowShard(one.number, run.name_file(run.find_shard(one.number)), one.rows_in, _sum_seconds(one)) for one in slow
    )


def _sum_seconds(report: ShardReport) -> float:
    members = (member.seconds for member in report.statistics.members.values())
    return sum(report.statistics.seconds.values()) + max(members, default=0.0)


def _list_failures(run: RunContext, outcomes: ShardOutcomes) -> Iterator[FailedShard]:
    for number, failure in sorted(outcomes.failures.items()):
        shard = run.find_shard(number)
        yield FailedShard(number, run.name_file(shard), shard.first_row, shard.rows, failure.error, failure.cause)


def _estimate_cost(run: RunContext, outcomes: ShardOutcomes, statistics: ShardStatistics) -> Cost:
    release = run.release
    members = [statistics.members.get(member.id, MemberStatistics()) for member in release.members]
    invoked = [MemberInvocations(member.shards, sum(member.failures.values())) for member in members]
    empty = sum(not report.rows_out for report in outcomes.reports)
    shards = len(outcomes.reports)
    rounds = empty + sum(
        max(one.shards for one, member in zip(members, release.members, strict=True) if member.tier == tier)
        for tier in range(1, release.tiers + 1)
    )
    requests = {"normalize_shard": shards, "aggregate_shard": rounds, "score": sum(one.shards for one in members)}
    seconds = {**statistics.seconds, "score": sum(one.seconds for one in members)}
    used = [
        FunctionUse(name, run.memory_mb.get(name, 0), count, seconds.get(name, 0.0))
        for name, count in requests.items()
        if count
    ]
    return sum_cost(used, count_transitions(release, shards, empty, invoked))


def _divide(part: float, whole: int) -> float | None:
    return part / whole if whole else None
