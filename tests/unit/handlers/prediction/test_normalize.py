from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import X, member, sources
from memory import PREFIX, SLOTS, MemoryStack
from stepensemble.core.errors import StorageUnavailable
from stepensemble.core.preprocessing.columns import columns_from_bytes
from stepensemble.core.state_size import CAUSE_BYTES
from stepensemble.handlers.current_release import POINTER_SECONDS
from stepensemble.publishing.manifest_loader import Sources
from stepensemble.publishing.publish import publish
from stepensemble.storage.keys import CURRENT, payload_key, release_key

EXECUTION = {"id": "arn:aws:states:eu-central-1:1:execution:ensemble:run-1", "name": "run-1"}


@pytest.fixture
def published(tmp_path: Path) -> Sources:
    return sources(tmp_path, member("half"), member("shadow", "logarithm", role="shadow", timeout=3))


@pytest.fixture
def stack(published: Sources) -> MemoryStack:
    made = MemoryStack()
    made.publish(published)
    return made


def normalize(stack: MemoryStack, payload: object) -> dict[str, Any]:
    state = stack.normalize({"payload": payload, "execution": EXECUTION})
    json.dumps(state, allow_nan=False)  # Lambda's runtime client must be able to write it
    return state


def to_invoke(
    published: Sources, id_: str, slot: str, timeout: int = 10, outputs_key: str | None = None
) -> dict[str, Any]:
    """Return a member as Normalize lists it."""
    (one,) = [one for one in published.release.members if one.id == id_]
    return {
        "id": id_,
        "tier": one.tier,
        "role": one.role,
        "function": f"{PREFIX}{slot}",
        "timeout": timeout,
        "runtime": "litert",
        "artifact": {"digest": one.artifact.digest, "size": one.artifact.size},
        "inputs": {"": ("x",)},
        "signature": None,
        "output": None,
        "outputs_key": outputs_key,
        "narrow": {"": "x"},
    }


def test_a_valid_payload_becomes_columns_and_the_members_to_invoke(stack: MemoryStack, published: Sources) -> None:
    assert normalize(stack, {"features": {"x": "1.5"}}) == {
        "prediction_id": "run-1",
        "release": published.digest,
        "rows": 1,
        "inline": True,
        "columns": {"x": [1.5]},
        "members": [to_invoke(published, "half", "1")],
        "shadows": [to_invoke(published, "shadow", "2", timeout=3)],
        "earlier": (),
        "cascade": None,
    }


def test_without_a_shadow_the_state_has_no_shadows(tmp_path: Path) -> None:
    stack = MemoryStack()
    stack.publish(sources(tmp_path, member("half")))
    assert "shadows" not in normalize(stack, {"features": {"x": 1}})


TIERS = (member("a"), member("b", tier=2), member("c", tier=3), member("d", tier=2, role="shadow"))


def test_with_a_cascade_the_first_tier_is_invoked_first(tmp_path: Path) -> None:
    stack, published = MemoryStack(), sources(tmp_path, *TIERS, cascade={"max_spread": 0}, quorum={"min_members": 1})
    stack.publish(published)
    state = normalize(stack, {"instances": [{"x": 1}, {"x": 2}]})
    assert state["members"] == [to_invoke(published, "a", "1")]
    assert "shadows" not in state
    assert state["earlier"] == ()
    assert state["cascade"] == {
        "columns": state["columns"],
        "later": (to_invoke(published, "b", "2"), to_invoke(published, "c", "3"), to_invoke(published, "d", "4")),
    }


def test_many_rows_wait_for_later_tiers_by_pointer_too(tmp_path: Path) -> None:
    stack, published = MemoryStack(), sources(tmp_path, *TIERS, cascade={"max_spread": 0}, quorum={"min_members": 1})
    stack.publish(published)
    state = normalize(stack, {"instances": [{"x": 1}] * 10_000})
    assert state["cascade"]["columns"] == state["columns"]
    prefix = state["columns"]["s3"].removeprefix("s3://data/").removesuffix("/columns.npz")
    assert [one["outputs_key"] for one in state["cascade"]["later"]] == [
        f"{prefix}/outputs/{id_}.npy" for id_ in ("b", "c", "d")
    ]


@pytest.mark.parametrize(
    ("quorum", "problem"),
    [
        ({"min_members": 2}, "$.quorum.min_members: 2 is more than the 1 voters"),
        ({"required": ["shadow"]}, '$.quorum.required[0]: "shadow" is a shadow, which never counts'),
        ({"min_weight": 2}, "$.quorum.min_weight: 2 is out of bounds"),
        ({"least": 2}, '$.quorum.least: "least" is not a known key'),
        (2, "$.quorum: 2 is not an object"),
    ],
)
def test_a_quorum_that_the_members_cannot_meet_is_rejected(stack: MemoryStack, quorum: Any, problem: str) -> None:
    failure = normalize(stack, {"features": {"x": 1}, "quorum": quorum})["failure"]
    assert failure["error"] == "InvalidPayload"
    assert problem in failure["cause"]


