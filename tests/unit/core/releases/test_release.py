from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given
from msgspec import structs

from builders import BINARY, X, artifact, manifest, member, release, released, sources
from stepensemble.core.errors import InvalidManifest, NotEnoughSlots, ReleaseCorrupt
from stepensemble.core.releases.release import (
    Artifact,
    compile_release,
    decode_release,
    digest_of,
    encode_release,
    place,
)
from stepensemble.core.validation.manifest import parse_manifest

ARTIFACTS = {"a": artifact(b"first"), "b": artifact(b"second")}
Y = {"name": "y", "type": "number"}
MANIFEST = manifest(
    member("a", weight=1.0),
    member("b", columns=["x"], weight=2),
    features=[X, Y],
    aggregation={"method": "weighted_mean"},
)


def name_of(data: dict[str, Any], artifacts: dict[str, Artifact] = ARTIFACTS) -> str:
    return encode_release(compile_release(parse_manifest(json.dumps(data)), artifacts))[0]


def backwards(data: Any) -> Any:
    """Turn around the order of keys, everywhere."""
    if isinstance(data, dict):
        return {key: backwards(data[key]) for key in reversed(data)}
    return [backwards(value) for value in data] if isinstance(data, list) else data


def test_a_release_is_named_by_the_sha256_of_its_bytes() -> None:
    digest, body = encode_release(compile_release(parse_manifest(json.dumps(MANIFEST)), ARTIFACTS))
    assert digest == hashlib.sha256(body).hexdigest() == digest_of(body)


def test_a_release_comes_back_from_its_bytes() -> None:
    compiled = compile_release(parse_manifest(json.dumps(MANIFEST)), ARTIFACTS)
    assert decode_release(*encode_release(compiled)) == compiled


def test_compiling_resolves_columns_and_artifacts_and_keeps_the_policy() -> None:
    parsed = parse_manifest(json.dumps(MANIFEST))
    compiled = compile_release(parsed, ARTIFACTS)
    assert [one.inputs for one in compiled.members] == [{"": ("x", "y")}, {"": ("x",)}]
    assert [one.artifact for one in compiled.members] == [ARTIFACTS["a"], ARTIFACTS["b"]]
    assert compiled.policy == parsed.policy
    assert (compiled.tiers, compiled.in_tier(1), compiled.in_tier(2)) == (1, compiled.members, ())


def test_trust_is_of_one_artifact_and_changes_no_name_where_there_is_none(tmp_path: Path) -> None:
    plain = sources(tmp_path, member("half_plus_two"))
    assert b"trusted" not in plain.body
    digest = plain.release.members[0].artifact.digest
    trusted = sources(tmp_path, {**member("half_plus_two"), "trusted": digest})
    assert trusted.release.members[0].trusted is True
    assert decode_release(trusted.digest, trusted.body) == trusted.release
    with pytest.raises(InvalidManifest, match=r"members\[0\]\.trusted: .* is not the digest of .* --replace --trust"):
        sources(tmp_path, {**member("half_plus_two"), "trusted": "0" * 64})


def test_members_are_found_by_their_tier() -> None:
    first, second, third = released("a"), released("b", tier=2), released("c", tier=2, role="shadow")
    made = release(BINARY, first, second, third)
    assert (made.tiers, made.in_tier(1), made.in_tier(2)) == (2, (first,), (second, third))
    assert made.voters == (first, second)


def test_the_name_does_not_depend_on_how_the_manifest_is_written() -> None:
    assert name_of(backwards(MANIFEST)) == name_of(MANIFEST)
    spacious = parse_manifest(json.dumps(MANIFEST, indent=7))
    assert encode_release(compile_release(spacious, ARTIFACTS))[0] == name_of(MANIFEST)
    message = copy.deepcopy(MANIFEST)
    message["members"][0] |= {"role": "voter", "timeout": 10, "weight": 1, "columns": ["x", "y"]}
    assert name_of(message) == name_of(MANIFEST)  # defaults spelt out
    moved = copy.deepcopy(MANIFEST)
    moved["members"][0]["artifact"] = "elsewhere.tflite"
    assert name_of(moved) == name_of(MANIFEST)  # the content counts, not its path


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["members"][0].update(weight=1.5),
        lambda data: data["members"][0].update(version="2"),
        lambda data: data["members"][0].update(timeout=11),
        lambda data: data["members"][0].update(role="shadow"),
        lambda data: data["members"][0].update(columns=["y", "x"]),
        lambda data: data["members"].reverse(),
        lambda data: data["features"].reverse(),
        lambda data: data["features"][0].update(min=0),
        lambda data: data["features"][0].update(scaling={"type": "standard", "mean": 0, "std": 1}),
        lambda data: data["aggregation"].update(method="mean") or data["members"][1].pop("weight"),
        lambda data: data.update(quorum={"min_members": 1}),
        lambda data: data.update(name="other"),
        lambda data: data.update(review={"max_spread": 1}),
        lambda data: data.update(quorum={"min_weight": 0.5}),
        lambda data: data["members"][0]["output"].update(scale=2),
    ],
)
def test_the_name_changes_with_whatever_may_change_a_prediction(change: Callable[[Any], Any]) -> None:
    changed = copy.deepcopy(MANIFEST)
    change(changed)
    assert name_of(changed) != name_of(MANIFEST)


