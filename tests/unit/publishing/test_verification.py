from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

import asl
from builders import ROOT, fingerprint, member, sources
from memory import SLOTS, MemoryStack
from stepensemble.core.aggregation.output import Output
from stepensemble.core.errors import FingerprintMissing, VerificationFailed
from stepensemble.core.releases.fingerprint import Fingerprint, MemberFingerprint
from stepensemble.publishing.golden import GOLDEN_ROWS
from stepensemble.publishing.manifest_loader import Sources
from stepensemble.publishing.publish import publish
from stepensemble.publishing.verification import (
    Verification,
    make_golden_payload,
    verify,
)
from stepensemble.storage.keys import artifact_key, fingerprint_key

ENSEMBLE = json.loads((ROOT / "statemachine" / "ensemble.asl.json").read_text())
CLASSES = {"type": "binary", "classes": ["no", "yes"]}


def execute(stack: MemoryStack, payload: object, name: str = "verify-1") -> tuple[Output | None, str]:
    """Run an execution in memory, as `ensemble verify` has it run on a stack."""
    functions = {**stack.slots, asl.PUT_EVENTS: stack.put_events}
    functions |= {"${NormalizeFunctionArn}": stack.normalize, "${AggregateFunctionArn}": stack.aggregate}
    try:
        return msgspec.convert(asl.run(ENSEMBLE, functions, payload, name), Output), ""
    except asl.Failed as failed:
        recorded = stack.records.read(name).output if failed.error == "QuorumNotMet" else None
        return recorded, f"{failed.error}: {failed.cause}"


def published(read: Sources) -> MemoryStack:
    stack = MemoryStack()
    publish(read, stack.releases, SLOTS, fingerprint=fingerprint(read))
    return stack


def asker(stack: MemoryStack) -> Callable[[dict[str, Any]], tuple[Output | None, str]]:
    """Return what runs verify-1, verify-2 and so on."""
    numbers = count(1)
    return lambda payload: execute(stack, payload, f"verify-{next(numbers)}")


def verified(stack: MemoryStack, read: Sources) -> Verification:
    return verify(read.release, stack.releases.read_fingerprint(read.digest), asker(stack))


def statuses(verification: Verification) -> dict[str, str]:
    return {verdict.member: verdict.status for verdict in verification.members}


def test_a_stack_with_the_gates_outputs_is_verified(tmp_path: Path) -> None:
    read = sources(tmp_path, member("a"), member("b", "sigmoid"), member("c", "fixed_batch_one", role="shadow"))
    stack = published(read)
    done = verified(stack, read)
    assert done.passed
    assert (done.release, done.rows, done.prediction_id) == (read.digest, GOLDEN_ROWS, "verify-1")
    assert statuses(done) == {"a": "same", "b": "same", "c": "same"}
    assert {verdict.deviation for verdict in done.members} == {0.0}  # the same machine
    assert stack.records.read("verify-1").metadata == {"verify": True}


def test_a_member_whose_outputs_differ_is_named_with_a_row(tmp_path: Path) -> None:
    read = sources(tmp_path, member("a"), member("b", "sigmoid"))
    stack = published(read)
    kept = stack.releases.read_fingerprint(read.digest)
    outputs = [value * 1.01 for value in kept.members["a"].outputs]
    other = structs.replace(kept, members={**kept.members, "a": MemberFingerprint("litert", outputs)})
    done = verify(read.release, other, asker(stack))
    assert not done.passed
    assert statuses(done) == {"a": "differs", "b": "same"}
    a = done.members[0]
    assert a.deviation == pytest.approx(0.01 / 1.01)  # at the greatest output expected, which the scale is
    assert a.reasons[0].startswith("row 0 is ")
    assert f"({GOLDEN_ROWS} of {GOLDEN_ROWS} rows differ; 0.0001 of their scale" in a.reasons[0]


def test_a_member_that_fails_on_the_stack_is_named_with_its_error(tmp_path: Path) -> None:
    read = sources(tmp_path, member("a"), member("b", "sigmoid"), quorum={"min_members": 1})
    stack = published(read)
    stack.artifacts.write(artifact_key(read.release.members[1].artifact.digest), b"overwritten")
    done = verified(stack, read)
    assert statuses(done) == {"a": "same", "b": "failed"}
    assert done.members[1].reasons[0].startswith("ArtifactCorrupt: ")


def test_members_that_responded_are_compared_without_a_quorum(tmp_path: Path) -> None:
    read = sources(tmp_path, member("a"), member("b", "sigmoid"))  # more than half of two: both
    stack = published(read)
    stack.artifacts.write(artifact_key(read.release.members[1].artifact.digest), b"overwritten")
    assert statuses(verified(stack, read)) == {"a": "same", "b": "failed"}


