from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from builders import member, sources
from memory import MemoryStack
from stepensemble.core.aggregation.output import Output, Prediction
from stepensemble.core.errors import RecordNotFound, StorageUnavailable
from stepensemble.core.preprocessing.columns import (
    array_from_bytes,
    array_to_bytes,
    columns_from_bytes,
    columns_to_bytes,
)
from stepensemble.core.state_size import STATE_BYTES
from stepensemble.publishing.manifest_loader import Sources
from stepensemble.storage.keys import release_key
from stepensemble.storage.payload_pointers import follow_pointers

MEMBERS = [
    member("a", weight=1),
    member("b", weight=3),
    member("shadow", role="shadow"),
]
MORE: dict[str, Any] = {"aggregation": {"method": "weighted_mean"}, "quorum": {"min_members": 1}}


@pytest.fixture
def published(tmp_path: Path) -> Sources:
    return sources(tmp_path, *MEMBERS, **MORE)


@pytest.fixture
def stack(published: Sources) -> MemoryStack:
    made = MemoryStack()
    made.publish(published)
    return made


def ok(id_: str, outputs: Any) -> dict[str, Any]:
    return {"id": id_, "outputs": outputs, "duration_ms": 0.5, "cold": False}


def failed(id_: str, error: str = "Sandbox.Timedout", message: str = "Task timed out") -> dict[str, Any]:
    return {"id": id_, "error": {"Error": error, "Cause": json.dumps({"errorMessage": message})}}


def collect(*results: dict[str, Any]) -> dict[str, Any]:
    """Return a tier's results, voters and shadows separately, as the state machine collects them."""
    shadows = [one for one in results if one["id"] == "shadow"]
    return {"voters": [one for one in results if one not in shadows], **({"shadows": shadows} if shadows else {})}


def event(published: Sources, *results: dict[str, Any], run: str = "run-1", **more: Any) -> dict[str, Any]:
    execution = {"id": f"arn:{run}", "name": run, "started_at": "2026-03-01T11:59:59.000Z"}
    return {
        "prediction_id": "p",
        "release": published.digest,
        "rows": 1,
        "inline": True,
        "results": collect(*results),
        "earlier": [],
        "cascade": None,
        "payload": {"features": {"x": 1}, "metadata": {"why": "a test"}},
        "execution": execution,
        **more,
    }


ALL = [ok("a", [1.0]), ok("b", [5.0]), ok("shadow", [9.0])]


def test_a_prediction_is_returned_and_recorded(stack: MemoryStack, published: Sources) -> None:
    result = stack.aggregate(event(published, *ALL))
    assert (result["prediction_id"], result["release"], result["status"]) == ("p", published.digest, "COMPLETE")
    (prediction,) = result["predictions"]
    # (1 + 3 * 5) / 4; each two from their middle; the shadow's 9 is outside the voters' range.
    assert (prediction["value"], prediction["spread"], prediction["range"]) == (4.0, 2.0, 4.0)
    assert prediction["shadows"] == {"shadow": {"agrees": False, "flips": None}}
    assert [one["weight"] for one in result["members"]] == [0.25, 0.75, 0.0]
    record = stack.records.read("p")
    assert msgspec.to_builtins(record.output) == result
    assert record.input == {"features": {"x": 1}}
    assert record.metadata == {"why": "a test"}
    assert (record.execution, record.rows, record.failure) == ("arn:run-1", 1, None)
    assert (record.started_at, record.recorded_at) == ("2026-03-01T11:59:59.000Z", "2026-03-01T12:00:00.000+00:00")


def test_the_items_attributes_are_what_lists_and_filters_need(stack: MemoryStack, published: Sources) -> None:
    stack.aggregate(event(published, *ALL))
    item = stack.dynamo.items["p"]
    assert {key: value for key, value in item.items() if key != "record"} == {
        "prediction_id": {"S": "p"},
        "day": {"S": "2026-03-01"},
        "recorded_at": {"S": "2026-03-01T12:00:00.000+00:00"},
        "started_at": {"S": "2026-03-01T11:59:59.000Z"},
        "status": {"S": "COMPLETE"},
        "release": {"S": published.digest},
        "execution": {"S": "arn:run-1"},
        "rows": {"N": "1"},
    }


