from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from builders import fingerprint, manifest, member, model, sources
from meddling import MeddledBucket
from memory import SLOTS, MemoryStack
from stepensemble.core.errors import ArtifactCorrupt, InvalidManifest, NotEnoughSlots
from stepensemble.core.releases.release import PastRelease, ReleasePointer, digest_of
from stepensemble.publishing.manifest_loader import read_sources
from stepensemble.publishing.publish import (
    apply_plan,
    bundle_release,
    compare_with_current,
    is_due,
    name_replaced,
    plan,
    publish,
)
from stepensemble.publishing.rollback import roll_back
from stepensemble.publishing.schemas import PUBLISHED, render_schema, write_schemas
from stepensemble.storage.keys import CURRENT, artifact_key, fingerprint_key, release_key
from stepensemble.storage.releases import ReleaseStore

NOW = "2026-03-01T12:00:00.000+00:00"
"""The clock of a stack in memory."""


def problems_of(path: Path) -> list[str]:
    with pytest.raises(InvalidManifest) as raised:
        read_sources(path)
    return [str(problem) for problem in raised.value.problems]


# What is read


def test_sources_are_manifest_artifacts_and_release(tmp_path: Path) -> None:
    read = sources(tmp_path, member("a"), member("b", "sigmoid"))
    assert read.artifacts == {"a": model("half_plus_two"), "b": model("sigmoid")}
    assert read.digest == digest_of(read.body)
    assert [one.artifact.digest for one in read.release.members] == [digest_of(one) for one in read.artifacts.values()]


def test_a_manifest_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    assert problems_of(path) == [f"{path}: cannot be read: No such file or directory; give the path of a manifest"]


def test_all_invalid_artifacts_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty.tflite").write_bytes(b"")
    (tmp_path / "sound.tflite").write_bytes(b"sound")
    entries = [
        member("a", "absent"),
        member("b", "empty"),
        member("c", "sound", digest="ab" * 32),
        member("d", "sound"),
    ]
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(manifest(*entries)))
    found = problems_of(path)
    assert [problem.split(": ")[0] for problem in found] == [
        "$.members[0].artifact",
        "$.members[1].artifact",
        "$.members[2].digest",
    ]
    assert '"absent.tflite" cannot be read: No such file or directory' in found[0]
    assert '"empty.tflite" is empty; give a model file' in found[1]
    assert f"is not the digest of sound.tflite, {digest_of(b'sound')} is; restore the file, or pin the new" in found[2]


def test_a_correct_pinned_digest_is_accepted(tmp_path: Path) -> None:
    pinned = sources(tmp_path, member(digest=digest_of(model("half_plus_two"))))
    assert pinned.digest == sources(tmp_path, member()).digest


# Publishing


def test_a_release_is_published_with_the_pointer_last(tmp_path: Path) -> None:
    stack, read = MemoryStack(), sources(tmp_path, member("a"), member("b", "sigmoid"))
    done = stack.publish(read)
    assert (done.release, done.previous, done.changed) == (read.digest, None, True)
    assert (done.uploaded, done.slots) == (("a", "b"), {"a": "1", "b": "2"})
    artifacts = [artifact_key(one.artifact.digest) for one in read.release.members]
    assert stack.artifacts.written == [*artifacts, release_key(read.digest), CURRENT]
    assert stack.releases.read_current()[0] == ReleasePointer(read.digest, {"a": "1", "b": "2"}, NOW)
    assert stack.releases.read_release(read.digest) == read.release


def test_publishing_twice_writes_once(tmp_path: Path) -> None:
    stack, read = MemoryStack(), sources(tmp_path)
    stack.publish(read)
    stack.artifacts.written.clear()
    done = stack.publish(read)
    assert (done.changed, done.uploaded, stack.artifacts.written) == (False, (), [])
    assert done.previous == done.release == read.digest


def test_an_artifact_that_two_members_share_is_uploaded_once(tmp_path: Path) -> None:
    stack = MemoryStack()
    assert stack.publish(sources(tmp_path, member("a"), member("b"))).uploaded == ("a",)