@pytest.mark.parametrize(
    ("artifact", "prefix"),
    [("batch_mean", "alone: row 0 is 0.5, not "), ("counting", "again, in another order: row 0 is ")],
)
def test_a_member_whose_outputs_depend_on_more_than_the_row_differs_unless_declared(
    tmp_path: Path, artifact: str, prefix: str
) -> None:
    read = sources(tmp_path, member("a", artifact), member("b", artifact, varies=True), member("c"))
    done = verified(published(read), read)
    assert not done.passed
    assert statuses(done) == {"a": "differs", "b": "varies", "c": "same"}
    assert [reason for reason in done.members[0].reasons if reason.startswith(prefix)]
    declared = sources(tmp_path, member("b", artifact, varies=True))
    done = verified(published(declared), declared)
    assert (done.passed, statuses(done)) == (True, {"b": "varies"})


def test_one_golden_row_is_predicted_twice(tmp_path: Path) -> None:
    read = sources(tmp_path, member("a", "counting"), golden=[{"x": 1}])
    stack = published(read)
    assert statuses(verified(stack, read)) == {"a": "differs"}
    assert sorted(stack.dynamo.items) == ["verify-1", "verify-2"]


def test_labels_are_compared_for_equality(tmp_path: Path) -> None:
    read = sources(tmp_path, member("a", "sign_label", "label"), task=CLASSES, aggregation={"method": "hard_vote"})
    stack = published(read)
    assert verified(stack, read).passed
    kept = stack.releases.read_fingerprint(read.digest)
    flipped = MemberFingerprint("litert", [1 - label for label in kept.members["a"].outputs])
    other = structs.replace(kept, members={"a": flipped})
    assert statuses(verify(read.release, other, asker(stack))) == {"a": "differs"}


def test_with_a_cascade_every_member_predicts_every_row(tmp_path: Path) -> None:
    # A tier of one voter decides every row by itself: agreement is 1.
    read = sources(
        tmp_path,
        member("a", "sigmoid", "probability"),
        member("b", "sigmoid", "probability", tier=2),
        member("c", "sigmoid", "probability", tier=2, role="shadow"),
        task=CLASSES,
        cascade={"min_agreement": 0.9},
    )
    stack = published(read)
    usual, _ = execute(stack, {"instances": [{"x": 1}] * 3}, "usual")
    assert usual is not None
    assert [report.status for report in usual.members] == ["ok", "skipped", "skipped"]
    assert make_golden_payload(read.release, stack.releases.read_fingerprint(read.digest))["quorum"] == {
        "min_members": 2
    }
    done = verified(stack, read)
    assert statuses(done) == {"a": "same", "b": "same", "c": "same"}


def test_a_stack_without_output_is_not_verified(tmp_path: Path) -> None:
    read = sources(tmp_path)
    stack = published(read)
    fingerprint = stack.releases.read_fingerprint(read.digest)
    stack.publish(sources(tmp_path, member(version="2")))
    with pytest.raises(VerificationFailed, match="does not predict the golden rows: ReleaseNotCurrent: "):
        verify(read.release, fingerprint, asker(stack))


def test_a_member_without_a_fingerprint_cannot_be_verified(tmp_path: Path) -> None:
    read = sources(tmp_path)
    stack = published(read)
    empty = structs.replace(stack.releases.read_fingerprint(read.digest), members={})
    done = verify(read.release, empty, asker(stack))
    assert statuses(done) == {"half": "failed"}
    assert "publish again" in done.members[0].reasons[0]


# What is kept of a fingerprint


def kept(*rows: dict[str, Any], taken_at: str = "t1", members: str = "a") -> Fingerprint:
    return Fingerprint("d" * 64, taken_at, rows, {id_: MemberFingerprint("litert", [1.0]) for id_ in members})


def test_a_fingerprint_stays_until_the_golden_rows_or_the_members_change() -> None:
    store = MemoryStack().releases
    store.write_fingerprint(kept({"x": 1}))
    store.write_fingerprint(kept({"x": 1}, taken_at="t2"))
    assert store.read_fingerprint("d" * 64).taken_at == "t1"
    store.write_fingerprint(kept({"x": 2}, taken_at="t3"))
    assert store.read_fingerprint("d" * 64).taken_at == "t3"
    store.write_fingerprint(kept({"x": 2}, taken_at="t4", members="ab"))
    assert store.read_fingerprint("d" * 64).taken_at == "t4"


@pytest.mark.parametrize("body", [None, b"not json", b"{}", msgspec.json.encode(kept({"x": 1}))])
def test_a_missing_or_wrong_fingerprint_is_reported_and_fixed_by_publishing(body: bytes | None) -> None:
    stack = MemoryStack()
    other = "e" * 64
    if body is not None:
        stack.artifacts.write(fingerprint_key(other), body)
    with pytest.raises(FingerprintMissing, match=f"no fingerprint of release {other[:12]} is stored; publish"):
        stack.releases.read_fingerprint(other)
    stack.releases.write_fingerprint(structs.replace(kept({"x": 1}), release=other))
    assert stack.releases.read_fingerprint(other).release == other