def test_a_failed_member_is_named_with_its_error(stack: MemoryStack, published: Sources) -> None:
    result = stack.aggregate(event(published, ok("a", [1.0]), failed("b"), ok("shadow", [9.0])))
    assert (result["status"], result["predictions"][0]["value"]) == ("DEGRADED", 1.0)
    assert result["members"][1]["error"] == {"type": "Sandbox.Timedout", "message": "Task timed out"}
    assert result["members"][1]["outputs"] is None


def test_a_retry_of_the_same_execution_records_once_and_returns_the_same(
    stack: MemoryStack, published: Sources
) -> None:
    first = stack.aggregate(event(published, *ALL))
    recorded = dict(stack.dynamo.items)
    stack.now += timedelta(minutes=1)
    # The retry may have other times and failures; the first output is the recorded one.
    assert stack.aggregate(event(published, ok("a", [1.0]), failed("b"))) == first
    assert stack.dynamo.items == recorded


def test_the_same_input_with_the_same_id_gets_the_recorded_output(stack: MemoryStack, published: Sources) -> None:
    first = stack.aggregate(event(published, *ALL))
    assert stack.aggregate(event(published, *ALL, run="run-2")) == first
    assert stack.records.read("p").execution == "arn:run-1"


def test_another_input_with_the_same_id_is_a_conflict(stack: MemoryStack, published: Sources) -> None:
    stack.aggregate(event(published, *ALL))
    other = event(published, *ALL, run="run-2", payload={"features": {"x": 2}})
    assert stack.aggregate(other)["failure"] == {
        "error": "PredictionConflict",
        "cause": 'the prediction id "p" is taken by another input, recorded at 2026-03-01T12:00:00.000+00:00; '
        "use a new id",
    }
    assert stack.records.read("p").input == {"features": {"x": 1}}


def test_no_quorum_is_recorded_and_returned_as_a_failure(stack: MemoryStack, published: Sources) -> None:
    result = stack.aggregate(event(published, failed("a"), failed("b"), ok("shadow", [9.0])))
    cause = "0 of 2 voters responded, and the quorum is 1; missing: a, b"
    assert result == {"failure": {"error": "QuorumNotMet", "cause": cause}}
    record = stack.records.read("p")
    assert (record.output.status, record.failure, record.output.predictions) == ("FAILED", cause, [])
    assert [one.status for one in record.output.members] == ["failed", "failed", "ok"]


def test_no_quorum_stays_the_outcome_and_a_repetition_names_it(stack: MemoryStack, published: Sources) -> None:
    failing = event(published, failed("a"), failed("b"))
    first = stack.aggregate(failing)
    assert stack.aggregate(failing) == first
    again = stack.aggregate(event(published, *ALL, run="run-2"))["failure"]
    assert again["error"] == "QuorumNotMet"
    assert again["cause"].endswith("; this is the recorded outcome, use another prediction id to predict again")


def pointed(stack: MemoryStack, published: Sources, rows: int, run: str = "run-1", ids: str = "ab") -> dict[str, Any]:
    """Return an event whose outputs are stored in the bucket: row n is n from "a" and n + 4 from "b"."""
    results = []
    for id_ in ids:
        outputs = np.arange(rows, dtype=np.float32) + (4 if id_ == "b" else 0)
        results.append(
            ok(id_, {"s3": stack.data.write(f"executions/{run}/outputs/{id_}.npy", array_to_bytes(outputs)).s3})
        )
    payload = {"instances": [{"x": row} for row in range(rows)]}
    return event(published, *results, rows=rows, inline=False, payload=payload, run=run)


def read_outputs(stack: MemoryStack, result: dict[str, Any]) -> dict[str, list[float]]:
    return {
        one["id"]: array_from_bytes(stack.data.read(one["outputs"]["s3"].removeprefix("s3://data/"))).tolist()
        for one in result["members"]
        if one["outputs"] is not None
    }


def test_many_rows_are_returned_by_pointer_and_recorded_whole(stack: MemoryStack, published: Sources) -> None:
    result = stack.aggregate(pointed(stack, published, 3000))
    assert len(json.dumps(result)) < 2_000
    key = result["predictions"]["s3"].removeprefix("s3://data/")
    predictions = msgspec.json.decode(stack.data.read(key), type=list[Prediction])
    assert [one.value for one in predictions] == [row + 3 for row in range(3000)]  # (n + 3 (n + 4)) / 4
    outputs = read_outputs(stack, result)
    assert outputs == {"a": list(range(3000)), "b": list(range(4, 3004))}
    record = stack.records.read("p")
    assert record.output.predictions == predictions
    assert {one.id: one.outputs for one in record.output.members if one.outputs} == outputs
    assert record.input == {"instances": [{"x": row} for row in range(3000)]}


