"""Publishes a run: computes its summary, copies the shards' files, and marks the run as complete, last.

The order is: parts are copied; `summary.json` and `report.html` are written; then the empty `_SUCCESS` beside the
parts; then `result.json`, which marks the run as complete; then the shards' intermediate objects are deleted. If an
execution is stopped in between, the next one repeats all steps with the same result, since each step writes the same
bytes again.

A failed run publishes its rejected rows, summary and report. Its intermediate objects stay, so that it can be resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from stepensemble.batch.documents import BinEdges, Result, RunPlan, Shard, ShardFailure
from stepensemble.batch.report.statistics import ShardReport
from stepensemble.batch.report.summary import RunContext, RunLocations, ShardOutcomes, Summary, summarize
from stepensemble.batch.run_lock import holds_claim, read_result
from stepensemble.batch.stored_documents import decode_shard_report, decode_summary
from stepensemble.core.errors import BatchFailed, DatasetChanged, ObjectMissing, PublishConflict, RunTakenOver
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

CONNECTIONS = 16
"""Objects that are read or copied at the same time."""

PART_DIGITS = 5

# Built here, before there are threads: msgspec builds a type's decoder when it is first needed, and two threads that do
# so at the same time end the process.
_FAILURE = msgspec.json.Decoder(ShardFailure)

KEPT_DAYS = 400
"""How many days are in the list of an ensemble's runs, so that a run can be compared with one of an earlier day."""


class DaysRun(Struct, frozen=True):
    """The complete run of a day: the last one, if there are several.

    Attributes:
        summary: the key of its summary.
    """

    run: str
    date: str
    summary: str


class Latest(DaysRun, frozen=True):
    """The complete run of the latest day, and those of earlier days, latest first."""

    earlier: tuple[DaysRun, ...] = ()

    @property
    def days(self) -> tuple[DaysRun, ...]:
        """All of them, latest first."""
        return (DaysRun(self.run, self.date, self.summary), *self.earlier)


class PreviousRun(Struct, frozen=True):
    """The run that the next one is compared with: the key of its summary, and the edges of its histograms."""

    summary: str
    edges: BinEdges


@dataclass(frozen=True, slots=True)
class OutputFolders:
    """Where a run's files are stored in the data bucket: prefixes without a slash at the end."""

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


def locate_outputs(plan: RunPlan) -> OutputFolders:
    """Return where a run's files are stored."""
    kinds = ("", "-rejected", "-reports")
    return OutputFolders(*(partition(f"{plan.output}{kind}", plan.ensemble, plan.date, plan.run) for kind in kinds))


