from __future__ import annotations

from pathlib import Path

import pytest

from builders import fingerprint, member, sources
from memory import SLOTS, MemoryStack
from stepensemble.core.errors import ArtifactCorrupt, CanaryConflict, PublishConflict, ReleaseCorrupt
from stepensemble.publishing.manifest_loader import Sources
from stepensemble.publishing.promotion import fetch_release
from stepensemble.publishing.publish import apply_plan, plan, publish
from stepensemble.storage.keys import CURRENT, artifact_key, fingerprint_key, release_key

TWO = {"litert": ["x", "y"]}


@pytest.fixture
def passed(tmp_path: Path) -> Sources:
    return sources(tmp_path, member("a", version="2"), member("b", "sigmoid"))


@pytest.fixture
def dev(passed: Sources) -> MemoryStack:
    stack = MemoryStack()
    publish(passed, stack.releases, SLOTS, fingerprint=fingerprint(passed))
    return stack


@pytest.fixture
def prod(tmp_path: Path) -> MemoryStack:
    """A stack of fewer slots and other names, that serves something else."""
    stack = MemoryStack()
    publish(sources(tmp_path, member("c"), member("a")), stack.releases, TWO)
    stack.artifacts.written.clear()
    return stack


def test_a_promotion_copies_the_same_bytes_under_the_same_names(
    dev: MemoryStack, prod: MemoryStack, passed: Sources
) -> None:
    planned = plan(fetch_release(dev.releases, passed.digest), prod.releases, TWO)
    assert [one.id for one in planned.uploads] == ["b"]  # a's artifact is what prod has already
    assert prod.artifacts.written == []
    done = apply_plan(planned, prod.releases)
    assert (done.release, done.uploaded, done.slots) == (passed.digest, ("b",), {"a": "y", "b": "x"})
    keys = [artifact_key(passed.release.members[1].artifact.digest), release_key(passed.digest)]
    assert prod.artifacts.written == [*keys, fingerprint_key(passed.digest), CURRENT]
    for key in prod.artifacts.written[:-1]:
        assert prod.artifacts.read(key) == dev.artifacts.read(key)
    assert prod.releases.read_current()[0].release == passed.digest


def test_promoting_the_current_release_changes_nothing(dev: MemoryStack, passed: Sources) -> None:
    planned = plan(fetch_release(dev.releases, passed.digest), dev.releases, SLOTS)
    assert (planned.changed, planned.uploads) == (False, ())


def test_a_release_without_a_fingerprint_is_promoted_without_one(prod: MemoryStack, passed: Sources) -> None:
    stack = MemoryStack()
    stack.publish(passed)
    assert fetch_release(stack.releases, passed.digest).fingerprint is None
    apply_plan(plan(fetch_release(stack.releases, passed.digest), prod.releases, TWO), prod.releases)
    assert prod.releases.read_current()[0].release == passed.digest


def test_a_damaged_source_does_not_change_the_target(dev: MemoryStack, prod: MemoryStack, passed: Sources) -> None:
    before = prod.releases.read_current()[0]
    dev.artifacts.write(artifact_key(passed.release.members[1].artifact.digest), b"damaged")
    with pytest.raises(ArtifactCorrupt):
        apply_plan(plan(fetch_release(dev.releases, passed.digest), prod.releases, TWO), prod.releases)
    dev.artifacts.write(release_key(passed.digest), b"{}")
    with pytest.raises(ReleaseCorrupt):
        fetch_release(dev.releases, passed.digest)
    assert prod.releases.read_current()[0] == before


def test_a_publish_to_the_target_after_the_plan_wins(
    dev: MemoryStack, prod: MemoryStack, passed: Sources, tmp_path: Path
) -> None:
    planned = plan(fetch_release(dev.releases, passed.digest), prod.releases, TWO)
    theirs = publish(sources(tmp_path, member("theirs")), prod.releases, TWO)
    with pytest.raises(PublishConflict):
        apply_plan(planned, prod.releases)
    assert prod.releases.read_current()[0].release == theirs.release


def test_a_canary_on_the_target_must_be_ended_first(
    dev: MemoryStack, prod: MemoryStack, passed: Sources, tmp_path: Path
) -> None:
    publish(sources(tmp_path, member("a", version="3")), prod.releases, TWO, canary=10)
    with pytest.raises(CanaryConflict):
        plan(fetch_release(dev.releases, passed.digest), prod.releases, TWO)