def test_a_body_too_large_for_an_item_is_stored_compressed_in_the_bucket(
    stack: MemoryStack, published: Sources
) -> None:
    stack.aggregate(pointed(stack, published, 10_000))
    item = stack.dynamo.items["p"]
    assert "record" not in item
    assert item["record_s3"]["S"].startswith("s3://data/records/")
    key = item["record_s3"]["S"].removeprefix("s3://data/")
    assert len(stack.data.read(key)) < 400_000
    assert stack.records.read("p").rows == 10_000


def test_rows_that_came_by_pointer_are_recorded_themselves(stack: MemoryStack, published: Sources) -> None:
    pointer = stack.data.write("payloads/rows.json", b'[{"x": 1}]')
    stack.aggregate(event(published, *ALL, payload={"instances": {"s3": pointer.s3}}))
    assert stack.records.read("p").input == {"instances": [{"x": 1}]}


def test_a_recorded_output_is_returned_by_pointer_also_where_its_members_are_gone(
    stack: MemoryStack, published: Sources, tmp_path: Path
) -> None:
    first = stack.aggregate(pointed(stack, published, 3000))
    newer = sources(tmp_path, member("a"), member("c"))
    stack.publish(newer)
    again = pointed(stack, newer, 3000, run="run-2", ids="a")
    results = collect(*again["results"]["voters"], failed("c"))
    result = stack.aggregate({**again, "results": results})
    assert (result["release"], result["status"]) == (published.digest, "COMPLETE")
    assert read_outputs(stack, result) == read_outputs(stack, first)


@pytest.mark.parametrize("outputs", [[1.0, 2.0], [None], ["1"], [True]])
def test_outputs_that_are_not_as_declared_are_that_members_failure(
    stack: MemoryStack, published: Sources, outputs: Any
) -> None:
    result = stack.aggregate(event(published, ok("a", outputs), ok("b", [5.0])))
    assert (result["status"], result["predictions"][0]["value"]) == ("DEGRADED", 5.0)
    assert result["members"][0]["error"]["type"] == "InvalidOutput"


def test_records_expire_where_a_retention_is_set(stack: MemoryStack, published: Sources) -> None:
    object.__setattr__(stack.records, "retention_days", 30)
    stack.aggregate(event(published, *ALL))
    kept_until = stack.now + timedelta(days=30)
    assert stack.dynamo.items["p"]["expires_at"] == {"N": str(int(kept_until.timestamp()))}


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "PutItem"),
        EndpointConnectionError(endpoint_url="https://dynamodb"),
    ],
)
def test_a_transient_failure_of_the_table_is_raised_for_the_state_machine_to_try_again(
    stack: MemoryStack, published: Sources, error: Exception
) -> None:
    stack.dynamo.fails_with = error
    with pytest.raises(StorageUnavailable, match="DynamoDB: "):
        stack.aggregate(event(published, *ALL))
    assert stack.aggregate(event(published, *ALL))["status"] == "COMPLETE"


def test_a_table_without_space_is_named_and_not_tried_again(stack: MemoryStack, published: Sources) -> None:
    stack.dynamo.fails_with = ClientError(
        {
            "Error": {"Code": "StateUnwritable", "Message": "no space left on device"},
            "ResponseMetadata": {"HTTPStatusCode": 507},  # type: ignore[typeddict-item]
        },
        "PutItem",
    )
    failure = stack.aggregate(event(published, *ALL))["failure"]
    assert failure == {"error": "StorageFull", "cause": "nothing was recorded: no space left on device"}


def test_a_table_that_rejects_a_request_is_an_error(stack: MemoryStack, published: Sources) -> None:
    stack.dynamo.fails_with = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "PutItem")
    with pytest.raises(ClientError, match="AccessDenied"):
        stack.aggregate(event(published, *ALL))


def test_a_record_that_is_not_there_is_not_found(stack: MemoryStack) -> None:
    with pytest.raises(RecordNotFound, match='no record is stored for "p"; ensemble records lists all records'):
        stack.records.read("p")


# ------------------------------------------------------------------------------------------------- the next tier


