from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from builders import X, artifact, member, released, sources
from memory import SLOTS, MemoryStack
from stepensemble import Ensemble
from stepensemble.core.aggregation.output import Output
from stepensemble.core.errors import (
    ArtifactCorrupt,
    CanaryConflict,
    NoCanary,
    NotEnoughSlots,
    NothingPublished,
)
from stepensemble.core.payload import digest_input
from stepensemble.core.record import Record
from stepensemble.core.releases.release import Release, place
from stepensemble.publishing.canary import CanaryReport, Predict, abort_canary, promote_canary, report_canary
from stepensemble.publishing.manifest_loader import Sources
from stepensemble.publishing.publish import PublishedRelease, publish
from stepensemble.storage.keys import artifact_key

CLASSES = {"task": {"type": "binary", "classes": ["no", "yes"]}}


def load(release: Release, digest: str, artifacts: Mapping[str, bytes]) -> Predict:
    ensemble = Ensemble.from_release(release, digest, artifacts)
    return lambda payload: msgspec.convert(ensemble.predict(payload), Output)


def begin(stack: MemoryStack, read: Sources, percent: int = 10) -> PublishedRelease:
    return publish(read, stack.releases, SLOTS, canary=percent, now=lambda: stack.now)


def record(stack: MemoryStack, read: Sources, payload: dict[str, Any], id_: str, **more: Any) -> Record:
    """Record an execution that a release predicted."""
    output = msgspec.convert(Ensemble.load(read.path).predict({**payload, "prediction_id": id_}), Output)
    made = Record(
        prediction_id=id_,
        release=output.release,
        execution=f"arn:{id_}",
        started_at=stack.now.isoformat(timespec="milliseconds"),
        recorded_at=stack.now.isoformat(timespec="milliseconds"),
        rows=len(output.predictions),
        input_digest=digest_input(payload),
        input=payload,
        output=output,
        **more,
    )
    assert stack.records.add(made)
    return made