def test_a_prediction_id_of_the_payload_takes_precedence_over_the_executions_name(stack: MemoryStack) -> None:
    assert normalize(stack, {"features": {"x": 1}, "prediction_id": "mine"})["prediction_id"] == "mine"


def test_a_bad_payload_is_rejected_as_data(stack: MemoryStack) -> None:
    assert normalize(stack, {"instances": [{"x": 1}, {"x": "one"}, {"y": 1}]}) == {
        "failure": {
            "error": "InvalidPayload",
            "cause": "3 problems:\n"
            '- $.instances[1].x: "one" is not a number; write a number, without unit or words\n'
            '- $.instances[2].x: is missing; give a number, or set "missing" in the manifest\n'
            '- $.instances[2].y: "y" is not a feature; remove it',
        }
    }


@pytest.mark.parametrize("payload", [None, [], 7, {}, {"features": {}, "instances": []}])
def test_what_is_not_a_payload_is_rejected_as_data(stack: MemoryStack, payload: object) -> None:
    assert normalize(stack, payload)["failure"]["error"] == "InvalidPayload"


def test_ten_thousand_bad_rows_have_a_cause_that_fits(stack: MemoryStack) -> None:
    cause = normalize(stack, {"instances": [{"x": f"Grösse {number}"} for number in range(10_000)]})["failure"]["cause"]
    assert len(cause.encode()) <= CAUSE_BYTES
    assert cause.startswith("10000 problems:\n- $.instances[0].x: ")
    shown = cause.count("\n- $")
    assert shown > 100
    assert cause.endswith(f"\n- and {10_000 - shown} more")


def test_an_input_without_room_beside_the_results_is_rejected_with_a_remedy(stack: MemoryStack) -> None:
    # Aggregate gets the input again, beside two members' results: 256 KiB - 4 KiB - 2 x 6 KiB are left for it.
    room = 256 * 1024 - 4 * 1024 - 2 * 6 * 1024
    frame = len('{"features":{"x":1},"metadata":{"note":""}}')
    fits = {"features": {"x": 1}, "metadata": {"note": "n" * (room - frame)}}
    assert "failure" not in normalize(stack, fits)
    failure = normalize(stack, {**fits, "metadata": {"note": "n" * (room - frame + 1)}})["failure"]
    assert failure["error"] == "PayloadTooLarge"
    assert f"$.metadata: has {room - frame + 1 + 11:,} bytes of JSON" in failure["cause"]
    assert f"carries {room - 512:,} beside its rows; shorten it" in failure["cause"]


def test_rows_without_room_beside_the_results_are_rejected_with_a_remedy(stack: MemoryStack) -> None:
    failure = normalize(stack, {"instances": [{"x": 1.5}] * 10_000, "metadata": {"note": "n" * 150_000}})["failure"]
    assert failure["error"] == "InvalidPayload"
    assert "bytes of JSON, too many for a state beside the members' results" in failure["cause"]
    assert 'put the rows into s3://data/payloads/… and send {"instances": {"s3": …}}' in failure["cause"]


def test_many_rows_travel_by_pointer(stack: MemoryStack) -> None:
    rows = [{"x": number / 7} for number in range(10_000)]
    state = normalize(stack, {"instances": rows})
    assert (state["inline"], state["rows"]) == (False, 10_000)
    prefix, name = state["columns"]["s3"].removeprefix("s3://data/").rsplit("/", 1)
    assert prefix.startswith("executions/run-1-")
    assert name == "columns.npz"
    stored = columns_from_bytes(stack.data.read(f"{prefix}/columns.npz"))
    assert stored["x"].tobytes() == (np.arange(10_000) / 7).astype(np.float32).tobytes()
    assert [one["outputs_key"] for one in state["members"] + state["shadows"]] == [
        f"{prefix}/outputs/{id_}.npy" for id_ in ("half", "shadow")
    ]
    assert len(json.dumps(state)) < 2_000


def test_executions_of_two_machines_with_one_name_have_separate_objects(stack: MemoryStack) -> None:
    payload = {"instances": [{"x": 1}] * 10_000}
    other = {**EXECUTION, "id": EXECUTION["id"].replace("ensemble", "ensemble-express")}
    first = stack.normalize({"payload": payload, "execution": EXECUTION})["columns"]
    assert first != stack.normalize({"payload": payload, "execution": other})["columns"]


def upload(stack: MemoryStack, body: bytes) -> dict[str, Any]:
    return {"instances": {"s3": stack.data.write(payload_key(body), body).s3}}