@pytest.fixture
def tiers(tmp_path: Path) -> Sources:
    """Three tiers of a member each; a row whose voters agree is decided."""
    members = [member(id_, tier=tier) for id_, tier in [("first", 1), ("second", 2), ("third", 3)]]
    shadow = member("shadow", role="shadow", tier=2)
    return sources(tmp_path, *members, shadow, cascade={"max_spread": 0}, quorum={"min_members": 1})


@pytest.fixture
def cascade(tiers: Sources) -> MemoryStack:
    made = MemoryStack()
    made.publish(tiers)
    return made


def waiting(tiers: Sources, *ids: str) -> list[dict[str, Any]]:
    """Return members of later tiers, as Normalize lists them."""
    found = {one.id: one for one in tiers.release.members}
    return [
        {
            "id": id_,
            "tier": found[id_].tier,
            "role": found[id_].role,
            "function": f"slot-of-{id_}",
            "timeout": 10,
            "runtime": "litert",
            "artifact": {"digest": found[id_].artifact.digest, "size": found[id_].artifact.size},
            "inputs": {"": ["x"]},
            "signature": None,
            "output": None,
            "outputs_key": None,
        }
        for id_ in ids
    ]


def beginning(tiers: Sources, *outputs: float, **more: Any) -> dict[str, Any]:
    """Return the event after the first tier, whose only voter is always certain unless it failed."""
    columns = {"x": [float(number) for number in range(3)]}
    later = waiting(tiers, "second", "shadow", "third")
    result = ok("first", list(outputs)) if outputs else failed("first")
    payload = {"instances": [{"x": number} for number in range(3)]}
    event_ = event(tiers, result, rows=3, payload=payload, cascade={"columns": columns, "later": later})
    return {**event_, **more}


def test_two_releases_side_by_side_are_read_once_and_a_third_replaces_one(tmp_path: Path) -> None:
    stack = MemoryStack()
    versions = [sources(tmp_path, member("a", version=version)) for version in "123"]
    for one in versions:
        stack.publish(one)
    stack.artifacts.calls.clear()

    def result(*state: Sources) -> list[int]:
        for one in state:
            run = f"run-{len(stack.dynamo.items)}"
            stack.aggregate(event(one, ok("a", [1.0]), prediction_id=run))
        return [stack.artifacts.calls[release_key(one.digest)] for one in versions]

    first, second, third = versions
    assert result(*[first, second] * 5) == [1, 1, 0]
    assert result(*[third, second] * 5) == [1, 1, 1]
    assert result(first) == [2, 1, 1]


def test_a_tier_that_decides_every_row_is_the_last(cascade: MemoryStack, tiers: Sources) -> None:
    result = cascade.aggregate(beginning(tiers, 1, 2, 3))
    assert [one["tier"] for one in result["predictions"]] == [1, 1, 1]
    assert [one["status"] for one in result["members"]] == ["ok", "skipped", "skipped", "skipped"]


def test_undecided_rows_are_sent_to_the_next_tier_in_the_form_of_normalize(
    cascade: MemoryStack, tiers: Sources
) -> None:
    first = beginning(tiers)
    state = json.loads(json.dumps(cascade.aggregate(first)))
    second, shadow, third = waiting(tiers, "second", "shadow", "third")
    assert state == {
        "prediction_id": "p",
        "release": tiers.digest,
        "inline": True,
        "rows": 3,
        "columns": {"x": [0.0, 1.0, 2.0]},
        "members": [second],
        "shadows": [shadow],
        "earlier": [{"rows": 3, "results": {**first["results"], "shadows": []}}],
        "cascade": {"columns": {"x": [0.0, 1.0, 2.0]}, "later": [third]},
        "undecided": 3,
    }
    assert cascade.dynamo.items == {}


def continue_with(state: dict[str, Any], before: dict[str, Any], *results: dict[str, Any]) -> dict[str, Any]:
    """Return the event after the tier that was invoked."""
    recorded = {key: state[key] for key in ("prediction_id", "release", "inline", "rows", "earlier", "cascade")}
    return json.loads(json.dumps({**before, **recorded, "results": collect(*results)}))


@pytest.fixture
def pairs(tmp_path: Path) -> Sources:
    """Two tiers, of two members and one; a row on which the two agree is decided by them."""
    members = [member("a"), member("b"), member("c", tier=2)]
    return sources(tmp_path, *members, cascade={"max_spread": 0}, quorum={"min_members": 1})


