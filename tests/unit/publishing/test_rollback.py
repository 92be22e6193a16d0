from __future__ import annotations

import re
from pathlib import Path

import pytest

from builders import member, sources
from memory import SLOTS, MemoryStack
from stepensemble.core.errors import NoCanary, NotEnoughSlots, ReleaseCorrupt, ReleaseNotFound
from stepensemble.publishing.manifest_loader import Sources
from stepensemble.publishing.publish import publish
from stepensemble.publishing.release_lookup import find_release, is_release_reference
from stepensemble.publishing.rollback import roll_back
from stepensemble.storage.keys import artifact_key, release_key


@pytest.fixture
def first(tmp_path: Path) -> Sources:
    return sources(tmp_path, member("a"), member("b", "sigmoid"))


@pytest.fixture
def second(tmp_path: Path) -> Sources:
    return sources(tmp_path, member("b", "sigmoid", version="2"), member("c"))


@pytest.fixture
def stack(first: Sources, second: Sources) -> MemoryStack:
    made = MemoryStack()
    made.publish(first)
    made.publish(second)
    made.artifacts.written.clear()
    return made


# Going back


def test_a_rollback_makes_the_previous_release_current_and_another_one_undoes_it(
    stack: MemoryStack, first: Sources, second: Sources
) -> None:
    done = roll_back(stack.releases, SLOTS)
    assert (done.release, done.previous, done.changed, done.ended) == (first.digest, second.digest, True, None)
    assert done.slots == {"a": "1", "b": "2"}  # b stays where it is warm, a gets the slot that c leaves
    assert stack.artifacts.written == ["current.json"]
    assert roll_back(stack.releases, SLOTS).release == second.digest
    assert [term.release for term in stack.releases.read_current()[0].history][:2] == [first.digest, second.digest]


def test_any_release_may_be_named_by_its_first_digits(stack: MemoryStack, first: Sources) -> None:
    assert roll_back(stack.releases, SLOTS, first.digest[:6]).release == first.digest


def test_the_current_release_is_no_change(stack: MemoryStack, second: Sources) -> None:
    done = roll_back(stack.releases, SLOTS, "current")
    assert (done.release, done.previous, done.changed) == (second.digest, second.digest, False)
    assert stack.artifacts.written == []


def test_a_canary_ends_with_a_rollback(stack: MemoryStack, first: Sources, tmp_path: Path) -> None:
    canary = publish(sources(tmp_path, member("a", version="3")), stack.releases, SLOTS, canary=10)
    done = roll_back(stack.releases, SLOTS)
    assert done.ended is not None
    assert (done.release, done.ended.release) == (first.digest, canary.release)
    assert stack.releases.read_current()[0].canary is None


def test_a_release_with_missing_or_damaged_artifacts_is_rejected_with_all_of_them(
    stack: MemoryStack, first: Sources, second: Sources
) -> None:
    a, b = (one.artifact for one in first.release.members)
    stack.artifacts.store.delete(artifact_key(a.digest))  # type: ignore[attr-defined] # a MemoryStore has it
    stack.artifacts.write(artifact_key(b.digest), b"damaged")
    stack.artifacts.written.clear()
    message = (
        rf"release {first.digest[:12]} cannot be served:\n- a: artifact .* is not in the bucket.*\n- b: artifact .*"
    )
    with pytest.raises(ReleaseCorrupt, match=message):
        roll_back(stack.releases, SLOTS)
    assert stack.artifacts.written == []
    assert stack.releases.read_current()[0].release == second.digest


def test_a_damaged_release_is_rejected(stack: MemoryStack, first: Sources) -> None:
    stack.artifacts.write(release_key(first.digest), b"{}")
    with pytest.raises(ReleaseCorrupt, match="does not match the digest in its name"):
        roll_back(stack.releases, SLOTS)


def test_a_release_that_needs_more_slots_than_the_stack_now_has_is_rejected(stack: MemoryStack) -> None:
    with pytest.raises(NotEnoughSlots):
        roll_back(stack.releases, {"litert": ["1"]})


def test_without_a_previous_release_there_is_no_rollback(first: Sources) -> None:
    stack = MemoryStack()
    stack.publish(first)
    with pytest.raises(ReleaseNotFound, match=f"no release was current before {first.digest[:12]}"):
        roll_back(stack.releases, SLOTS)


# References


def test_words_name_releases(stack: MemoryStack, first: Sources, second: Sources) -> None:
    assert find_release(stack.releases, "current") == second.digest
    assert find_release(stack.releases, "previous") == first.digest
    with pytest.raises(NoCanary):
        find_release(stack.releases, "canary")
    publish(first, stack.releases, SLOTS, canary=10)
    assert find_release(stack.releases, "canary") == first.digest


def test_an_unknown_beginning_is_rejected_with_the_existing_releases(
    stack: MemoryStack, first: Sources, second: Sources
) -> None:
    with pytest.raises(ReleaseNotFound, match="no release begins with 0000") as raised:
        find_release(stack.releases, "0000")
    assert first.digest[:12] in str(raised.value)
    assert second.digest[:12] in str(raised.value)


def test_an_ambiguous_beginning_is_rejected_with_enough_digits_to_distinguish_the_releases(stack: MemoryStack) -> None:
    for digest in ("abcdabcdabcdabcdaaaa", "abcdabcdabcdabcdbbbb"):
        stack.artifacts.write(release_key(digest.ljust(64, "0")), b"{}")
    message = r"2 releases begin with abcdabcdabcdabcd: abcdabcdabcdabcd\w{4}, abcdabcdabcdabcd\w{4}; give more digits"
    with pytest.raises(ReleaseNotFound, match=message):
        find_release(stack.releases, "abcdabcdabcdabcd")
    assert find_release(stack.releases, "abcdabcdabcdabcda") == "abcdabcdabcdabcdaaaa".ljust(64, "0")


@pytest.mark.parametrize("reference", ["latest", "abc", "ABCD", "", "../x"])
def test_an_invalid_reference_is_rejected_with_the_valid_forms(stack: MemoryStack, reference: str) -> None:
    assert not is_release_reference(reference)
    with pytest.raises(ReleaseNotFound, match=re.escape('one of "current", "previous", "canary"')):
        find_release(stack.releases, reference)


def test_an_empty_bucket_has_no_releases() -> None:
    with pytest.raises(ReleaseNotFound, match="no release begins with abcd; there is none"):
        find_release(MemoryStack().releases, "abcd")