def test_a_changed_weight_moves_only_the_pointer(tmp_path: Path) -> None:
    stack = MemoryStack()
    weighted: dict[str, Any] = {"aggregation": {"method": "weighted_mean"}}
    first = stack.publish(sources(tmp_path, member("a"), member("b"), **weighted))
    stack.artifacts.written.clear()
    second = stack.publish(sources(tmp_path, member("a", weight=2), member("b"), **weighted))
    assert stack.artifacts.written == [release_key(second.release), CURRENT]
    assert (second.previous, second.slots) == (first.release, first.slots)


def test_members_keep_their_slots_from_release_to_release(tmp_path: Path) -> None:
    stack = MemoryStack()
    stack.publish(sources(tmp_path, member("a"), member("b"), member("c")))
    assert stack.publish(sources(tmp_path, member("c"), member("d"))).slots == {"c": "3", "d": "1"}


def test_more_members_than_slots_write_nothing(tmp_path: Path) -> None:
    stack, read = MemoryStack(), sources(tmp_path, member("a"), member("b"))
    with pytest.raises(NotEnoughSlots):
        publish(read, stack.releases, {"litert": ["1"]})
    assert stack.artifacts.written == []


def test_an_upload_reports_its_bytes(tmp_path: Path) -> None:
    stack, reported = MemoryStack(), []
    planned = plan(bundle_release(sources(tmp_path, member("a"), member("b", "sigmoid"))), stack.releases, SLOTS)
    apply_plan(planned, stack.releases, on_upload=lambda id_, count: reported.append((id_, count)))
    assert reported == [("a", len(model("half_plus_two"))), ("b", len(model("sigmoid")))]


def test_a_fingerprint_is_written_before_the_pointer_moves(tmp_path: Path) -> None:
    stack, read = MemoryStack(), sources(tmp_path)
    taken = fingerprint(read)
    publish(read, stack.releases, SLOTS, fingerprint=taken)
    assert stack.artifacts.written[-2:] == [fingerprint_key(read.digest), CURRENT]
    kept = stack.releases.read_fingerprint(read.digest)
    assert msgspec.json.encode(kept) == msgspec.json.encode(taken)


def test_the_history_has_the_time_of_each_current_release(tmp_path: Path) -> None:
    stack = MemoryStack()
    first = stack.publish(sources(tmp_path, member("a")))
    stack.now += timedelta(hours=1)
    second = stack.publish(sources(tmp_path, member("a", version="2")))
    current, _ = stack.releases.read_current()
    assert (current.release, current.since) == (second.release, "2026-03-01T13:00:00.000+00:00")
    assert current.history == (PastRelease(first.release, NOW, "2026-03-01T13:00:00.000+00:00"),)


def test_a_damaged_artifact_is_fixed_by_publishing_again(tmp_path: Path) -> None:
    stack, read = MemoryStack(), sources(tmp_path)
    stack.publish(read)
    key = artifact_key(read.release.members[0].artifact.digest)
    stack.artifacts.write(key, bytes(read.release.members[0].artifact.size))
    done = stack.publish(read)
    assert (done.changed, done.uploaded) == (False, ("half",))
    assert stack.artifacts.read(key) == model("half_plus_two")


def test_a_damaged_upload_is_rejected_and_the_pointer_stays(tmp_path: Path) -> None:
    stack = MemoryStack()
    first = stack.publish(sources(tmp_path, member("a")))

    class Lossy(MeddledBucket):
        def write(self, key: str, body: bytes) -> Any:
            return super().write(key, body[:-1])

    with pytest.raises(ArtifactCorrupt, match="it was overwritten or damaged"):
        publish(sources(tmp_path, member("a", "sigmoid")), ReleaseStore(Lossy(stack.artifacts)), SLOTS)
    assert stack.releases.read_current()[0].release == first.release


