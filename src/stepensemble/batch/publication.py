"""Put a run together: count, publish what its shards left, and say that it is whole, last.

Nothing is taken for whole before it is: parts are copied, then `summary.json` and `report.html` are written, then the
empty `_SUCCESS` beside the parts, then `result.json`, by which the run is known to be whole; only then goes what the
shards left on their way. Whoever is stopped in between is followed by somebody who does the same again and comes to the
same, since every step writes what it would have written before.

A run that fails publishes its rejected rows, summary and report, and keeps what its shards left: it is resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from stepensemble.batch.documents import Result, RunPlan, Shard, ShardFailure
from stepensemble.batch.report.statistics import ShardReport
from stepensemble.batch.report.summary import Ended, RunLocations, Summary, Times, summarize
from stepensemble.batch.run_lock import holds, read_result
from stepensemble.core.errors import BatchFailed, DatasetChanged, ObjectMissing, PublishConflict, RunTakenOver
from stepensemble.core.releases.release import Release
from stepensemble.storage.keys import (
    REPORT,
    SUMMARY,
    claim_key,
    latest_key,
    partition,
    plan_key,
    reports_folder,
    result_key,
    run_prefix,
    shard_failure_key,
    shard_report_key,
    staged_key,
    success_key,
)
from stepensemble.storage.objects import Bucket

AT_ONCE = 16
"""Objects that are read or copied together."""

PART_DIGITS = 5

# What a type is decoded by is built here, before there are threads: msgspec builds it at a type's first use, and two
# threads that meet there end the process.
_REPORT = msgspec.json.Decoder(ShardReport)
_FAILURE = msgspec.json.Decoder(ShardFailure)


KEPT_DAYS = 400
"""Days of which an ensemble's runs are kept in mind, so that a run is compared with the one before its own day."""


class DaysRun(Struct, frozen=True):
    """The whole run of a day: of several the last one.

    Attributes:
        summary: the key of its summary.
    """

    run: str
    date: str
    summary: str


class Latest(DaysRun, frozen=True):
    """The run of the latest day, and those of the days before it, latest first."""

    earlier: tuple[DaysRun, ...] = ()

    @property
    def days(self) -> tuple[DaysRun, ...]:
        """All of them, latest first."""
        return (DaysRun(self.run, self.date, self.summary), *self.earlier)