def test_the_rows_of_the_next_tier_keep_their_places(pairs: Sources) -> None:
    stack = MemoryStack()
    stack.publish(pairs)
    later = waiting(pairs, "c")
    carried = {"columns": {"x": [0.5, 1.5, 2.5, 3.5]}, "later": later}
    payload = {"instances": [{"x": number + 0.5} for number in range(4)]}
    results = (ok("a", [1, 1, 1, 1]), ok("b", [1, 3, 1, 5]))
    first = event(pairs, *results, rows=4, payload=payload, cascade=carried)
    state = stack.aggregate(first)
    assert (state["rows"], state["columns"], state["cascade"]) == (2, {"x": [1.5, 3.5]}, None)
    result = stack.aggregate(continue_with(state, first, ok("c", [5, 9])))
    assert [one["tier"] for one in result["predictions"]] == [1, 2, 1, 2]
    assert [one["value"] for one in result["predictions"]] == [1, 3, 1, 5]  # (1 + 3 + 5) / 3, (1 + 5 + 9) / 3
    assert [one["outputs"] for one in result["members"]] == [[1, 1, 1, 1], [1, 3, 1, 5], [5, 9]]
    assert stack.records.read("p").rows == 4


def test_columns_of_undecided_rows_go_by_pointer_where_all_do(pairs: Sources) -> None:
    stack = MemoryStack()
    stack.publish(pairs)
    columns = {"x": np.arange(4, dtype=np.float32), "image": np.arange(16, dtype=np.uint8).reshape(4, 2, 2)}
    pointer = {"s3": stack.data.write("executions/run-1/columns.npz", columns_to_bytes(columns)).s3}
    (later,) = waiting(pairs, "c")
    carried = {"columns": pointer, "later": [{**later, "outputs_key": "executions/run-1/outputs/c.npy"}]}
    payload = {"instances": [{"x": number} for number in range(4)]}
    outputs = {"a": [1, 1, 1, 1], "b": [1, 3, 1, 5]}
    results = [
        ok(id_, {"s3": stack.data.write(f"executions/run-1/{id_}.npy", array_to_bytes(np.array(numbers))).s3})
        for id_, numbers in outputs.items()
    ]
    first = json.loads(
        msgspec.json.encode(event(pairs, *results, rows=4, payload=payload, inline=False, cascade=carried))
    )
    state = stack.aggregate(first)
    key = state["columns"]["s3"].removeprefix("s3://data/")
    assert key.endswith("/columns-2.npz")
    selected = columns_from_bytes(stack.data.read(key))
    assert selected["x"].tolist() == [1, 3]
    assert selected["image"].tolist() == columns["image"][[1, 3]].tolist()
    assert state["members"][0]["outputs_key"] == "executions/run-1/outputs/c.npy"
    assert state["earlier"][0]["results"]["voters"] == tuple(first["results"]["voters"])


def test_a_tier_with_results_for_other_rows_is_rejected(pairs: Sources) -> None:
    stack = MemoryStack()
    stack.publish(pairs)
    carried = {"columns": {"x": [1.0, 2.0]}, "later": waiting(pairs, "c")}
    payload = {"instances": [{"x": 1}, {"x": 2}]}
    first = event(pairs, ok("a", [1, 1]), ok("b", [1, 3]), rows=2, payload=payload, cascade=carried)
    second = continue_with(stack.aggregate(first), first, ok("c", [5, 9])) | {"rows": 2}
    cause = "tier 2 predicted 2 rows, and 1 are undecided; the stack was changed meanwhile, send the request again"
    assert stack.aggregate(second) == {"failure": {"error": "TierMismatch", "cause": cause}}
    assert stack.aggregate({**first, "cascade": None})["failure"]["error"] == "TierMismatch"
    assert stack.dynamo.items == {}


def test_a_recorded_output_too_large_for_a_state_is_returned_by_pointer(published: Sources, tmp_path: Path) -> None:
    # Many members were recorded by pointer; now two are invoked, and Normalize finds that these travel inline.
    stack, rows = MemoryStack(), 1200
    (tmp_path / "many").mkdir()
    many = sources(tmp_path / "many", *(member(f"m{number}") for number in range(8)))
    stack.publish(many)
    payload = {"instances": [{"x": 1}] * rows}
    results = [ok(f"m{number}", [1 / 3 + number] * rows) for number in range(8)]
    first = stack.aggregate(event(many, *results, rows=rows, payload=payload, inline=False))
    stack.publish(published)
    again = event(published, ok("a", [1.0] * rows), ok("b", [2.0] * rows), rows=rows, payload=payload, run="run-2")
    result = stack.aggregate(again)
    assert result["predictions"]["s3"].startswith("s3://data/executions/run-2")
    assert read_outputs(stack, result) == read_outputs(stack, first)


