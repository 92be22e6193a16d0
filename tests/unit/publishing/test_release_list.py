from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from builders import member, sources
from memory import SLOTS, MemoryStack
from stepensemble.publishing.publish import publish
from stepensemble.publishing.release_list import read_overview
from stepensemble.publishing.rollback import roll_back
from stepensemble.storage.keys import release_key


def test_an_empty_stack_has_nothing() -> None:
    seen = read_overview(MemoryStack().releases, 20)
    assert (seen.current, seen.canary, seen.history, seen.total, seen.releases) == (None, None, (), 0, ())


def test_every_release_is_listed_with_its_members_and_state(tmp_path: Path) -> None:
    stack = MemoryStack()
    first = stack.publish(sources(tmp_path, member("a"), member("b", role="shadow")))
    stack.now += timedelta(days=1)
    second = stack.publish(sources(tmp_path, member("a", version="2")))
    coming = sources(tmp_path, member("a", version="3"))
    third = publish(coming, stack.releases, SLOTS, canary=10, now=lambda: stack.now)
    seen = read_overview(stack.releases, 20)
    assert (seen.current, seen.since) == (second.release, "2026-03-02T12:00:00.000+00:00")
    assert (seen.canary, seen.percent, seen.canary_since) == (third.release, 10, "2026-03-02T12:00:00.000+00:00")
    assert [(term.release, term.since) for term in seen.history] == [(first.release, "2026-03-01T12:00:00.000+00:00")]
    states = {line.release: line.state for line in seen.releases}
    assert states == {first.release: None, second.release: "current", third.release: "canary"}
    members = {line.release: [(one.id, one.version, one.role) for one in line.members] for line in seen.releases}
    assert members[first.release] == [("a", "1", "voter"), ("b", "1", "shadow")]
    assert members[third.release] == [("a", "3", "voter")]


def test_the_newest_come_first_and_the_others_are_counted(tmp_path: Path) -> None:
    stack = MemoryStack()
    digests = [stack.publish(sources(tmp_path, member(version=str(number)))).release for number in range(3)]
    seen = read_overview(stack.releases, 2)
    assert seen.total == 3
    assert [line.release for line in seen.releases] == digests[:0:-1]


def test_served_releases_are_listed_at_any_age(tmp_path: Path) -> None:
    stack = MemoryStack()
    digests = [stack.publish(sources(tmp_path, member(version=str(number)))).release for number in range(4)]
    roll_back(stack.releases, SLOTS, digests[0])
    publish(sources(tmp_path, member(version="1")), stack.releases, SLOTS, canary=10)
    lines = read_overview(stack.releases, 1).releases
    assert [(line.release, line.state) for line in lines] == [
        (digests[3], None),
        (digests[1], "canary"),
        (digests[0], "current"),
    ]


def test_a_release_that_cannot_be_read_is_listed_with_the_reason(tmp_path: Path) -> None:
    stack = MemoryStack()
    done = stack.publish(sources(tmp_path))
    stack.artifacts.write(release_key(done.release), b"{}")
    (line,) = read_overview(stack.releases, 20).releases
    assert (line.state, line.members) == ("current", ())
    assert line.problem is not None
    assert "does not match the digest in its name" in line.problem