class Previous(Struct, frozen=True):
    """The run with which the next is compared: the key of its summary, and the edges of its histograms."""

    key: str
    edges: dict[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run's files go in the data bucket; all are folders without a slash behind."""

    results: str
    rejected: str
    reports: str

    @property
    def summary(self) -> str:
        """Key of the summary."""
        return f"{self.reports}/{SUMMARY}"

    @property
    def report(self) -> str:
        """Key of the report."""
        return f"{self.reports}/{REPORT}"


def find_places(plan: RunPlan) -> Places:
    """Return where a run's files go."""
    kinds = ("", "-rejected", "-reports")
    return Places(*(partition(f"{plan.output}{kind}", plan.ensemble, plan.date, plan.run) for kind in kinds))


def read_previous(bucket: Bucket, output: str, ensemble: str, date: str) -> Previous | None:
    """Return the run with which the next one is compared: of its day, or the latest day before; None without one.

    Args:
        bucket: with the data.
        output: the prefix of results.
        ensemble: the release's name.
        date: the day of the next run.
    """
    try:
        latest = msgspec.json.decode(bucket.read(latest_key(output, ensemble)), type=Latest)
        found = next((one for one in latest.days if one.date <= date), None)
        if found is None:
            return None
        summary = msgspec.json.decode(bucket.read(found.summary), type=Summary)
    except (ObjectMissing, msgspec.DecodeError):  # deleted, or of another version: the next one is the first again
        return None
    return Previous(found.summary, {name: one.edges for name, one in summary.histograms.items()})


def put_together(
    bucket: Bucket,
    plan: RunPlan,
    shards: Sequence[Shard],
    release: Release,
    times: Times,
    memory: Mapping[str, int],
    draw: Callable[[Summary], str],
) -> Result:
    """Count what the shards reported, publish it, and return what the run came to.

    Args:
        bucket: with the data.
        plan: of the run.
        shards: all of them.
        release: that answered.
        times: which execution asks, and when.
        memory: MB of the functions, by name; see `cost`.
        draw: the report, from the summary.

    Raises:
        BatchFailed: it went beyond its tolerances, or rows do not add up; summary, report and rejected rows are there.
        DatasetChanged: a file was changed or removed meanwhile; likewise.
        RunTakenOver: another execution has it by now.
    """
    if not holds(bucket, plan.run, times.execution):
        raise RunTakenOver(f"run {plan.run} was taken over by another execution; look at that one")
    result = read_result(bucket, plan.run)
    if result is None:
        result = _publish(bucket, plan, shards, release, times, memory, draw)
    if result.rows_out:  # nothing could be compared with an empty run
        _move_latest(bucket, plan)
    _tidy_up(bucket, plan.run)
    return result


def _publish(
    bucket: Bucket,
    plan: RunPlan,
    shards: Sequence[Shard],
    release: Release,
    times: Times,
    memory: Mapping[str, int],
    draw: Callable[[Summary], str],
) -> Result:
    places = find_places(plan)
    ended = _read_ended(bucket, plan.run, shards)
    previous = None if plan.previous is None else _read_summary(bucket, plan.previous)
    if previous is not None and previous.run == plan.run:  # its results were deleted, and it is done again
        previous = None
    published = RunLocations(
        *(bucket.pointer(place).s3 for place in (f"{places.results}/", f"{places.rejected}/", places.report))
    )
    summary = summarize(plan, shards, release, ended, times, memory, previous, published)
    if summary.cause is None:
        parts = [(staged_key(plan.run, "part", one.number, plan.options.format), one.number) for one in ended.reports]
        _copy(bucket, places.results, parts)
    rejected = [one.number for one in ended.reports if one.rows_rejected]
    _copy(bucket, places.rejected, [(staged_key(plan.run, "rejected", one, "parquet"), one) for one in rejected])
    bucket.write(places.summary, msgspec.json.format(msgspec.json.encode(summary), indent=1))
    bucket.write(places.report, draw(summary).encode())
    if summary.cause is not None:
        message = f"{summary.cause}\nsummary: {bucket.pointer(places.summary).s3}"
        raise DatasetChanged(message) if ended.changed else BatchFailed(message)
    bucket.write(success_key(places.results), b"")
    result = Result(
        run=plan.run,
        date=plan.date,
        release=plan.release,
        rows_in=summary.rows,
        rows_out=summary.rows_out,
        rows_rejected=summary.rows_rejected,
        needs_review=summary.needs_review,
        results=published.results,
        rejected=summary.rejected,
        report=summary.report,
        summary=bucket.pointer(places.summary).s3,
        rows_failed=summary.rows_failed,
    )
    bucket.write(result_key(plan.run), msgspec.json.encode(result))
    return result


def _read_ended(bucket: Bucket, run: str, shards: Sequence[Shard]) -> Ended:
    """Read what became of every shard: its report, or else why it has none."""

    def read(shard: Shard) -> ShardReport | ShardFailure:
        try:
            report = _REPORT.decode(bucket.read(shard_report_key(run, shard.number)))
            return ShardFailure("QuorumNotMet", report.cause) if report.cause is not None else report
        except ObjectMissing:
            pass
        try:
            return _FAILURE.decode(bucket.read(shard_failure_key(run, shard.number)))
        except ObjectMissing:
            return ShardFailure("NoReport", "the shard has left neither a report nor a reason")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(read, shards))
    return Ended(
        reports=tuple(one for one in found if isinstance(one, ShardReport)),
        failures={one.number: why for one, why in zip(shards, found, strict=True) if isinstance(why, ShardFailure)},
    )


def _read_summary(bucket: Bucket, key: str) -> Summary | None:
    try:
        return msgspec.json.decode(bucket.read(key), type=Summary)
    except (ObjectMissing, msgspec.DecodeError):
        return None


def _copy(bucket: Bucket, folder: str, staged: Sequence[tuple[str, int]]) -> None:
    """Copy shards' files to where they are published, each under the number of its shard."""

    def copy(source: str, shard: int) -> None:
        extension = source.partition(".")[2]
        bucket.copy(source, f"{folder}/part-{shard:0{PART_DIGITS}d}.{extension}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda one: copy(*one), staged))


def _move_latest(bucket: Bucket, plan: RunPlan) -> None:
    """Let runs of this day and of later ones be compared with this one."""
    key = latest_key(plan.output, plan.ensemble)
    whole = DaysRun(plan.run, plan.date, find_places(plan).summary)
    while True:
        held, tag = _read_latest(bucket, key)
        days = () if held is None else held.days
        if whole in days:
            return
        others = [one for one in days if one.date != whole.date]
        first, *rest = sorted([*others, whole], key=lambda one: one.date, reverse=True)[:KEPT_DAYS]
        try:
            bucket.replace(key, msgspec.json.encode(Latest(first.run, first.date, first.summary, tuple(rest))), tag)
        except PublishConflict:
            continue
        return


def _read_latest(bucket: Bucket, key: str) -> tuple[Latest | None, str | None]:
    try:
        body, tag = bucket.read_tagged(key)
    except ObjectMissing:
        return None, None
    try:
        return msgspec.json.decode(body, type=Latest), tag
    except msgspec.DecodeError:
        return None, tag


def _tidy_up(bucket: Bucket, run: str) -> None:
    """Delete what the shards left on their way; plan, claim and result stay.

    Reports go first: a shard that has one is finished, and must have its part too, if the run is ever done again.
    """
    kept = {plan_key(run), claim_key(run), result_key(run)}
    bucket.delete([listed.key for listed in bucket.list(reports_folder(run))])
    bucket.delete([listed.key for listed in bucket.list(f"{run_prefix(run)}/") if listed.key not in kept])
