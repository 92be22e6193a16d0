"""Putting a run together is interrupted at every call it makes to the store; whoever follows comes to the same."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import structs
from obstore.store import MemoryStore

from builders import BINARY, release, released
from first_use import run_watched
from meddling import Killed, MeddledBucket, kill_at
from stepensemble.batch.documents import File, Options, Result, RunPlan, Shard, ShardFailure
from stepensemble.batch.publication import Latest, publish_run, read_previous
from stepensemble.batch.report.statistics import Histogram, ShardReport, ShardStatistics
from stepensemble.batch.report.summary import RunAttempt, Summary
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
EDGES = {"x": (1.0,), "": (0.5,)}
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
    """Leave what a shard leaves that was answered."""
    bucket.write(staged_key(plan.run, "part", number, plan.options.format), f"part {number}".encode())
    if wrong:
        bucket.write(staged_key(plan.run, "rejected", number, "parquet"), f"rejected {number}".encode())
    tally = ShardStatistics(histograms={name: Histogram(edges, (wrong, 10 - wrong)) for name, edges in EDGES.items()})
    report = ShardReport(number, 10, 10 - wrong, wrong, "COMPLETE", None, tally)
    bucket.write(shard_report_key(plan.run, number), msgspec.json.encode(report))


def worked(plan: RunPlan, *, failed: bool = False) -> Bucket:
    """Return a bucket in which all shards have been done, the second with rejected rows, the third perhaps in vain."""
    bucket = Bucket("data", MemoryStore())
    work_on(bucket, plan, failed=failed)
    return bucket


def work_on(bucket: Bucket, plan: RunPlan, *, failed: bool = False) -> None:
    assert isinstance(claim(bucket, plan.run, "mine", lambda _: False), ClaimHeld)
    bucket.write(plan_key(plan.run), msgspec.json.encode(plan))
    finish_shard(bucket, plan, 0)
    finish_shard(bucket, plan, 1, wrong=2)
    if failed:
        failure = ShardFailure("QuorumNotMet", "nobody answered")
        bucket.write(shard_failure_key(plan.run, 2), msgspec.json.encode(failure))
    else:
        finish_shard(bucket, plan, 2)


def run(bucket: Bucket, plan: RunPlan, execution: str = "mine", attempt: int = 1) -> Result:
    return publish_run(bucket, plan, SHARDS, RELEASE, RunAttempt(execution, attempt, NOW), {}, lambda _: "<html>")


def contents(bucket: Bucket) -> dict[str, bytes]:
    return {listed.key: bucket.read(listed.key) for listed in bucket.list("")}


def test_rows_of_shards_that_may_fail_are_counted() -> None:
    plan = make_plan(options=Options(max_failed_shards=1))
    result = run(worked(plan, failed=True), plan)
    assert (result.rows_in, result.rows_out, result.rows_rejected, result.rows_failed) == (30, 18, 2, 10)


def test_a_shard_whose_part_is_tidied_up_is_not_taken_for_finished() -> None:
    plan = make_plan()
    counting = MeddledBucket(worked(plan))
    run(counting, plan)
    for number in range(counting.calls):
        bucket = worked(plan)
        with pytest.raises(Killed):
            run(MeddledBucket(bucket, before=kill_at(number)), plan)
        left = contents(bucket)
        assert all(staged_key(plan.run, "part", shard, "parquet") in left for shard in list_finished(bucket, plan.run))


def test_a_whole_run_is_published_and_nothing_else_is_left() -> None:
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
def test_who_is_killed_at_any_call_leaves_nothing_that_looks_whole_and_a_retry_comes_to_the_same(
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
            whole = {
                key: body for key, body in contents(bucket).items() if key.startswith("results") and "latest" not in key
            }
            assert whole == {key: body for key, body in contents(expected).items() if key in whole}
            assert len(whole) == 7
        again = claim(bucket, plan.run, successor, lambda _: False)
        if isinstance(again, RunComplete) and successor == "another":
            continue  # what else lies there expires
        run(bucket, plan, successor)
        differing = {key for key in contents(expected) if contents(expected)[key] != contents(bucket)[key]}
        assert set(contents(bucket)) == set(contents(expected))
        # Only who did it differs, if somebody else did.
        assert differing <= {claim_key(plan.run), f"{REPORTS}/summary.json"}
        assert successor == "another" or not differing


def test_a_failed_run_tells_why_and_keeps_what_its_shards_left_to_be_resumed() -> None:
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


def test_a_shard_that_left_nothing_has_failed_too() -> None:
    plan = make_plan()
    bucket = worked(plan, failed=True)
    bucket.delete([shard_failure_key(plan.run, 2)])
    with pytest.raises(BatchFailed, match="NoReport: the shard has left neither a report nor a reason"):
        run(bucket, plan)


def test_who_lost_the_run_leaves_it_alone() -> None:
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
    assert read_previous(bucket, "results", "halves", "2026-03-02") is None

    def do(run_name: str, date: str) -> Summary:
        previous = read_previous(bucket, "results", "halves", date)
        plan = make_plan(run_name, date, previous=None if previous is None else previous.key)
        work_on(bucket, plan)
        result = run(bucket, plan)
        return msgspec.json.decode(bucket.read(result.summary.removeprefix("s3://data/")), type=Summary)

    assert do("run-1", "2026-03-01").drift == ()
    second = do("run-2", "2026-03-02")
    assert second.previous == f"{REPORTS}/summary.json"
    assert [drift.name for drift in second.drift] == ["x", ""]
    assert all(drift.index == pytest.approx(0) for drift in second.drift)
    assert do("run-0", "2026-02-28").previous is None  # a day that was made up for later
    mistyped = do("run-9", "2199-12-31")
    assert mistyped.previous is not None
    assert "dt=2026-03-02/run=run-2/" in mistyped.previous
    do("run-3", "2026-03-02")  # another release's, of the same day
    latest = msgspec.json.decode(bucket.read(latest_key("results", "halves")), type=Latest)
    days = {"2199-12-31": "run-9", "2026-03-02": "run-3", "2026-03-01": "run-1", "2026-02-28": "run-0"}
    assert [(one.date, one.run) for one in latest.days] == list(days.items())
    found = read_previous(bucket, "results", "halves", "2026-03-05")
    assert found is not None
    assert "dt=2026-03-02/run=run-3/" in found.key
    assert found.edges == EDGES
    assert read_previous(bucket, "results", "halves", "2026-02-27") is None


def test_two_that_end_at_once_both_move_on_and_the_later_day_stays() -> None:
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


def test_a_run_of_no_rows_is_whole_and_nothing_is_compared_with_it() -> None:
    plan = make_plan(files=(), shards=0)
    bucket = Bucket("data", MemoryStore())
    claim(bucket, plan.run, "mine", lambda _: False)
    result = publish_run(bucket, plan, (), RELEASE, RunAttempt("mine", 1, NOW), {}, lambda _: "<html>")
    assert (result.rows_in, result.rows_out, result.rejected) == (0, 0, None)
    assert f"{RESULTS}/_SUCCESS" in contents(bucket)
    assert read_previous(bucket, "results", "halves", "2026-03-02") is None


def test_a_run_whose_results_were_deleted_is_not_compared_with_itself() -> None:
    plan = make_plan()
    bucket = worked(plan)
    run(bucket, plan)
    bucket.delete([f"{RESULTS}/_SUCCESS"])
    again = structs.replace(plan, previous=f"{REPORTS}/summary.json")
    work_on(bucket, again)
    run(bucket, again)
    assert msgspec.json.decode(bucket.read(f"{REPORTS}/summary.json"), type=Summary).drift == ()
    assert not list(bucket.list(f"{run_prefix(plan.run)}/reports/"))


def test_shards_that_are_read_together_meet_no_type_for_the_first_time() -> None:
    run_watched(
        """
        from obstore.store import MemoryStore
        from stepensemble.batch.publication import _read_ended
        from stepensemble.batch.documents import Shard
        from stepensemble.storage.keys import shard_failure_key
        from stepensemble.storage.objects import Bucket

        bucket = Bucket("data", MemoryStore())
        bucket.write(shard_failure_key("run", 1), b'{"error": "Killed", "cause": "it was killed"}')
        ended = _read_ended(bucket, "run", [Shard(number, 0, 0, 1, 2, 1) for number in range(3)])
        assert [one.error for one in ended.failures.values()] == ["NoReport", "Killed", "NoReport"]
        """
    )