def test_a_plan_has_everything_and_writes_nothing(tmp_path: Path) -> None:
    stack = MemoryStack()
    first = stack.publish(sources(tmp_path, member("a"), member("b")))
    stack.artifacts.written.clear()
    read = sources(tmp_path, member("a", version="2"), member("c", "sigmoid"), member("d", "sigmoid"))
    planned = plan(bundle_release(read), stack.releases, SLOTS)
    assert stack.artifacts.written == []
    assert (planned.previous, planned.changed) == (first.release, True)
    assert planned.slots == {"a": "1", "c": "2", "d": "3"}
    assert [one.id for one in planned.uploads] == ["c"]  # d has the same artifact
    assert planned.upload_bytes == len(model("sigmoid"))
    differences = compare_with_current(planned, stack.releases)
    assert differences is not None
    assert [one.words.split(":")[0] for one in differences] == ["member b", "member a", "member c", "member d"]


def test_a_plan_for_an_empty_stack_has_nothing_to_compare_with(tmp_path: Path) -> None:
    stack = MemoryStack()
    planned = plan(bundle_release(sources(tmp_path)), stack.releases, SLOTS)
    assert (planned.previous, planned.changed) == (None, True)
    assert compare_with_current(planned, stack.releases) is None


def test_schemas_are_written_where_they_are_published(tmp_path: Path) -> None:
    for path in PUBLISHED:
        (tmp_path / path).parent.mkdir()
    write_schemas(tmp_path)
    for path, make in PUBLISHED.items():
        assert (tmp_path / path).read_text() == render_schema(make())


# A project's manifest, and what is current


def test_a_projects_manifest_is_due_once_and_again_when_it_is_edited(tmp_path: Path) -> None:
    store = MemoryStack().releases
    first, second, third = (sources(tmp_path, member("a", version=version)) for version in "123")
    assert is_due(first, store)  # nothing is current
    for one in (first, second):
        publish(one, store, SLOTS)
        store.note_manifest(one.digest)
        assert not is_due(one, store)
    roll_back(store, SLOTS)
    assert not is_due(second, store)  # the rollback stands
    assert is_due(third, store)
    publish(third, store, SLOTS, canary=10)
    store.note_manifest(third.digest)
    assert not is_due(third, store)  # it is the canary
    assert not is_due(first, store)  # it is current


def test_a_published_release_stays_if_no_manifest_was_noted(tmp_path: Path) -> None:
    store = MemoryStack().releases
    first, second = (sources(tmp_path, member("a", version=version)) for version in "12")
    publish(first, store, SLOTS)
    assert is_due(second, store)
    publish(second, store, SLOTS)
    roll_back(store, SLOTS)
    assert not is_due(second, store)


@pytest.mark.parametrize("noted", [True, False])
def test_a_projects_manifest_is_due_again_if_another_ensemble_is_current(tmp_path: Path, *, noted: bool) -> None:
    store = MemoryStack().releases
    first = sources(tmp_path, member("a"))
    other, newer = (sources(tmp_path, member("a", version=version), name="other") for version in "12")
    publish(first, store, SLOTS)
    if noted:
        store.note_manifest(first.digest)
    publish(other, store, SLOTS)
    assert is_due(first, store)
    publish(first, store, SLOTS)
    assert not is_due(first, store)
    # A canary must be ended by a person first, so it stands beside another ensemble's release as beside one's own.
    publish(other, store, SLOTS)
    publish(newer, store, SLOTS, canary=10)
    assert not is_due(first, store)


def test_another_ensembles_name_is_found_before_its_release_is_replaced(tmp_path: Path) -> None:
    store = MemoryStack().releases
    first, other = sources(tmp_path, member("a")), sources(tmp_path, member("a"), name="other")
    assert name_replaced(plan(bundle_release(other), store, SLOTS), store) is None
    publish(first, store, SLOTS)
    assert name_replaced(plan(bundle_release(other), store, SLOTS), store) == "halves"
    assert name_replaced(plan(bundle_release(first), store, SLOTS), store) is None