def find_previous_run(bucket: Bucket, output: str, ensemble: str, date: str) -> PreviousRun | None:
    """Return the run that the next one is compared with: of the same day, or of the latest day before; None if none is.

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
        histograms = decode_summary(bucket.read(found.summary)).histograms
    except (ObjectMissing, msgspec.DecodeError):  # deleted, or of a version that is not read: there is no previous run
        return None
    edges = BinEdges(
        histograms.prediction.edges if histograms.prediction else (),
        {name: one.edges for name, one in histograms.features.items()},
    )
    return PreviousRun(found.summary, edges)


def publish_run(bucket: Bucket, run: RunContext, draw: Callable[[Summary], str]) -> Result:
    """Summarize what the shards reported, publish it, and return the run's result.

    Args:
        bucket: with the data.
        run: the run.
        draw: returns the report for a summary.

    Raises:
        BatchFailed: the run exceeds its limits, or rows are lost; summary, report and rejected rows are published.
        DatasetChanged: a file was changed or removed during the run; published is the same.
        RunTakenOver: another execution has taken over the run.
    """
    plan = run.plan
    if not holds_claim(bucket, plan.run, run.attempt.execution):
        raise RunTakenOver(f"run {plan.run} was taken over by another execution; follow that one")
    result = read_result(bucket, plan.run)
    if result is None:
        result = _publish(bucket, run, draw)
    if result.rows_out:  # no later run can be compared with an empty one
        _move_latest(bucket, plan)
    _delete_intermediate(bucket, plan.run)
    return result


def _publish(bucket: Bucket, run: RunContext, draw: Callable[[Summary], str]) -> Result:
    plan = run.plan
    folders = locate_outputs(plan)
    outcomes = _read_outcomes(bucket, plan.run, run.shards)
    previous = None if plan.previous_summary is None else _read_summary(bucket, plan.previous_summary)
    if previous is not None and previous.run == plan.run:  # this run, whose results were deleted and are made again
        previous = None
    locations = RunLocations(
        *(bucket.pointer(key).s3 for key in (f"{folders.results}/", f"{folders.rejected}/", folders.report))
    )
    summary = summarize(run, outcomes, previous, locations)
    if summary.cause is None:
        parts = [
            (staged_key(plan.run, "part", one.number, plan.options.format), one.number) for one in outcomes.reports
        ]
        _copy(bucket, folders.results, parts)
    rejected = [one.number for one in outcomes.reports if one.rows_rejected]
    _copy(bucket, folders.rejected, [(staged_key(plan.run, "rejected", one, "parquet"), one) for one in rejected])
    bucket.write(folders.summary, msgspec.json.format(msgspec.json.encode(summary), indent=1))
    bucket.write(folders.report, draw(summary).encode())
    if summary.cause is not None:
        message = f"{summary.cause}\nsummary: {bucket.pointer(folders.summary).s3}"
        raise DatasetChanged(message) if outcomes.changed else BatchFailed(message)
    bucket.write(success_key(folders.results), b"")
    result = Result(
        run=plan.run,
        date=plan.date,
        release=plan.release,
        rows_in=summary.rows,
        rows_out=summary.rows_out,
        rows_rejected=summary.rows_rejected,
        needs_review=summary.needs_review,
        results=locations.results,
        rejected=summary.rejected,
        report=summary.report,
        summary=bucket.pointer(folders.summary).s3,
        rows_failed=summary.rows_failed,
    )
    bucket.write(result_key(plan.run), msgspec.json.encode(result))
    return result


def _read_outcomes(bucket: Bucket, run: str, shards: Sequence[Shard]) -> ShardOutcomes:
    """Read for every shard its report or, if it has none, why it failed."""

    def read(shard: Shard) -> ShardReport | ShardFailure:
        try:
            report = decode_shard_report(bucket.read(shard_report_key(run, shard.number)))
            return ShardFailure("QuorumNotMet", report.cause) if report.cause is not None else report
        except ObjectMissing:
            pass
        try:
            return _FAILURE.decode(bucket.read(shard_failure_key(run, shard.number)))
        except ObjectMissing:
            return ShardFailure("NoReport", "the shard stored neither a report nor a failure")

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        found = list(pool.map(read, shards))
    return ShardOutcomes(
        reports=tuple(one for one in found if isinstance(one, ShardReport)),
        failures={shard.number: one for shard, one in zip(shards, found, strict=True) if isinstance(one, ShardFailure)},
    )


def _read_summary(bucket: Bucket, key: str) -> Summary | None:
    try:
        return decode_summary(bucket.read(key))
    except (ObjectMissing, msgspec.DecodeError):
        return None


def _copy(bucket: Bucket, folder: str, staged: Sequence[tuple[str, int]]) -> None:
    """Copy shards' files to a published folder, each under the number of its shard."""

    def copy(source: str, shard: int) -> None:
        extension = source.partition(".")[2]
        bucket.copy(source, f"{folder}/part-{shard:0{PART_DIGITS}d}.{extension}")

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(lambda one: copy(*one), staged))


def _move_latest(bucket: Bucket, plan: RunPlan) -> None:
    """Add this run to the list that later runs find the previous one in."""
    key = latest_key(plan.output, plan.ensemble)
    this = DaysRun(plan.run, plan.date, locate_outputs(plan).summary)
    while True:
        latest, etag = _read_latest(bucket, key)
        days = () if latest is None else latest.days
        if this in days:
            return
        others = [one for one in days if one.date != this.date]
        first, *rest = sorted([*others, this], key=lambda one: one.date, reverse=True)[:KEPT_DAYS]
        try:
            bucket.replace(key, msgspec.json.encode(Latest(first.run, first.date, first.summary, tuple(rest))), etag)
        except PublishConflict:
            continue
        return


def _read_latest(bucket: Bucket, key: str) -> tuple[Latest | None, str | None]:
    try:
        body, etag = bucket.read_tagged(key)
    except ObjectMissing:
        return None, None
    try:
        return msgspec.json.decode(body, type=Latest), etag
    except msgspec.DecodeError:
        return None, etag


def _delete_intermediate(bucket: Bucket, run: str) -> None:
    """Delete the shards' intermediate objects; plan, claim and result stay.

    Reports are deleted first: a shard with a report counts as finished and must have its part, if the run is repeated.
    """
    kept = {plan_key(run), claim_key(run), result_key(run)}
    bucket.delete([listed.key for listed in bucket.list(reports_folder(run))])
    bucket.delete([listed.key for listed in bucket.list(f"{run_prefix(run)}/") if listed.key not in kept])