def folder(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    path.mkdir()
    return path


@pytest.fixture
def stack() -> MemoryStack:
    made = MemoryStack()
    made.now = datetime.now(UTC)  # records are listed from today on
    return made


def report(stack: MemoryStack, limit: int = 200) -> CanaryReport:
    return report_canary(stack.releases, stack.records, load, limit)


# Beginning


def test_a_canary_is_published_beside_the_current_release(stack: MemoryStack, tmp_path: Path) -> None:
    first = stack.publish(sources(tmp_path, member("a"), member("b", "sigmoid")))
    done = begin(stack, sources(tmp_path, member("b", "sigmoid", version="2"), member("c")))
    assert (done.changed, done.canary, done.previous) == (True, 10, first.release)
    assert done.slots == {"b": "2", "c": "3"}  # b is in both releases; c gets a slot that the current one leaves free
    current, _ = stack.releases.read_current()
    assert (current.release, dict(current.slots)) == (first.release, {"a": "1", "b": "2"})
    assert current.canary is not None
    assert (current.canary.release, dict(current.canary.slots)) == (done.release, dict(done.slots))
    assert stack.releases.read_release(done.release).members[1].id == "c"


def test_the_share_of_a_canary_is_changed_by_publishing_it_again(stack: MemoryStack, tmp_path: Path) -> None:
    stack.publish(sources(tmp_path, member("a")))
    coming = sources(tmp_path, member("a", version="2"))
    begin(stack, coming)
    assert not begin(stack, coming).changed
    assert begin(stack, coming, 50).changed
    current, _ = stack.releases.read_current()
    assert current.canary is not None
    assert current.canary.percent == 50


def test_an_impossible_canary_is_rejected_before_anything_is_written(stack: MemoryStack, tmp_path: Path) -> None:
    only = sources(folder(tmp_path, "1"), member("a"))
    with pytest.raises(NothingPublished, match="publish without --canary"):
        begin(stack, only)
    stack.publish(only)
    stack.artifacts.written.clear()
    with pytest.raises(CanaryConflict, match=f"release {only.digest[:12]} is the current one already"):
        begin(stack, only)
    many = sources(folder(tmp_path, "2"), *[member(f"m{number}") for number in range(8)])
    message = (
        r'8 members need as many slots, 9 with those that are taken, and the stack has 8; raise .* "Slots" .* 1,…,9'
    )
    with pytest.raises(NotEnoughSlots, match=message):
        begin(stack, many)
    assert stack.artifacts.written == []


def test_no_other_release_becomes_current_during_a_canary(stack: MemoryStack, tmp_path: Path) -> None:
    stack.publish(sources(tmp_path, member("a")))
    canary = begin(stack, sources(tmp_path, member("a", version="2")))
    stack.artifacts.written.clear()
    for percent in (None, 20):
        with pytest.raises(CanaryConflict, match=f"release {canary.release[:12]} is the canary and serves 10%"):
            publish(sources(tmp_path, member("a", version="3")), stack.releases, SLOTS, canary=percent)
    assert stack.artifacts.written == []


def test_the_current_release_may_be_published_again_beside_a_canary(stack: MemoryStack, tmp_path: Path) -> None:
    first = sources(tmp_path, member("a"))
    stack.publish(first)
    begin(stack, sources(tmp_path, member("a", version="2")))
    assert not stack.publish(first).changed
    assert stack.releases.read_current()[0].canary is not None


def test_used_slots_stay_with_their_members() -> None:
    members = [released(id_, artifact=artifact(b"")) for id_ in "abc"]
    five, three = ({"litert": ["1", "2", "3", "4", "5"][:number]} for number in (5, 3))
    assert place(members, five, {"a": "2"}, taken=["1", "2"]) == {"a": "2", "b": "3", "c": "4"}
    assert place(members, three, {"a": "1"}, taken=["9"]) == {"a": "1", "b": "2", "c": "3"}  # 9 is gone


# Ending


def test_a_promoted_canary_is_current_and_the_other_one_is_history(stack: MemoryStack, tmp_path: Path) -> None:
    first = stack.publish(sources(tmp_path, member("a")))
    canary = begin(stack, sources(tmp_path, member("b")))
    stack.now += timedelta(hours=1)
    moment = stack.now.isoformat(timespec="milliseconds")
    current = promote_canary(stack.releases, now=lambda: stack.now)
    assert stack.releases.read_current()[0] == current
    assert (current.release, current.since, current.canary) == (canary.release, moment, None)
    assert current.slots == {"b": "2"}  # where it is warm
    assert [(term.release, term.until) for term in current.history] == [(first.release, moment)]


def test_an_aborted_canary_is_removed(stack: MemoryStack, tmp_path: Path) -> None:
    stack.publish(sources(tmp_path, member("a")))
    before = stack.releases.read_current()[0]
    canary = begin(stack, sources(tmp_path, member("b")))
    assert abort_canary(stack.releases).release == canary.release
    assert stack.releases.read_current()[0] == before


def test_without_a_canary_there_is_nothing_to_report_or_to_end(stack: MemoryStack, tmp_path: Path) -> None:
    stack.publish(sources(tmp_path, member("a")))
    for work in (promote_canary, abort_canary, lambda _: report(stack)):
        with pytest.raises(NoCanary):
            work(stack.releases)


# How it fares


@pytest.fixture
def two(stack: MemoryStack, tmp_path: Path) -> tuple[Sources, Sources]:
    """The current release predicts x / 2 + 2, the canary the mean of that and of log(x)."""
    features = [{**X, "min": 1}]
    old = sources(folder(tmp_path, "old"), member("a"), features=features)
    new = sources(folder(tmp_path, "new"), member("a"), member("b", "logarithm"), features=features)
    stack.publish(old)
    begin(stack, new)
    stack.now += timedelta(seconds=1)
    return old, new


def test_executions_are_counted_and_their_values_measured(stack: MemoryStack, two: tuple[Sources, Sources]) -> None:
    old, new = two
    record(stack, old, {"instances": [{"x": 2}, {"x": 4}]}, "p1")  # 3 and 4
    record(stack, old, {"features": {"x": 6}}, "p2")  # 5
    record(stack, new, {"features": {"x": 1}}, "p3")  # (2.5 + 0) / 2
    seen = report(stack)
    assert (seen.percent, seen.current.release, seen.canary.release) == (10, old.digest, new.digest)
    assert (seen.current.executions, seen.current.statuses, seen.current.rows) == (2, {"COMPLETE": 2}, 3)
    assert seen.current.mean == pytest.approx(4)
    assert seen.current.std == pytest.approx((2 / 3) ** 0.5)
    assert (seen.canary.executions, seen.canary.mean, seen.canary.std) == (1, pytest.approx(1.25), 0.0)
    assert seen.current.labels == seen.canary.labels == {}


def test_each_release_predicts_the_others_inputs(stack: MemoryStack, two: tuple[Sources, Sources]) -> None:
    old, new = two
    record(stack, old, {"features": {"x": 1}}, "p1")  # 2.5; the canary would predict 1.25
    record(stack, new, {"features": {"x": 2}}, "p2")  # (3 + ln 2) / 2 = 1.847; the current one would predict 3
    agreement = report(stack).agreement
    assert agreement is not None
    assert (agreement.records, agreement.rows, agreement.labels_differ, agreement.rejected) == (2, 2, 0, ())
    assert agreement.shift is not None
    shifts = [
        1.25 - 2.5,
        1.846574 - 3,
    ]  # the canary's minus the current release's, whichever of them predicted in the execution
    assert agreement.shift.mean == pytest.approx(sum(shifts) / 2, abs=1e-6)
    assert agreement.shift.greatest == pytest.approx(-1.25)


def test_labels_that_differ_are_counted_by_their_change(stack: MemoryStack, tmp_path: Path) -> None:
    old = sources(folder(tmp_path, "old"), member("a", "sigmoid", "probability"), **CLASSES)
    strict = {"task": {**CLASSES["task"], "threshold": 0.9}}
    new = sources(folder(tmp_path, "new"), member("a", "sigmoid", "probability"), **strict)
    stack.publish(old)
    begin(stack, new)
    record(stack, old, {"instances": [{"x": 1}, {"x": -1}]}, "p1")  # 0.73 and 0.27: yes and no, of the canary no and no
    record(stack, new, {"instances": [{"x": 2}, {"x": 3}]}, "p2")  # 0.88 and 0.95: no and yes, before yes and yes
    seen = report(stack)
    assert seen.agreement is not None
    assert (seen.agreement.rows, seen.agreement.labels_differ) == (4, 2)
    assert [(one.change.before, one.change.after, one.count) for one in seen.agreement.flips] == [("yes", "no", 2)]
    assert seen.agreement.shift is not None
    assert seen.agreement.shift.mean_absolute == 0.0  # the probabilities are the same
    assert (seen.current.labels, seen.canary.labels) == ({"yes": 1, "no": 1}, {"no": 1, "yes": 1})


def test_earlier_records_other_releases_and_verifications_do_not_count(
    stack: MemoryStack, two: tuple[Sources, Sources], tmp_path: Path
) -> None:
    old, new = two
    other = sources(folder(tmp_path, "other"), member("a", version="9"))
    record(stack, other, {"features": {"x": 1}}, "p1")
    stack.now -= timedelta(seconds=2)
    record(stack, old, {"features": {"x": 1}}, "p2")
    stack.now += timedelta(seconds=2)
    record(stack, new, {"features": {"x": 1}}, "p3", metadata={"verify": True})
    seen = report(stack)
    assert (seen.current.executions, seen.canary.executions, seen.canary.rows) == (0, 1, 0)
    assert (seen.current.mean, seen.canary.mean) == (None, None)
    assert seen.agreement is not None
    assert (seen.agreement.rows, seen.agreement.shift) == (0, None)


def test_only_the_latest_records_are_compared_and_all_are_counted(
    stack: MemoryStack, two: tuple[Sources, Sources]
) -> None:
    old, _ = two
    for number in range(5):
        stack.now += timedelta(seconds=1)
        record(stack, old, {"features": {"x": 1 + number}}, f"p{number}")
    seen = report(stack, limit=2)
    assert seen.agreement is not None
    assert (seen.current.executions, seen.current.rows, seen.agreement.records) == (5, 2, 2)
    assert seen.current.mean == pytest.approx((4 / 2 + 2 + 5 / 2 + 2) / 2)  # x = 4 and 5


def test_inputs_that_the_other_release_rejects_are_counted_with_its_error(stack: MemoryStack, tmp_path: Path) -> None:
    old = sources(folder(tmp_path, "old"), member("a"))
    new = sources(folder(tmp_path, "new"), member("a"), features=[{**X, "max": 1}])
    stack.publish(old)
    begin(stack, new)
    record(stack, old, {"features": {"x": 1}}, "p1")
    record(stack, old, {"features": {"x": 2}}, "p2")
    agreement = report(stack).agreement
    assert agreement is not None
    assert agreement.rows == 1
    (refusal,) = agreement.rejected
    assert (refusal.release, refusal.records) == (new.digest, 1)
    assert "$.features.x: 2 is out of range" in refusal.example


def test_releases_with_different_tasks_are_not_compared(stack: MemoryStack, tmp_path: Path) -> None:
    old = sources(folder(tmp_path, "old"), member("a"))
    stack.publish(old)
    begin(stack, sources(folder(tmp_path, "new"), member("a", "sigmoid", "probability"), **CLASSES))
    record(stack, old, {"features": {"x": 1}}, "p1")
    seen = report(stack)
    assert seen.agreement is None
    assert seen.current.executions == 1


def test_a_damaged_artifact_is_never_compared(stack: MemoryStack, two: tuple[Sources, Sources]) -> None:
    _, new = two
    stack.artifacts.write(artifact_key(new.release.members[1].artifact.digest), b"damaged")
    with pytest.raises(ArtifactCorrupt):
        report(stack)


def test_an_execution_that_failed_is_counted_and_not_compared(stack: MemoryStack, two: tuple[Sources, Sources]) -> None:
    old, _ = two
    made = record(stack, old, {"features": {"x": 1}}, "p1")
    output = msgspec.structs.replace(made.output, status="FAILED", predictions=[], prediction_id="p2")
    changes = {"prediction_id": "p2", "output": output, "failure": "no quorum"}
    stack.records.add(msgspec.structs.replace(made, **changes))
    seen = report(stack)
    assert seen.agreement is not None
    assert (seen.current.statuses, seen.agreement.records) == ({"COMPLETE": 1, "FAILED": 1}, 1)