# ------------------------------------------------------------------------------------------------------ a warm-up


def warmed_slots(published: Sources) -> dict[str, Any]:
    """Return what Normalize returns for a warm-up, with `shadow` in the slot of `b`."""
    digest = published.digest
    member = {"version": "1", "role": "voter", "release": digest, "runtime": "litert", "signature": None}
    member |= {"artifact": {"digest": "0" * 64, "size": 1}, "inputs": {}, "output": None}
    slots = [
        {"function": "score-1", "timeout": 10, "members": [{**member, "id": "a"}]},
        {"function": "score-2", "timeout": 20, "members": [{**member, "id": "b"}, {**member, "id": "shadow"}]},
    ]
    return {"warmup": {"release": digest, "canary": None}, "slots": slots}


def test_a_warm_up_is_put_together_and_recorded_nowhere(stack: MemoryStack, published: Sources) -> None:
    error = {"type": "ModelRefused", "message": "no"}
    results = [{"members": [{"cold": True, "duration_ms": 3.5}]}]
    results += [{"members": [{"cold": False, "duration_ms": 0.1}, {"error": error}]}]
    result = stack.aggregate({**warmed_slots(published), "results": results})
    common = {"version": "1", "role": "voter", "release": published.digest}
    assert result == {
        "warmup": True,
        "release": published.digest,
        "canary": None,
        "members": (
            {"id": "a", **common, "function": "score-1", "cold": True, "duration_ms": 3.5, "error": None},
            {"id": "b", **common, "function": "score-2", "cold": False, "duration_ms": 0.1, "error": None},
            {"id": "shadow", **common, "function": "score-2", "cold": None, "duration_ms": None, "error": error},
        ),
    }
    assert stack.dynamo.items == {}
    assert stack.data.written == []


def test_the_failure_of_a_slot_is_that_of_all_its_members(stack: MemoryStack, published: Sources) -> None:
    caught = {"Error": "Sandbox.Timedout", "Cause": json.dumps({"errorMessage": "Task timed out"})}
    results = [{"members": [{"cold": True, "duration_ms": 3.5}]}, {"error": caught}]
    result = stack.aggregate({**warmed_slots(published), "results": results})
    timeout = {"type": "Sandbox.Timedout", "message": "Task timed out"}
    assert [member["error"] for member in result["members"]] == [None, timeout, timeout]


def test_after_a_warm_up_the_release_is_known_and_the_table_was_reached(stack: MemoryStack, published: Sources) -> None:
    results: list[dict[str, Any]] = [{"members": [{"cold": True, "duration_ms": 1.0}] * many} for many in (1, 2)]
    stack.aggregate({**warmed_slots(published), "results": results})
    stack.artifacts.calls.clear()
    stack.aggregate(event(published, *ALL))
    assert stack.artifacts.calls[release_key(published.digest)] == 0
    stack.dynamo.fails_with = EndpointConnectionError(endpoint_url="https://dynamodb")
    with pytest.raises(StorageUnavailable):
        stack.aggregate({**warmed_slots(published), "results": results})


def test_rows_that_name_who_is_missing_go_by_pointer_where_they_outgrow_a_state(
    stack: MemoryStack, tmp_path: Path
) -> None:
    rows, absent = 2000, "m" * 64
    read = sources(tmp_path, member("a"), member(absent), quorum={"min_members": 1})
    stack.publish(read)
    payload = {"instances": [{"x": 1}] * rows}
    state = event(read, ok("a", [1.0] * rows), ok(absent, [1.0, *[None] * (rows - 1)]), rows=rows, payload=payload)
    result = stack.aggregate(state)
    assert len(json.dumps(result)) < STATE_BYTES
    recorded = stack.records.read("p").output
    assert follow_pointers(stack.data, msgspec.convert(result, Output)) == recorded
    assert isinstance(recorded.predictions, list)
    assert [recorded.predictions[row].missing for row in (0, 1)] == [msgspec.UNSET, [absent]]
    assert recorded.members[1].outputs == [1.0, *[None] * (rows - 1)]
