"""Publishing a run is interrupted at every call to the store; the next attempt must have the same result."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import structs
from obstore.store import MemoryStore

from builders import BINARY, release, released
from first_use import run_watched
from meddling import Killed, MeddledBucket, kill_at
from stepensemble.batch.documents import BinEdges, File, Options, Result, RunPlan, Shard, ShardFailure
from stepensemble.batch.publication import Latest, find_previous_run, publish_run
from stepensemble.batch.report.statistics import Histogram, Histograms, ShardReport, ShardStatistics
from stepensemble.batch.report.summary import Drift, RunAttempt, RunContext, Summary
from stepensemble.batch.run_lock import ClaimHeld, RunComplete, claim, list_finished
from stepensemble.core.errors import BatchFailed, RunTakenOver
from stepensemble.storage.keys import (
    claim_key,
    latest_key,
    plan_key,
    result_key,
    run_prefix,
    shard_failure_key,
    shard_report_key,
    staged_key,
)
from stepensemble.storage.objects import Bucket

RELEASE = release(BINARY, released("a", "probability"))
NOW = "2026-03-01T05:01:30Z"
EDGES = BinEdges((0.5,), {"x": (1.0,)})
RESULTS = "results/ensemble=halves/dt=2026-03-01/run=run-1"
REJECTED = "results-rejected/ensemble=halves/dt=2026-03-01/run=run-1"
REPORTS = "results-reports/ensemble=halves/dt=2026-03-01/run=run-1"
SHARDS = tuple(Shard(number, 0, 10 * number, 10 * number + 10, 10 * number + 1, 10) for number in range(3))


def make_plan(run: str = "run-1", date: str = "2026-03-01", **more: Any) -> RunPlan:
    known: dict[str, Any] = {
        "run": run,
        "execution": "first",
        "started_at": "2026-03-01T05:00:00Z",
        "ensemble": "halves",
        "release": "r" * 64,
        "slots": {},
        "dataset": "s3://data/datasets/",
        "date": date,
        "output": "results",
        "options": Options(),
        "files": (File("datasets/a.csv", "a.csv", 30, "1", "csv", rows=30),),
        "columns": ("x",),
        "shards": len(SHARDS),
        "edges": EDGES,
    }
    return RunPlan(**known | more)


def finish_shard(bucket: Bucket, plan: RunPlan, number: int, wrong: int = 0) -> None:
    """Store what a shard stores that succeeded."""
    bucket.write(staged_key(plan.run, "part", number, plan.options.format), f"part {number}".encode())
    if wrong:
        bucket.write(staged_key(plan.run, "rejected", number, "parquet"), f"rejected {number}".encode())
    counts = (wrong, 10 - wrong)
    histograms = Histograms(Histogram((0.5,), counts), {"x": Histogram((1.0,), counts)})
    statistics = ShardStatistics(histograms=histograms)
    report = ShardReport(number, 10, 10 - wrong, wrong, "COMPLETE", None, statistics)
    bucket.write(shard_report_key(plan.run, number), msgspec.json.encode(report))


def worked(plan: RunPlan, *, failed: bool = False) -> Bucket:
    """Return a bucket in which all shards have ended: the second has rejected rows, the third may have failed."""
    bucket = Bucket("data", MemoryStore())
    work_on(bucket, plan, failed=failed)
    return bucket


def work_on(bucket: Bucket, plan: RunPlan, *, failed: bool = False) -> None:
    assert isinstance(claim(bucket, plan.run, "mine", lambda _: False), ClaimHeld)
    bucket.write(plan_key(plan.run), msgspec.json.encode(plan))
    finish_shard(bucket, plan, 0)
    finish_shard(bucket, plan, 1, wrong=2)
    if failed:
        failure = ShardFailure("QuorumNotMet", "no member responded")
        bucket.write(shard_failure_key(plan.run, 2), msgspec.json.encode(failure))
    else:
        finish_shard(bucket, plan, 2)


def run(bucket: Bucket, plan: RunPlan, execution: str = "mine", attempt: int = 1) -> Result:
    context = RunContext(plan, SHARDS, RELEASE, RunAttempt(execution, attempt, NOW), {})
    return publish_run(bucket, context, lambda _: "<html>")


def contents(bucket: Bucket) -> dict[str, bytes]:
    return {listed.key: bucket.read(listed.key) for listed in bucket.list("")}


def test_rows_of_shards_that_may_fail_are_counted() -> None:
    plan = make_plan(options=Options(max_failed_shards=1))
    result = run(worked(plan, failed=True), plan)
    assert (result.rows_in, result.rows_out, result.rows_rejected, result.rows_failed) == (30, 18, 2, 10)


def test_a_shard_whose_part_was_deleted_does_not_count_as_finished() -> None:
    plan = make_plan()
    counting = MeddledBucket(worked(plan))
    run(counting, plan)
    for number in range(counting.calls):
        bucket = worked(plan)
        with pytest.raises(Killed):
            run(MeddledBucket(bucket, before=kill_at(number)), plan)
        left = contents(bucket)
        assert all(staged_key(plan.run, "part", shard, "parquet") in left for shard in list_finished(bucket, plan.run))


def test_a_complete_run_is_published_and_nothing_else_is_left() -> None:
    plan = make_plan()
    bucket = worked(plan)
    result = run(bucket, plan)
    left = contents(bucket)
    assert set(left) == {
        *(f"{RESULTS}/part-0000{number}.parquet" for number in range(3)),
        f"{RESULTS}/_SUCCESS",
        f"{REJECTED}/part-00001.parquet",
        f"{REPORTS}/summary.json",
        f"{REPORTS}/report.html",
        latest_key("results", "halves"),
        plan_key("run-1"),
        claim_key("run-1"),
        result_key("run-1"),
    }
    assert left[f"{RESULTS}/part-00002.parquet"] == b"part 2"
    assert left[f"{REJECTED}/part-00001.parquet"] == b"rejected 1"
    summary = msgspec.json.decode(left[f"{REPORTS}/summary.json"], type=Summary)
    assert (summary.rows, summary.rows_out, summary.rows_rejected, summary.finished_at) == (30, 28, 2, NOW)
    assert result == Result(
        "run-1", "2026-03-01", "r" * 64, 30, 28, 2, 0,
        f"s3://data/{RESULTS}/", f"s3://data/{REJECTED}/", f"s3://data/{REPORTS}/report.html",
        f"s3://data/{REPORTS}/summary.json",
    )  # fmt: skip
    assert claim(bucket, "run-1", "another", lambda _: False) == RunComplete(result)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("successor", ["mine", "another"])
@pytest.mark.slow
def test_an_execution_killed_at_any_call_leaves_no_run_that_looks_complete_and_a_retry_has_the_same_result(
    late: bool, successor: str
) -> None:
    plan = make_plan()
    expected = worked(plan)
    run(expected, plan)
    counting = MeddledBucket(worked(plan))
    run(counting, plan)
    assert counting.calls > 20
    for number in range(counting.calls):
        bucket = worked(plan)
        with pytest.raises(Killed):
            run(MeddledBucket(bucket, **{"after" if late else "before": kill_at(number)}), plan)
        if f"{RESULTS}/_SUCCESS" in contents(bucket):
            published = {
                key: body for key, body in contents(bucket).items() if key.startswith("results") and "latest" not in key
            }
            assert published == {key: body for key, body in contents(expected).items() if key in published}
            assert len(published) == 7
        again = claim(bucket, plan.run, successor, lambda _: False)
        if isinstance(again, RunComplete) and successor == "another":
            continue  # other objects expire
        run(bucket, plan, successor)
        differing = {key for key in contents(expected) if contents(expected)[key] != contents(bucket)[key]}
        assert set(contents(bucket)) == set(contents(expected))
        # Only the execution differs, if it is another one.
        assert differing <= {claim_key(plan.run), f"{REPORTS}/summary.json"}
        assert successor == "another" or not differing


def test_a_failed_run_reports_its_cause_and_can_be_resumed() -> None:
    plan = make_plan()
    bucket = worked(plan, failed=True)
    with pytest.raises(
        BatchFailed, match=r"1 of 3 shards failed.*\nsummary: s3://data/results-reports/.*summary\.json"
    ):
        run(bucket, plan)
    left = contents(bucket)
    assert not any(key.startswith("results/") for key in left)
    assert f"{REJECTED}/part-00001.parquet" in left
    assert msgspec.json.decode(left[f"{REPORTS}/summary.json"], type=Summary).status == "FAILED"
    assert latest_key("results", "halves") not in left
    assert list_finished(bucket, plan.run) == {0, 1}
    assert claim(bucket, plan.run, "another", lambda _: False) == ClaimHeld(2)
    finish_shard(bucket, plan, 2)
    run(bucket, plan, "another", 2)
    assert {f"{RESULTS}/part-0000{number}.parquet" for number in range(3)} <= set(contents(bucket))
    summary = msgspec.json.decode(bucket.read(f"{REPORTS}/summary.json"), type=Summary)
    assert (summary.status, summary.attempt, summary.failed_shards) == ("SUCCEEDED", 2, 0)


def test_a_shard_that_stored_nothing_has_failed() -> None:
    plan = make_plan()
    bucket = worked(plan, failed=True)
    bucket.delete([shard_failure_key(plan.run, 2)])
    with pytest.raises(BatchFailed, match="NoReport: the shard stored neither a report nor a failure"):
        run(bucket, plan)


def test_an_execution_without_the_claim_changes_nothing() -> None:
    plan = make_plan()
    bucket = worked(plan)
    assert claim(bucket, plan.run, "another", lambda _: False) == ClaimHeld(2)
    before = contents(bucket)
    with pytest.raises(RunTakenOver):
        run(bucket, plan, "mine")
    assert contents(bucket) == before


@pytest.mark.parametrize("format_", ["csv", "jsonl"])
def test_parts_have_the_formats_extension(format_: Any) -> None:
    plan = make_plan(options=Options(format=format_))
    bucket = worked(plan)
    run(bucket, plan)
    assert f"{RESULTS}/part-00000.{format_}" in contents(bucket)


def test_the_next_run_is_compared_with_the_latest_day_before_its_own() -> None:
    bucket = Bucket("data", MemoryStore())
    assert find_previous_run(bucket, "results", "halves", "2026-03-02") is None

    def do(run_name: str, date: str) -> Summary:
        previous = find_previous_run(bucket, "results", "halves", date)
        plan = make_plan(run_name, date, previous_summary=None if previous is None else previous.summary)
        work_on(bucket, plan)
        result = run(bucket, plan)
        return msgspec.json.decode(bucket.read(result.summary.removeprefix("s3://data/")), type=Summary)

    assert do("run-1", "2026-03-01").drift is None
    second = do("run-2", "2026-03-02")
    assert second.previous_summary == f"{REPORTS}/summary.json"
    assert second.drift == Drift(pytest.approx(0), {"x": pytest.approx(0)})
    assert do("run-0", "2026-02-28").previous_summary is None  # a missed day that is run later
    mistyped = do("run-9", "2199-12-31")
    assert mistyped.previous_summary is not None
    assert "dt=2026-03-02/run=run-2/" in mistyped.previous_summary
    do("run-3", "2026-03-02")  # another release's, of the same day
    latest = msgspec.json.decode(bucket.read(latest_key("results", "halves")), type=Latest)
    days = {"2199-12-31": "run-9", "2026-03-02": "run-3", "2026-03-01": "run-1", "2026-02-28": "run-0"}
    assert [(one.date, one.run) for one in latest.days] == list(days.items())
    found = find_previous_run(bucket, "results", "halves", "2026-03-05")
    assert found is not None
    assert "dt=2026-03-02/run=run-3/" in found.summary
    assert found.edges == EDGES
    assert find_previous_run(bucket, "results", "halves", "2026-02-27") is None


def test_two_runs_that_end_at_the_same_time_are_both_listed_and_the_later_day_is_the_latest() -> None:
    early, late = make_plan("run-1", "2026-03-01"), make_plan("run-2", "2026-03-02")
    bucket = worked(early)
    work_on(bucket, late)
    calls = MeddledBucket(worked(early))
    run(calls, early)
    for number in range(calls.calls):
        bucket = worked(early)
        work_on(bucket, late)

        def meddle(call: int, number: int = number, bucket: Bucket = bucket) -> None:
            if call == number:
                run(bucket, late)

        run(MeddledBucket(bucket, meddle), early)
        assert msgspec.json.decode(bucket.read(latest_key("results", "halves")), type=Latest).run == "run-2"


def test_a_run_of_no_rows_is_complete_and_no_run_is_compared_with_it() -> None:
    plan = make_plan(files=(), shards=0)
    bucket = Bucket("data", MemoryStore())
    claim(bucket, plan.run, "mine", lambda _: False)
    context = RunContext(plan, (), RELEASE, RunAttempt("mine", 1, NOW), {})
    result = publish_run(bucket, context, lambda _: "<html>")
    assert (result.rows_in, result.rows_out, result.rejected) == (0, 0, None)
    assert f"{RESULTS}/_SUCCESS" in contents(bucket)
    assert find_previous_run(bucket, "results", "halves", "2026-03-02") is None


def test_a_run_whose_results_were_deleted_is_not_compared_with_itself() -> None:
    plan = make_plan()
    bucket = worked(plan)
    run(bucket, plan)
    bucket.delete([f"{RESULTS}/_SUCCESS"])
    again = structs.replace(plan, previous_summary=f"{REPORTS}/summary.json")
    work_on(bucket, again)
    run(bucket, again)
    assert msgspec.json.decode(bucket.read(f"{REPORTS}/summary.json"), type=Summary).drift is None
    assert not list(bucket.list(f"{run_prefix(plan.run)}/reports/"))


def test_no_decoder_is_built_while_shards_are_read_in_threads() -> None:
    run_watched(
        """
        from obstore.store import MemoryStore
        from stepensemble.batch.publication import _read_outcomes
        from stepensemble.batch.documents import Shard
        from stepensemble.storage.keys import shard_failure_key
        from stepensemble.storage.objects import Bucket

        bucket = Bucket("data", MemoryStore())
        bucket.write(shard_failure_key("run", 1), b'{"error": "Killed", "cause": "it was killed"}')
        outcomes = _read_outcomes(bucket, "run", [Shard(number, 0, 0, 1, 2, 1) for number in range(3)])
        assert [one.error for one in outcomes.failures.values()] == ["NoReport", "Killed", "NoReport"]
        """
    )
