from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import X, manifest, member, model, sources
from memory import SLOTS, MemoryStack
from stepensemble.core.errors import InvalidManifest, NotEnoughSlots, PublishConflict
from stepensemble.core.manifest import (
    BooleanFeature,
    CategoryFeature,
    Log1p,
    MinMax,
    NumberFeature,
    Standard,
    TensorFeature,
)
from stepensemble.core.release import Current, digest_of
from stepensemble.publishing.gate import draw_columns, try_members
from stepensemble.publishing.publish import publish
from stepensemble.publishing.schemas import PUBLISHED, render_schema, write_schemas
from stepensemble.publishing.sources import read_sources
from stepensemble.storage.keys import CURRENT, artifact_key, release_key


def problems_of(path: Path) -> list[str]:
    with pytest.raises(InvalidManifest) as refused:
        read_sources(path)
    return [str(problem) for problem in refused.value.problems]


# What is read


def test_sources_are_manifest_artifacts_and_release(tmp_path: Path) -> None:
    read = sources(tmp_path, member("a"), member("b", "sigmoid"))
    assert read.artifacts == {"a": model("half_plus_two"), "b": model("sigmoid")}
    assert read.digest == digest_of(read.body)
    assert [one.artifact.digest for one in read.release.members] == [digest_of(one) for one in read.artifacts.values()]


def test_a_manifest_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    assert problems_of(path) == [f"{path}: cannot be read: No such file or directory; give the path of a manifest"]


def test_every_artifact_that_is_not_sound_is_named_at_once(tmp_path: Path) -> None:
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


def test_a_pinned_digest_that_holds_is_accepted(tmp_path: Path) -> None:
    pinned = sources(tmp_path, member(digest=digest_of(model("half_plus_two"))))
    assert pinned.digest == sources(tmp_path, member()).digest


# The gate


def test_sound_members_pass_the_gate(tmp_path: Path) -> None:
    told: list[str] = []
    trials = try_members(sources(tmp_path, member("a"), member("b", "fixed_batch_one")), told.append)
    assert told == [trial.member.id for trial in trials] == ["a", "b"]
    assert all(trial.load_ms > 0 and trial.predict_ms > 0 for trial in trials)


BINARY_TASK = {"type": "binary", "classes": ["no", "yes"]}
Y = {"name": "y", "type": "number"}
IMAGE = {"name": "image", "type": "tensor", "shape": [2, 2]}


@pytest.mark.parametrize(
    ("entry", "more", "expected"),
    [
        (member("a", "two_inputs"), {}, "ModelRefused: the model has 2 inputs"),
        (member("a", "softmax"), {}, "InputMismatch: the model takes [2] numbers a row, and its columns give [1]"),
        (
            member("a", "logarithm"),
            {"features": [{**X, "max": -1}]},
            "InvalidOutput: the output of row 0 is not finite",
        ),
        (member("a", "fixed_batch_two"), {}, "InputMismatch: the model takes exactly 2 rows at once, and 3 came"),
        (member("a", "one_row_inside"), {}, "InputMismatch: LiteRT cannot run the model on 3 rows"),
        (member("a", kind="probability"), {"task": BINARY_TASK}, "is no probability: outside [0, 1]"),
        (
            member("a", "softmax", kind="probability"),
            {"task": BINARY_TASK, "features": [X, Y]},
            'InvalidOutput: the output has 3 numbers a row, and "probability" means 1',
        ),
        (
            member("a", "two_by_two", columns=["image"]),
            {"features": [X, {**IMAGE, "dtype": "uint8"}]},
            "InputMismatch: the model takes float32, and its columns are uint8",
        ),
    ],
)
def test_a_member_that_does_not_do_what_the_manifest_says_is_stopped(
    tmp_path: Path, entry: dict[str, Any], more: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InvalidManifest) as refused:
        try_members(sources(tmp_path, entry, **more))
    (found,) = map(str, refused.value.problems)
    assert found.startswith(f"$.members[0]: a ({entry['artifact']}): ")
    assert expected in found


def test_every_member_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest) as refused:
        try_members(sources(tmp_path, member("a", "two_inputs"), member("b"), member("c", "softmax")))
    assert [problem.path for problem in refused.value.problems] == ["$.members[0]", "$.members[2]"]


def test_trial_rows_are_within_the_features_ranges() -> None:
    features = (
        NumberFeature("bounded", min=5, max=6),
        NumberFeature("above", min=100, scaling=Standard(0, 1)),
        NumberFeature("below", max=-100, scaling=MinMax(0, 1)),
        NumberFeature("positive", min=0, scaling=Log1p()),
        CategoryFeature("word", ("a", "b")),
        BooleanFeature("flag"),
        TensorFeature("image", (2, 2), "uint8"),
    )
    columns = draw_columns(features, 50)
    assert ((columns["bounded"] >= 5) & (columns["bounded"] <= 6)).all()
    assert columns["above"].tolist() == [100.0] * 50
    assert columns["below"].tolist() == [-100.0] * 50
    assert (columns["positive"] >= 0).all()
    assert set(columns["word"].tolist()) == set(columns["flag"].tolist()) == {0.0, 1.0}
    assert columns["image"].shape == (50, 2, 2)
    again = draw_columns(features, 50)
    assert all(np.array_equal(columns[name], again[name]) for name in columns)


# Publishing


def test_a_release_is_published_with_the_pointer_last(tmp_path: Path) -> None:
    stack, read = MemoryStack(), sources(tmp_path, member("a"), member("b", "sigmoid"))
    done = stack.publish(read)
    assert (done.release, done.previous, done.changed) == (read.digest, None, True)
    assert (done.uploaded, done.slots) == (("a", "b"), {"a": "1", "b": "2"})
    artifacts = [artifact_key(one.artifact.digest) for one in read.release.members]
    assert stack.artifacts.written == [*artifacts, release_key(read.digest), CURRENT]
    assert stack.releases.read_current()[0] == Current(read.digest, {"a": "1", "b": "2"})
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
        publish(read, stack.releases, ["1"])
    assert stack.artifacts.written == []


def test_who_publishes_second_is_told_and_changes_nothing(tmp_path: Path) -> None:
    stack = MemoryStack()
    first = sources(tmp_path, member("a"))
    stack.publish(first)
    theirs = sources(tmp_path, member("a", version="theirs"))

    def publish_meanwhile(_: str) -> None:
        stack.publish(theirs)

    with pytest.raises(PublishConflict, match=r"current\.json was changed by somebody else meanwhile"):
        publish(sources(tmp_path, member("a", version="mine")), stack.releases, SLOTS, publish_meanwhile)
    assert stack.releases.read_current()[0].release == theirs.digest


def test_who_publishes_second_into_an_empty_stack_is_told_too(tmp_path: Path) -> None:
    stack = MemoryStack()
    theirs = sources(tmp_path, member("a", version="theirs"))
    with pytest.raises(PublishConflict):
        publish(sources(tmp_path, member("a")), stack.releases, SLOTS, lambda _: stack.publish(theirs) and None)
    assert stack.releases.read_current()[0].release == theirs.digest


def test_schemas_are_written_where_they_are_published(tmp_path: Path) -> None:
    for path in PUBLISHED:
        (tmp_path / path).parent.mkdir()
    write_schemas(tmp_path)
    for path, make in PUBLISHED.items():
        assert (tmp_path / path).read_text() == render_schema(make())
