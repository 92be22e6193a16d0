"""Exactly one execution at a time holds the claim on a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Semaphore, Thread

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from meddling import Killed, MeddledBucket, kill_at
from stepensemble.batch.documents import Result
from stepensemble.batch.run_lock import (
    Claim,
    ClaimedElsewhere,
    ClaimHeld,
    ClaimOutcome,
    RunComplete,
    claim,
    holds_claim,
    list_finished,
    read_result,
)
from stepensemble.storage.keys import claim_key, partition, result_key, shard_report_key, success_key
from stepensemble.storage.objects import Bucket

RUN = "0123456789abcdef"
FOLDER = partition("results", "halves", "2026-03-01", RUN)
RESULT = Result(
    RUN, "2026-03-01", "r" * 64, 10, 9, 1, 0, f"s3://data/{FOLDER}/", None, "s3://data/report.html", "s3://data/s.json"
)


@pytest.fixture
def bucket() -> Bucket:
    return Bucket("data", MemoryStore())


def everybody(_: str) -> bool:
    return True


def not_running(_: str) -> bool:
    return False


def finish(bucket: Bucket) -> None:
    bucket.write(success_key(FOLDER), b"")
    bucket.write(result_key(RUN), msgspec.json.encode(RESULT))


def test_the_first_execution_holds_the_claim_and_claiming_again_changes_nothing(bucket: Bucket) -> None:
    assert claim(bucket, RUN, "first", everybody) == ClaimHeld(1)
    assert claim(bucket, RUN, "first", everybody) == ClaimHeld(1)
    assert holds_claim(bucket, RUN, "first")
    assert not holds_claim(bucket, RUN, "second")
    assert not holds_claim(bucket, "another", "first")


def test_a_second_execution_waits_for_a_running_one_and_takes_over_from_a_stopped_one(bucket: Bucket) -> None:
    claim(bucket, RUN, "first", not_running)
    assert claim(bucket, RUN, "second", everybody) == ClaimedElsewhere("first")
    assert claim(bucket, RUN, "second", not_running) == ClaimHeld(2)
    assert not holds_claim(bucket, RUN, "first")
    assert claim(bucket, RUN, "third", lambda execution: execution == "second") == ClaimedElsewhere("second")


def test_a_complete_run_is_not_claimed(bucket: Bucket) -> None:
    claim(bucket, RUN, "first", not_running)
    finish(bucket)
    assert claim(bucket, RUN, "second", not_running) == RunComplete(RESULT)
    assert claim(bucket, RUN, "first", not_running) == RunComplete(RESULT)
    assert holds_claim(bucket, RUN, "first")


def test_a_run_that_completes_while_it_is_claimed_is_not_taken_over(bucket: Bucket) -> None:
    claim(bucket, RUN, "first", not_running)

    def ends_now(_: str) -> bool:
        finish(bucket)
        return False

    assert claim(bucket, RUN, "second", ends_now) == RunComplete(RESULT)


def test_a_run_whose_results_were_deleted_is_repeated(bucket: Bucket) -> None:
    claim(bucket, RUN, "first", not_running)
    finish(bucket)
    bucket.delete([success_key(FOLDER)])
    assert read_result(bucket, RUN) is None
    assert claim(bucket, RUN, "second", not_running) == ClaimHeld(2)


def test_of_many_threads_exactly_one_wins(bucket: Bucket) -> None:
    for held in (None, Claim("dead", 3)):
        bucket.delete([claim_key(RUN)])
        if held is not None:
            bucket.write(claim_key(RUN), msgspec.json.encode(held))
        start = Barrier(16)

        def race(name: str, start: Barrier = start) -> ClaimOutcome:
            start.wait()
            return claim(bucket, RUN, name, lambda execution: execution != "dead")

        with ThreadPoolExecutor(16) as pool:
            claims = list(pool.map(race, map(str, range(16))))
        (winner,) = (number for number, claimed in enumerate(claims) if isinstance(claimed, ClaimHeld))
        assert claims[winner] == ClaimHeld(1 if held is None else 4)
        assert all(
            claimed == ClaimedElsewhere(str(winner)) for number, claimed in enumerate(claims) if number != winner
        )


def interleave(works: Sequence[Callable[[Callable[[int], None]], None]], order: Sequence[int]) -> None:
    """Run functions in threads, one call at a time: `order` repeatedly decides whose next call may proceed.

    Each work is given what it has to call before every step.
    """
    turns, steps = [Semaphore(0) for _ in works], Semaphore(0)
    ended: set[int] = set()

    def go(number: int) -> None:
        def wait_for_turn(_: int) -> None:
            steps.release()
            turns[number].acquire()

        try:
            works[number](wait_for_turn)
        finally:
            ended.add(number)
            steps.release()

    threads = [Thread(target=go, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
        steps.acquire()
    choices = iter(order)
    while len(ended) < len(works):
        going = [number for number in range(len(works)) if number not in ended]
        turns[going[next(choices, 0) % len(going)]].release()
        steps.acquire()
    for thread in threads:
        thread.join()


@given(
    st.integers(2, 4),
    st.sampled_from([None, "dead", "running"]),
    st.lists(st.integers(0, 3), max_size=24),
)
def test_in_every_order_of_their_calls_exactly_one_wins(many: int, holder: str | None, order: list[int]) -> None:
    bucket = Bucket("data", MemoryStore())
    if holder is not None:
        bucket.write(claim_key(RUN), msgspec.json.encode(Claim(holder, 1)))
    claims: dict[str, ClaimOutcome] = {}

    def asking(name: str) -> Callable[[Callable[[int], None]], None]:
        def claimer(before: Callable[[int], None]) -> None:
            claims[name] = claim(MeddledBucket(bucket, before), RUN, name, lambda execution: execution != "dead")

        return claimer

    interleave([asking(str(number)) for number in range(many)], order)
    winners = [name for name, claimed in claims.items() if isinstance(claimed, ClaimHeld)]
    assert len(winners) == (0 if holder == "running" else 1)
    winner = winners[0] if winners else "running"
    assert all(claimed == ClaimedElsewhere(winner) for name, claimed in claims.items() if name != winner)
    assert holds_claim(bucket, RUN, winner)


def test_a_claim_whose_response_was_lost_is_still_held(bucket: Bucket) -> None:
    class Forgetful(MeddledBucket):
        """A client that retries because the first response was lost."""

        def replace(self, key: str, body: bytes, tag: str | None) -> None:
            super().replace(key, body, tag)
            super().replace(key, body, tag)

    assert claim(Forgetful(bucket), RUN, "first", everybody) == ClaimHeld(1)
    assert claim(Forgetful(bucket), RUN, "second", not_running) == ClaimHeld(2)


def test_an_execution_killed_while_claiming_is_taken_over(bucket: Bucket) -> None:
    for number in range(3):
        with pytest.raises(Killed):
            claim(MeddledBucket(bucket, kill_at(number)), RUN, "killed", everybody)
    with pytest.raises(Killed):
        claim(MeddledBucket(bucket, after=kill_at(2)), RUN, "killed", everybody)
    assert holds_claim(bucket, RUN, "killed")
    assert claim(bucket, RUN, "next", not_running) == ClaimHeld(2)


def test_shards_with_reports_are_finished(bucket: Bucket) -> None:
    assert list_finished(bucket, RUN) == frozenset()
    for shard in (0, 7, 123_456):
        bucket.write(shard_report_key(RUN, shard), b"{}")
    assert list_finished(bucket, RUN) == {0, 7, 123_456}