def test_rows_may_be_stored_in_the_data_bucket(stack: MemoryStack) -> None:
    assert normalize(stack, upload(stack, b'[{"x": 1}, {"x": 2}]'))["columns"] == {"x": [1.0, 2.0]}


def test_bad_rows_that_are_stored_in_the_bucket_are_named_as_instances(stack: MemoryStack) -> None:
    assert (
        "$.instances[1].x: true is not a number"
        in normalize(stack, upload(stack, b'[{"x": 1}, {"x": true}]'))["failure"]["cause"]
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"x": 1}', '$.instances: {"x": 1} is not a list; write a list of objects'),
        (b"[]", "$.instances: is empty; give at least one row"),
        (b"[{}" + b",{}" * 10_000 + b"]", "$.instances: has 10,001 rows; send at most 10,000 in one execution"),
        (b"[1", "is not JSON: "),
        (b'[{"x": "\xff"}]', "is not JSON: "),
        (b"[" * 100_000, "is not JSON: "),
        (b'[{"x": 1}, {"x": 1,\n"x": 2}]', '$: "x" is given twice in one object; give it once'),
        (b"[1]", "$.instances[0]: 1 is not an object; write an object"),
    ],
)
def test_an_object_in_the_bucket_must_be_rows(stack: MemoryStack, body: bytes, expected: str) -> None:
    assert expected in normalize(stack, upload(stack, body))["failure"]["cause"]


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        ("s3://other/payloads/a.json", "s3://other/payloads/a.json is elsewhere; use s3://data/payloads/…"),
        ("s3://data/records/a.json", "is elsewhere"),
        ("s3://data/executions/a.json", "is elsewhere"),
        ("s3://artifacts/current.json", "is elsewhere"),
        ("https://data/payloads/a.json", "is elsewhere"),
        ("", "is elsewhere"),
        ("s3://data/payloads/absent.json", "s3://data/payloads/absent.json is not there; upload the rows first"),
        ("s3://data/payloads/../records/a.json", "is not there"),
        ("s3://data/payloads//a.json", "is not there"),
    ],
)
def test_a_pointer_outside_the_payloads_is_rejected(stack: MemoryStack, pointer: str, expected: str) -> None:
    stack.data.write("records/a.json", b'[{"x": 1}]')
    failure = normalize(stack, {"instances": {"s3": pointer}})["failure"]
    assert failure["error"] == "InvalidPayload"
    assert f"$.instances.s3: {pointer}" in failure["cause"]
    assert expected in failure["cause"]


def test_an_execution_of_an_empty_stack_is_rejected() -> None:
    failure = normalize(MemoryStack(), {"features": {"x": 1}})["failure"]
    assert failure == {"error": "NothingPublished", "cause": "nothing is published here yet; run: ensemble publish"}


def test_a_release_that_is_not_the_current_one_is_rejected(stack: MemoryStack, published: Sources) -> None:
    failure = normalize(stack, {"features": {"x": 1}, "release": "0123456789"})["failure"]
    assert failure["error"] == "ReleaseNotCurrent"
    assert failure["cause"].startswith(f"release 0123456789 is not the current one, {published.digest[:12]} is")


@pytest.mark.parametrize("digits", [8, 12, 64])
def test_the_current_release_may_be_named_by_the_beginning_of_its_digest(
    stack: MemoryStack, published: Sources, digits: int
) -> None:
    assert normalize(stack, {"features": {"x": 1}, "release": published.digest[:digits]})["release"] == published.digest


def test_the_pointer_is_cached_for_seconds_and_the_release_permanently(stack: MemoryStack, published: Sources) -> None:
    stack.artifacts.calls.clear()

    def reads() -> tuple[int, int]:
        normalize(stack, {"features": {"x": 1}})
        return stack.artifacts.calls[CURRENT], stack.artifacts.calls[release_key(published.digest)]

    assert reads() == (1, 1)
    assert reads() == (1, 1)
    stack.clock.seconds += POINTER_SECONDS - 0.01
    assert reads() == (1, 1)
    stack.clock.seconds += 0.01
    assert reads() == (2, 1)


def test_a_release_can_be_named_as_soon_as_it_is_published(
    stack: MemoryStack, published: Sources, tmp_path: Path
) -> None:
    normalize(stack, {"features": {"x": 1}})
    newer = sources(tmp_path, member("half", version="2"))
    stack.publish(newer)
    assert normalize(stack, {"features": {"x": 1}})["release"] == published.digest  # cached
    assert normalize(stack, {"features": {"x": 1}, "release": newer.digest})["release"] == newer.digest
    assert normalize(stack, {"features": {"x": 1}})["release"] == newer.digest
    assert (
        normalize(stack, {"features": {"x": 1}, "release": published.digest})["failure"]["error"] == "ReleaseNotCurrent"
    )


