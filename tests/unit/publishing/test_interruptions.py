"""Publishing is interrupted at every call it makes to the store, and met there by another publisher."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from builders import X, fingerprint, member, sources
from meddling import Killed, MeddledBucket, kill_at
from memory import SLOTS, MemoryStack
from stepensemble.core.errors import PublishConflict, StorageUnavailable
from stepensemble.publishing.canary import abort_canary, promote_canary
from stepensemble.publishing.manifest_loader import Sources
from stepensemble.publishing.publish import publish
from stepensemble.publishing.rollback import check_artifacts, roll_back
from stepensemble.storage.releases import ReleaseStore

Work = Callable[[ReleaseStore], Any]
POSITIVE = {**X, "min": 1}


@pytest.fixture
def before(tmp_path: Path) -> Sources:
    return sources(tmp_path, member("a"), member("b", "sigmoid"), features=[POSITIVE])


@pytest.fixture
def mine(tmp_path: Path) -> Sources:
    members = member("a", "logarithm", version="mine"), member("c", "fixed_batch_one")
    return sources(tmp_path, *members, features=[POSITIVE])


@pytest.fixture
def theirs(tmp_path: Path) -> Sources:
    return sources(tmp_path, member("a", version="theirs"), member("b", "sigmoid"), features=[POSITIVE])


def publishing(published: Sources, canary: int | None = None) -> Work:
    taken = fingerprint(published)
    return lambda store: publish(published, store, SLOTS, fingerprint=taken, canary=canary)


def count_calls(stack: MemoryStack, work: Work) -> int:
    bucket = MeddledBucket(stack.artifacts)
    work(ReleaseStore(bucket))
    return int(bucket.calls)


def assert_whole(stack: MemoryStack, *allowed: str) -> str:
    """The current release, and the canary, are among these and can be served to the last byte."""
    current, _ = stack.releases.read_current()
    served = [current.release] if current.canary is None else [current.release, current.canary.release]
    for digest in served:
        assert digest in allowed
        release = stack.releases.read_release(digest)
        check_artifacts(stack.releases, digest, release)
        stack.releases.read_fingerprint(digest)
    return current.release


def stack_with(*published: Work) -> MemoryStack:
    stack = MemoryStack()
    for work in published:
        work(stack.releases)
    return stack


@pytest.mark.parametrize("canary", [None, 10])
@pytest.mark.parametrize("late", [False, True])
def test_a_crash_at_any_call_leaves_a_complete_release_and_a_retry_succeeds(
    before: Sources, mine: Sources, late: bool, canary: int | None
) -> None:
    calls = count_calls(stack_with(publishing(before)), publishing(mine, canary))
    assert calls > 10
    for number in range(calls):
        stack = stack_with(publishing(before))
        meddler = {"after" if late else "before": kill_at(number)}
        with pytest.raises(Killed):
            publishing(mine, canary)(ReleaseStore(MeddledBucket(stack.artifacts, **meddler)))
        moved = late and number == calls - 1  # the last call moves the pointer
        assert_whole(stack, before.digest, *([mine.digest] if moved else []))
        publishing(mine, canary)(stack.releases)
        assert assert_whole(stack, mine.digest, before.digest) == (before if canary else mine).digest
        current, _ = stack.releases.read_current()
        assert [term.release for term in current.history] == ([] if canary else [before.digest])


def test_a_crash_of_the_first_publish_leaves_nothing_published(mine: Sources) -> None:
    for number in range(count_calls(MemoryStack(), publishing(mine))):
        stack = MemoryStack()
        with pytest.raises(Killed):
            publishing(mine)(ReleaseStore(MeddledBucket(stack.artifacts, kill_at(number))))
        publishing(mine)(stack.releases)
        assert assert_whole(stack, mine.digest) == mine.digest


@pytest.mark.parametrize(
    "work",
    [lambda store: roll_back(store, SLOTS), promote_canary, abort_canary],
    ids=["roll back", "promote a canary", "abort a canary"],
)
def test_every_operation_moves_the_pointer_last(before: Sources, mine: Sources, work: Work) -> None:
    def prepared() -> MemoryStack:
        return stack_with(publishing(before), publishing(mine), publishing(before, 10))

    start = prepared().releases.read_current()[0]
    calls = count_calls(prepared(), work)
    for number in range(calls):
        stack = prepared()
        with pytest.raises(Killed):
            work(ReleaseStore(MeddledBucket(stack.artifacts, kill_at(number))))
        current, _ = stack.releases.read_current()
        assert (current.release, current.slots) == (start.release, start.slots)
        assert current.canary is not None
        work(stack.releases)
        assert_whole(stack, before.digest, mine.digest)
        assert stack.releases.read_current()[0].canary is None


def test_of_two_concurrent_publishers_one_gets_a_conflict_and_nothing_is_lost(
    before: Sources, mine: Sources, theirs: Sources
) -> None:
    conflicts = 0
    calls = count_calls(stack_with(publishing(before)), publishing(mine))
    for number in range(calls):
        stack = stack_with(publishing(before))
        meanwhile = publishing(theirs)

        def meddle(call: int, *, moment: int = number, stack: MemoryStack = stack, work: Work = meanwhile) -> None:
            if call == moment:
                work(stack.releases)

        with suppress(PublishConflict):
            publishing(mine)(ReleaseStore(MeddledBucket(stack.artifacts, meddle)))
            assert number == 0, "a publisher that read the pointer before the other moved it must get a conflict"
        current = assert_whole(stack, mine.digest, theirs.digest)
        history = [term.release for term in stack.releases.read_current()[0].history]
        if current == mine.digest:
            assert history == [theirs.digest, before.digest]
        else:
            assert history == [before.digest]
            conflicts += 1
    assert conflicts == calls - 1


def test_two_first_publishers_conflict_too(mine: Sources, theirs: Sources) -> None:
    stack = MemoryStack()

    def meddle(call: int) -> None:
        if call == 1:
            publishing(theirs)(stack.releases)

    with pytest.raises(PublishConflict, match=r"current\.json was changed at the same time by another process"):
        publishing(mine)(ReleaseStore(MeddledBucket(stack.artifacts, meddle)))
    assert assert_whole(stack, theirs.digest) == theirs.digest


def test_a_move_whose_response_was_lost_does_not_conflict_with_itself(before: Sources, mine: Sources) -> None:
    class Forgetful(MeddledBucket):
        """Like a client that retries because the first response was lost."""

        def replace(self, key: str, body: bytes, tag: str | None) -> None:
            super().replace(key, body, tag)
            super().replace(key, body, tag)

    stack = stack_with(publishing(before))
    publishing(mine)(ReleaseStore(Forgetful(stack.artifacts)))
    assert assert_whole(stack, mine.digest) == mine.digest


def test_a_store_that_fails_is_raised_and_changes_nothing(before: Sources, mine: Sources) -> None:
    stack = stack_with(publishing(before))

    def fail(call: int) -> None:
        if call == 5:
            raise StorageUnavailable("S3 is down")

    with pytest.raises(StorageUnavailable):
        publishing(mine)(ReleaseStore(MeddledBucket(stack.artifacts, fail)))
    assert assert_whole(stack, before.digest) == before.digest