def test_the_name_changes_with_an_artifact() -> None:
    assert name_of(MANIFEST, {**ARTIFACTS, "b": artifact(b"third")}) != name_of(MANIFEST)


def test_bytes_of_another_digest_are_refused() -> None:
    digest, body = encode_release(release(BINARY, released("a", "probability")))
    with pytest.raises(ReleaseCorrupt, match=f"{digest[:12]} does not match the digest in its name"):
        decode_release(digest, body + b" ")


@pytest.mark.parametrize("body", [b"{}", b"[]", b"not json"])
def test_bytes_that_are_no_release_are_refused(body: bytes) -> None:
    with pytest.raises(ReleaseCorrupt, match="is of another format"):
        decode_release(digest_of(body), body)


def test_a_release_of_a_later_format_is_refused() -> None:
    later = structs.replace(release(BINARY, released("a", "probability")), format=4)
    body = msgspec.json.encode(later)
    with pytest.raises(ReleaseCorrupt, match="is of format 4, and this version reads 3"):
        decode_release(digest_of(body), body)


def members(ids: str, runtime: str = "litert") -> list[Any]:
    return [released(id_, runtime=runtime) for id_ in ids]


@pytest.mark.parametrize(
    ("ids", "previous", "expected"),
    [
        ("ab", {}, {"a": "1", "b": "2"}),
        ("ab", {"a": "2", "b": "1"}, {"a": "2", "b": "1"}),
        ("bc", {"a": "1", "b": "2"}, {"b": "2", "c": "1"}),
        ("ca", {"a": "1"}, {"c": "2", "a": "1"}),
        ("ab", {"a": "9", "b": "3"}, {"a": "1", "b": "3"}),  # the slot 9 is gone
        ("abc", {"b": "1"}, {"a": "2", "b": "1", "c": "3"}),
    ],
)
def test_a_member_keeps_its_slot_and_a_new_one_gets_the_first_free(
    ids: str, previous: dict[str, str], expected: dict[str, str]
) -> None:
    assert place(members(ids), {"litert": ["1", "2", "3"]}, previous) == expected


def test_a_member_gets_a_slot_of_its_runtime_and_another_one_when_that_changes() -> None:
    slots = {"litert": ["1", "2"], "tensorflow": ["t1", "t2"]}
    before = place([*members("b", "tensorflow"), *members("ac")], slots, {})
    assert before == {"b": "t1", "a": "1", "c": "2"}
    converted = place([*members("ab"), *members("c", "tensorflow")], slots, before)
    assert converted == {"a": "1", "b": "2", "c": "t1"}


def test_more_members_than_slots_are_refused_with_the_parameter_to_raise() -> None:
    slots = {"litert": ["1", "2"], "tensorflow": ["t1"]}
    message = (
        r'^3 members need as many slots, and the stack has 2; raise the parameter "Slots" in template.yaml to 1,…,3'
    )
    with pytest.raises(NotEnoughSlots, match=message):
        place([*members("abc"), *members("d", "tensorflow")], slots, {})
    message = (
        r'^2 members for TensorFlow need as many slots, .* has 1; .* "Slots" in template-tensorflow.yaml to t1,…,t2'
    )
    with pytest.raises(NotEnoughSlots, match=message):
        place([*members("a"), *members("cd", "tensorflow")], slots, {}, taken=["1"])


def test_a_stack_without_slots_for_tensorflow_states_how_to_get_some() -> None:
    message = (
        r"needed by b, c, and the stack has no slots for it; .*make deploy-tensorflow.* template-tensorflow.yaml "
        r"beside template.yaml, and TensorFlow \(pip install 'stepensemble.* restart it if it runs$"
    )
    with pytest.raises(NotEnoughSlots, match=message):
        place([*members("a"), *members("bc", "tensorflow")], {"litert": ["1"]}, {})


SLOTS = {"litert": [str(number) for number in range(1, 9)], "tensorflow": [f"t{number}" for number in range(1, 9)]}
MEMBERS = st.dictionaries(st.sampled_from("abcdefghijkl"), st.sampled_from(sorted(SLOTS)), max_size=8)


@given(MEMBERS, MEMBERS, st.permutations([slot for names in SLOTS.values() for slot in names]))
def test_law_every_member_has_a_slot_of_its_own_and_the_old_ones_keep_theirs(
    before: dict[str, str], after: dict[str, str], order: list[str]
) -> None:
    # Whatever was where, also under another runtime.
    previous = dict(zip(before, order, strict=False))
    placed = place(members_of(after), SLOTS, previous)
    assert list(placed) == list(after)
    assert len(set(placed.values())) == len(after)
    assert all(placed[id_] in SLOTS[runtime] for id_, runtime in after.items())
    stay = [id_ for id_ in after if previous.get(id_) in SLOTS[after[id_]]]
    assert all(placed[id_] == previous[id_] for id_ in stay)


def members_of(runtimes: dict[str, str]) -> list[Any]:
    return [released(id_, runtime=runtime) for id_, runtime in runtimes.items()]