def test_a_damaged_release_is_rejected(stack: MemoryStack, published: Sources) -> None:
    stack.artifacts.write(release_key(published.digest), b"{}")
    assert normalize(stack, {"features": {"x": 1}})["failure"]["error"] == "ReleaseCorrupt"


def test_a_storage_failure_is_raised_so_that_the_state_machine_retries(stack: MemoryStack) -> None:
    def fail(_: str) -> Any:
        raise StorageUnavailable("S3 is down")

    object.__setattr__(stack.artifacts, "calls", type("Failing", (dict,), {"__getitem__": lambda _, key: fail(key)})())
    with pytest.raises(StorageUnavailable, match="S3 is down"):
        normalize(stack, {"features": {"x": 1}})


def test_a_tensor_travels_with_its_dtype(tmp_path: Path) -> None:
    stack = MemoryStack()
    image = {"name": "image", "type": "tensor", "shape": [2, 2], "dtype": "uint8"}
    stack.publish(
        sources(tmp_path, member(columns=["x"]), member("t", "two_by_two", columns=["image"]), features=[X, image])
    )
    state = normalize(stack, {"features": {"x": 1, "image": [[1, 2], [3, 255]]}})
    assert state["columns"] == {"x": [1.0], "image": {"dtype": "uint8", "values": [[[1, 2], [3, 255]]]}}


# ------------------------------------------------------------------------------------------------------ a warm-up


def to_load(published: Sources, id_: str) -> dict[str, Any]:
    """Return a member as Normalize lists it in a warm-up."""
    (one,) = [one for one in published.release.members if one.id == id_]
    return {
        "id": id_,
        "version": one.version,
        "role": one.role,
        "release": published.digest,
        "runtime": "litert",
        "artifact": {"digest": one.artifact.digest, "size": one.artifact.size},
        "signature": None,
        "inputs": {"": {"dtype": "float32", "shape": (1,)}},
        "output": None,
    }


def test_for_a_warm_up_every_slot_is_listed_with_its_member_and_nothing_is_written(
    stack: MemoryStack, published: Sources
) -> None:
    assert normalize(stack, {"warmup": True}) == {
        "warmup": {"release": published.digest, "canary": None},
        "slots": (
            {"function": f"{PREFIX}1", "timeout": 10, "members": (to_load(published, "half"),)},
            {"function": f"{PREFIX}2", "timeout": 3, "members": (to_load(published, "shadow"),)},
        ),
    }
    assert stack.data.written == []


def test_for_a_warm_up_every_tier_is_listed(tmp_path: Path) -> None:
    stack = MemoryStack()
    stack.publish(sources(tmp_path, *TIERS, cascade={"max_spread": 0}, quorum={"min_members": 1}))
    listed = [member["id"] for slot in normalize(stack, {"warmup": True})["slots"] for member in slot["members"]]
    assert listed == ["a", "b", "c", "d"]


def test_a_slot_is_listed_once_with_the_canarys_members_and_a_shared_member_once(
    stack: MemoryStack, published: Sources, tmp_path: Path
) -> None:
    canary = sources(
        tmp_path, member("half", "sigmoid", version="2"), member("shadow", "logarithm", role="shadow", timeout=3)
    )
    publish(canary, stack.releases, SLOTS, canary=10)
    state = normalize(stack, {"warmup": True})
    assert state["warmup"] == {"release": published.digest, "canary": canary.digest}
    first, second = state["slots"]
    assert first["members"] == (to_load(published, "half"), to_load(canary, "half"))
    assert first["timeout"] == 20  # one after the other
    assert second["members"] == (to_load(published, "shadow"),)


def test_a_warm_up_uses_a_release_that_was_published_a_moment_ago(
    stack: MemoryStack, published: Sources, tmp_path: Path
) -> None:
    assert normalize(stack, {"features": {"x": 1}})["release"] == published.digest
    newer = sources(tmp_path, member("half", version="2"))
    stack.publish(newer)
    assert normalize(stack, {"warmup": True})["warmup"]["release"] == newer.digest


@pytest.mark.parametrize("payload", [{"warmup": False}, {"warmup": True, "features": {"x": 1}}])
def test_what_is_nearly_a_warm_up_is_rejected(stack: MemoryStack, payload: object) -> None:
    failure = normalize(stack, payload)["failure"]
    assert failure["error"] == "InvalidPayload"
    assert "- $.warmup: " in failure["cause"]


def test_a_warm_up_of_an_empty_stack_is_rejected() -> None:
    assert normalize(MemoryStack(), {"warmup": True})["failure"]["error"] == "NothingPublished"
