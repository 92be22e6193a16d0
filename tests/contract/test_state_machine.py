"""The ensemble's state machine and its handlers: each state's output is the input that the next one reads."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import asl
from builders import ROOT, X, member, sources
from expected_events import list_events, without_volatile
from memory import SLOTS, MemoryStack
from stepensemble import Ensemble
from stepensemble.core import errors
from stepensemble.core.errors import EnsembleError, InvalidPayload
from stepensemble.handlers.batch.plan import MAX_LABEL_ATTEMPTS, MAX_SAMPLE_ATTEMPTS
from stepensemble.handlers.current_release import POINTER_SECONDS
from stepensemble.publishing.manifest_loader import read_sources
from stepensemble.publishing.publish import publish as publish_release
from stepensemble.storage.keys import artifact_key

DEFINITIONS = sorted((ROOT / "statemachine").glob("*.asl.json"))
ENSEMBLE = json.loads((ROOT / "statemachine" / "ensemble.asl.json").read_text())
ONE = {"min_members": 1}
Y = {**X, "name": "y"}
Z = {**X, "name": "z"}
BINARY: dict[str, Any] = {"task": {"type": "binary", "classes": ["no", "yes"]}, "features": [X, Y, Z]}
SHIPPED = ROOT / "models" / "manifest.json"


def states_of(machine: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """List a machine's states, those inside a Map or a Parallel included."""
    for name, state in machine["States"].items():
        yield name, state
        for inner in [*state.get("Branches", []), *([state["ItemProcessor"]] if "ItemProcessor" in state else [])]:
            yield from states_of(inner)


STATES = [
    pytest.param(state, id=f"{path.name}: {name}")
    for path in DEFINITIONS
    for name, state in states_of(json.loads(path.read_text()))
]
SHADOW = dict(states_of(ENSEMBLE))["Score a shadow"]
ERROR_NAMES = {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, EnsembleError)
}


@pytest.mark.parametrize("state", STATES)
def test_error_names_are_the_engines_or_ours(state: dict[str, Any]) -> None:
    named = {name for rule in state.get("Retry", []) + state.get("Catch", []) for name in rule["ErrorEquals"]}
    engines = ("States.", "Lambda.", "Runtime.", "Sandbox.", "StepFunctions.")
    assert {name for name in named if not name.startswith(engines)} <= ERROR_NAMES


@pytest.mark.parametrize("state", STATES)
def test_every_retry_has_full_jitter_and_a_cap(state: dict[str, Any]) -> None:
    for rule in state.get("Retry", []):
        assert rule["JitterStrategy"] == "FULL"
        assert max(asl.list_waits(rule)) <= 10
        assert 1 <= rule["MaxAttempts"] <= 5


ENDED = {"Runtime.ExitError", "Runtime.OutOfMemory", "Sandbox.Timedout", "Lambda.Unknown"}
"""How Step Functions names the end of a function's process: by the type that Lambda returns, or by none."""

TRANSIENT = {
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.TooManyRequestsException",
    "StorageUnavailable",
}
EVENTS = {"States.TaskFailed", "States.Timeout"}
START_EXECUTION = {
    "StepFunctions.ThrottlingException",
    "StepFunctions.ExecutionLimitExceededException",
    "StepFunctions.SdkClientException",
}


def expect_retries(state: dict[str, Any]) -> list[tuple[set[str], int]]:
    """Return the retries that a state needs: the errors, and how often they are retried."""
    if state["Type"] != "Task" or state == SHADOW:
        return []
    match state["Resource"].rpartition(":::")[2]:
        case "events:putEvents":  # only one of its errors has a documented name
            return [(EVENTS, 4)]
        case "states:startExecution.sync:2":  # the execution that it starts has retries of its own
            return [(START_EXECUTION, 5)]
    # A slot is retried once, so that a voter is waited for twice its timeout at most. Plan survives an end of its
    # process in two places, twice in each.
    slot, plan = "TimeoutSecondsPath" in state, state["Parameters"].get("FunctionName") == "${PlanFunctionArn}"
    return [
        (TRANSIENT, 4),
        (ENDED | {"States.Timeout"}, 1 if slot else MAX_SAMPLE_ATTEMPTS + MAX_LABEL_ATTEMPTS if plan else 2),
    ]


@pytest.mark.parametrize("state", STATES)
def test_every_task_has_a_timeout_and_the_retries_that_it_needs_and_no_others(state: dict[str, Any]) -> None:
    assert [(set(rule["ErrorEquals"]), rule["MaxAttempts"]) for rule in state.get("Retry", [])] == expect_retries(state)
    if state["Type"] == "Task":
        assert "TimeoutSeconds" in state or "TimeoutSecondsPath" in state


def test_there_are_as_many_different_retries_as_needed() -> None:
    # Transient errors; ended processes in a slot, in Plan and in the other functions; events; started executions.
    states = [state for path in DEFINITIONS for _, state in states_of(json.loads(path.read_text()))]
    assert len({json.dumps(rule) for state in states for rule in state.get("Retry", [])}) == 6


def test_a_shadow_is_invoked_like_a_voter_but_without_retries() -> None:
    tasks = dict(states_of(ENSEMBLE))
    (catch,) = SHADOW["Catch"]
    for name in ("Score", "Score a voter"):
        (other,) = tasks[name]["Catch"]
        unretried = {key: value for key, value in tasks[name].items() if key != "Retry"}
        assert {**SHADOW, "Catch": [{**catch, "Next": other["Next"]}]} == unretried
        assert tasks[name]["Retry"] == tasks["Score"]["Retry"]
        assert tasks[catch["Next"]] == tasks[other["Next"]]


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.name)
def test_no_two_states_of_a_machine_have_the_same_name(path: Path) -> None:
    names = [name for name, _ in states_of(json.loads(path.read_text()))]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.name)
def test_definitions_are_json_path(path: Path) -> None:
    text = path.read_text()
    assert "JSONata" not in text
    assert "{%" not in text


def functions(stack: MemoryStack) -> dict[str, Callable[[Any], Any]]:
    """Return the functions by the names that the definition and Normalize use."""
    known: dict[str, Callable[[Any], Any]] = {**stack.slots}
    known["${NormalizeFunctionArn}"] = stack.normalize
    known["${AggregateFunctionArn}"] = stack.aggregate
    known[asl.PUT_EVENTS] = stack.put_events
    return known


def run(stack: MemoryStack, payload: object, name: str = "run-1", entered: list[str] | None = None) -> Any:
    return asl.run(ENSEMBLE, functions(stack), payload, name, entered)


def publish(folder: Path, *members: dict[str, Any], **more: Any) -> tuple[MemoryStack, Ensemble]:
    """Publish an ensemble; return the stack, and the same ensemble in process."""
    stack, read = MemoryStack(), sources(folder, *members, **more)
    stack.publish(read)
    return stack, Ensemble.load(read.path)


@pytest.fixture
def shipped() -> MemoryStack:
    stack = MemoryStack()
    stack.publish(read_sources(SHIPPED))
    return stack


@pytest.mark.parametrize("event", list_events("passenger"), ids=lambda path: path.name)
def test_each_states_output_is_the_input_that_the_next_one_reads(shipped: MemoryStack, event: Path) -> None:
    payload = json.loads(event.read_text())
    output = run(shipped, payload)
    assert without_volatile(output) == without_volatile(Ensemble.load(SHIPPED).predict(payload))
    assert output["prediction_id"] == "run-1"
    record = shipped.records.read("run-1")
    assert (record.execution, record.started_at) == ("arn:run-1", asl.STARTED_AT)
    assert record.metadata == payload.get("metadata", {})


def test_a_rejected_payload_fails_with_the_errors_name_and_cause(shipped: MemoryStack) -> None:
    with pytest.raises(asl.Failed) as failed:
        run(shipped, {"features": {}})
    assert failed.value.error == "InvalidPayload"
    assert "$.features.Sex: is missing" in failed.value.cause
    assert shipped.dynamo.items == {}


def test_a_members_failure_is_carried_as_data(tmp_path: Path) -> None:
    stack = MemoryStack()
    stack.publish(sources(tmp_path, member("half"), member("log", "logarithm"), quorum={"min_members": 1}))
    output = run(stack, {"features": {"x": -1}})
    assert output["status"] == "DEGRADED"
    half, log = output["members"]
    assert (half["status"], half["outputs"]) == ("ok", [1.5])
    assert (log["status"], log["outputs"]) == ("failed", [None])
    assert log["error"] == {"type": "InvalidOutput", "message": "the output of row 0 is not finite (1 of 1 rows)"}


def test_a_missed_quorum_fails_with_the_errors_name_and_is_recorded(tmp_path: Path) -> None:
    stack = MemoryStack()
    stack.publish(sources(tmp_path, member("half"), member("log", "logarithm")))
    with pytest.raises(asl.Failed) as failed:
        run(stack, {"features": {"x": -1}})
    assert failed.value.error == "QuorumNotMet"
    assert (
        failed.value.cause
        == "1 of 2 voters responded, and the quorum is 2; missing: log; log: its output is not finite"
    )
    assert stack.records.read("run-1").output.status == "FAILED"


def test_ten_thousand_rows_pass_every_state_by_pointer(tmp_path: Path) -> None:
    stack, read = MemoryStack(), sources(tmp_path, member("a"), member("b"))
    stack.publish(read)
    body = json.dumps([{"x": row} for row in range(10_000)]).encode()
    output = run(stack, {"instances": {"s3": stack.data.write("payloads/rows.json", body).s3}})
    assert output["predictions"]["s3"].startswith("s3://data/executions/run-1-")
    whole = Ensemble.load(read.path).predict({"instances": json.loads(body)})
    stored = json.loads(stack.data.read(output["predictions"]["s3"].removeprefix("s3://data/")))
    assert stored == whole["predictions"]


@pytest.mark.parametrize("rows", [1, 200, 300, 400, 500, 600, 700, 3000])
def test_states_stay_within_the_size_limit(tmp_path: Path, rows: int) -> None:
    # Around the number of rows at which inline data become pointers; `asl` measures every state.
    stack, _ = publish(tmp_path, *(member(f"m{number}") for number in range(8)))
    output = run(stack, {"instances": [{"x": row / 3} for row in range(rows)]})
    assert isinstance(output["predictions"], list) == (rows <= 500)


# Each with its output for the columns x, y and z, computed by hand.
INPUTS: dict[str, tuple[dict[str, Any], Callable[[Any], float]]] = {
    # y = a + b
    "sum": (member("sum", "two_inputs", inputs={"b": ["y"], "a": ["x"]}), lambda row: row["x"] + row["y"]),
    # total = a + b[0] + b[1], first = a
    "total": (
        member("total", "named", output={"kind": "value", "name": "total"}, inputs={"a": ["z"], "b": ["y", "z"]}),
        lambda row: row["z"] + row["y"] + row["z"],
    ),
    "first": (
        member("first", "named", output={"kind": "value", "name": "first"}, inputs={"b": ["x", "y"], "a": ["z"]}),
        lambda row: row["z"],
    ),
    "half": (member("half", "signatures", signature="half", columns=["y"]), lambda row: row["y"] / 2 + 2),
    "double": (
        member("double", "signatures", signature="double", inputs={"x": ["z"]}, role="shadow"),
        lambda row: row["z"] * 2,
    ),
}


@pytest.mark.parametrize("rows", [2, 5_000])
@pytest.mark.parametrize("tiers", [1, 2])
def test_named_inputs_outputs_and_signatures_give_the_same_as_in_process(tmp_path: Path, tiers: int, rows: int) -> None:
    # Tier 1 agrees on no row, so that tier 2 is invoked for every row.
    members = [{**one, "tier": tiers if id_ == "half" else 1} for id_, (one, _) in INPUTS.items()]
    more = {"cascade": {"max_spread": 0}, "quorum": ONE} if tiers == 2 else {}
    stack, ensemble = publish(tmp_path, *members, features=[X, Y, Z], **more)
    instances = [{"x": row, "y": row + 1, "z": row * 3 + 1} for row in range(rows)]
    payload = {"instances": {"s3": stack.data.write("payloads/rows.json", json.dumps(instances).encode()).s3}}
    output = run(stack, payload)
    assert {one["status"] for one in output["members"]} == {"ok"}
    for one in stack.records.read("run-1").output.members:
        by_hand = INPUTS[one.id][1]
        assert one.outputs == [by_hand(row) for row in instances]
    assert isinstance(output["predictions"], list) == (rows == 2)
    whole = ensemble.predict({"instances": instances})
    if rows == 2:
        assert without_volatile(output) == without_volatile(whole)
    else:
        stored = json.loads(stack.data.read(output["predictions"]["s3"].removeprefix("s3://data/")))
        assert stored == whole["predictions"]


def test_a_named_text_output_is_a_label(tmp_path: Path) -> None:
    text = member("text", "text", output={"kind": "label", "name": "label", "one_hot": True}, columns=["x"])
    task = {"type": "binary", "classes": ["no", "yés"]}
    stack, ensemble = publish(tmp_path, text, task=task, features=[X, Y])
    payload = {"instances": [{"x": 1, "y": 0}, {"x": -1, "y": 0}]}
    output = run(stack, payload)
    assert output["members"][0]["outputs"] == [one["label"] for one in output["predictions"]] == ["yés", "no"]
    assert without_volatile(output) == without_volatile(ensemble.predict(payload))


def test_a_canarys_model_in_a_slot_of_the_current_release_is_loaded_once(tmp_path: Path) -> None:
    stack = MemoryStack()
    current, canary = sources(tmp_path, member("a")), sources(tmp_path, member("a", "sigmoid"))
    stack.publish(current)
    publish_release(canary, stack.releases, SLOTS, canary=10)
    stack.artifacts.calls.clear()
    colds = [
        run(stack, {"features": {"x": 0}, "release": one.digest}, f"run-{turn}-{one.digest[:4]}")["members"][0]["cold"]
        for turn in range(3)
        for one in (current, canary)
    ]
    assert colds == [True, True, False, False, False, False]
    counts = [stack.artifacts.calls[artifact_key(one.release.members[0].artifact.digest)] for one in (current, canary)]
    assert counts == [1, 1]


NAMES = [f"{letter}-{'m' * 40}" for letter in "abcdef"]
TIERS = {
    "members": [member(name, "softmax", "probabilities", tier=1 + place // 2) for place, name in enumerate(NAMES)],
    "cascade": {"min_margin": 1},
}
STACK = {
    "members": [member(name, "softmax", "probabilities") for name in NAMES],
    "aggregation": {"method": "stack", "missing": "mean", "coefficients": dict.fromkeys(NAMES, [[1 / 3] * 3] * 3)},
}


@pytest.mark.parametrize("rows", [1, 100, 130, 140, 200, 3000])
@pytest.mark.parametrize("parts", [pytest.param(TIERS, id="three tiers"), pytest.param(STACK, id="a stack")])
def test_states_stay_within_the_size_limit_with_the_largest_predictions(
    tmp_path: Path, rows: int, parts: dict[str, Any]
) -> None:
    # Three classes, six voters, two shadows; every row goes through every tier, and needs a review.
    shadows = [member(f"shadow-{place}", "softmax", "probabilities", role="shadow") for place in range(2)]
    more = {key: value for key, value in parts.items() if key != "members"} | {"review": {"min_margin": 1}}
    task = {"type": "multiclass", "classes": ["red", "green", "blue"]}
    stack, ensemble = publish(tmp_path, *parts["members"], *shadows, task=task, features=[X, Y], quorum=ONE, **more)
    payload = {"instances": [{"x": row % 9 / 3, "y": row % 8 / 7} for row in range(rows)]}
    output = run(stack, payload)
    assert output["needs_review"] == rows
    assert {one["status"] for one in output["members"]} == {"ok"}
    assert isinstance(output["predictions"], list) == (rows <= 130)
    if rows <= 130:
        assert without_volatile(output) == without_volatile(ensemble.predict(payload))


def test_an_edited_manifest_is_used_by_the_next_execution(tmp_path: Path) -> None:
    stack = MemoryStack()
    stack.publish(sources(tmp_path, member("half")))
    assert [one["id"] for one in run(stack, {"features": {"x": 1}}, "before")["members"]] == ["half"]
    newer = sources(tmp_path, member("half"), member("log", "logarithm"))
    stack.publish(newer)
    stack.clock.seconds += POINTER_SECONDS
    output = run(stack, {"features": {"x": 1}}, "after")
    assert output["release"] == newer.digest
    assert [one["outputs"] for one in output["members"]] == [[2.5], [0.0]]


def sigmoid(id_: str, column: str, **more: Any) -> dict[str, Any]:
    """Return a member whose output is 1 / (1 + exp(-column))."""
    return member(id_, "sigmoid", "probability", columns=[column], **more)


def probability(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# ------------------------------------------------------------------------------------------------- transitions


@pytest.mark.parametrize("members", [1, 4, 8])
def test_without_tiers_shadows_and_reviews_an_execution_enters_six_states_and_one_per_member(
    tmp_path: Path, members: int
) -> None:
    stack, _ = publish(tmp_path, *(member(f"m{number}") for number in range(members)))
    entered: list[str] = []
    run(stack, {"features": {"x": 1}}, entered=entered)
    assert entered == [
        "Normalize",
        "Accepted?",
        "Score members",
        *["Score"] * members,
        "Aggregate",
        "Next tier or events?",
        "Succeed",
    ]


def test_shadows_cost_two_transitions_and_one_per_shadow(tmp_path: Path) -> None:
    shadows = [member(f"s{number}", role="shadow") for number in range(3)]
    stack, _ = publish(tmp_path, member("a"), member("b"), *shadows)
    entered: list[str] = []
    run(stack, {"features": {"x": 1}}, entered=entered)
    assert entered[2:-3] == [
        "Score members and shadows",
        "Score voters",
        *["Score a voter"] * 2,
        "Score shadows",
        *["Score a shadow"] * 3,
    ]
    assert len(entered) == 6 + 2 + 5


def test_a_further_tier_costs_three_transitions_and_one_per_member(tmp_path: Path) -> None:
    stack, _ = publish(
        tmp_path, sigmoid("a", "x"), sigmoid("b", "y", tier=2), cascade={"min_margin": 0.5}, quorum=ONE, **BINARY
    )
    sure: list[str] = []
    run(stack, {"features": {"x": 9, "y": 0, "z": 0}}, "sure", sure)
    assert len(sure) == 6 + 1
    unsure: list[str] = []
    run(stack, {"features": {"x": 0, "y": 0, "z": 0}}, "unsure", unsure)
    assert unsure[4:] == [
        "Aggregate",
        "Next tier or events?",
        "Score members",
        "Score",
        "Aggregate",
        "Next tier or events?",
        "Succeed",
    ]
    assert len(unsure) == 6 + 1 + 3 + 1


# ---------------------------------------------------------------------------------------------------- the cascade

ROWS = [
    {"x": 5, "y": 0, "z": 0},  # decided by tier 1
    {"x": 0, "y": -5, "z": 0},  # decided by tier 2, which halves the margin: (1/2 + p(-5)) / 2
    {"x": 0, "y": 0, "z": 5},  # decided by no tier: (1/2 + 1/2 + p(5)) / 3
    {"x": -4, "y": 0, "z": 0},  # decided by tier 1
]


def test_each_tier_decides_the_rows_within_the_cascades_margin(tmp_path: Path) -> None:
    stack, ensemble = publish(
        tmp_path, sigmoid("a", "x"), sigmoid("b", "y", tier=2), cascade={"min_margin": 0.4}, quorum=ONE, **BINARY
    )
    output = run(stack, {"instances": ROWS})
    assert [one["tier"] for one in output["predictions"]] == [1, 2, 2, 1]
    values = [probability(5), (0.5 + probability(-5)) / 2, 0.5, probability(-4)]
    assert [one["value"] for one in output["predictions"]] == pytest.approx(values, abs=1e-6)
    first, second = output["members"]
    assert first["outputs"] == pytest.approx([probability(row["x"]) for row in ROWS], abs=1e-6)
    assert second["outputs"] == pytest.approx([probability(-5), 0.5], abs=1e-6)
    assert without_volatile(output) == without_volatile(ensemble.predict({"instances": ROWS}))
    record = stack.records.read("run-1")
    assert (record.rows, record.input) == (4, {"instances": ROWS})


def test_each_later_tier_is_invoked_for_fewer_rows(tmp_path: Path) -> None:
    members = [sigmoid("a", "x"), sigmoid("b", "y", tier=2), sigmoid("c", "z", tier=3)]
    stack, ensemble = publish(tmp_path, *members, cascade={"min_margin": 0.4}, quorum=ONE, **BINARY)
    output = run(stack, {"instances": ROWS})
    assert [one["tier"] for one in output["predictions"]] == [1, 2, 3, 1]
    assert [len(one["outputs"]) for one in output["members"]] == [4, 2, 1]
    assert output["predictions"][2]["value"] == pytest.approx((1 + probability(5)) / 3, abs=1e-6)
    assert without_volatile(output) == without_volatile(ensemble.predict({"instances": ROWS}))


def test_a_tier_that_no_row_needs_is_not_invoked(tmp_path: Path) -> None:
    stack, ensemble = publish(
        tmp_path, sigmoid("a", "x"), sigmoid("b", "y", tier=2), cascade={"min_margin": 0.4}, quorum=ONE, **BINARY
    )
    payload = {"instances": [ROWS[0], ROWS[3]]}
    output = run(stack, payload)
    assert [one["status"] for one in output["members"]] == ["ok", "skipped"]
    assert (output["status"], output["participation"]["voter"]["invoked"]) == ("COMPLETE", 1)
    assert without_volatile(output) == without_volatile(ensemble.predict(payload))


def test_nothing_is_recorded_until_every_row_is_decided(tmp_path: Path) -> None:
    stack, _ = publish(
        tmp_path, sigmoid("a", "x"), sigmoid("b", "y", tier=2), cascade={"min_margin": 0.4}, quorum=ONE, **BINARY
    )
    recorded: list[int] = []

    def aggregate(event: Any) -> Any:
        recorded.append(len(stack.dynamo.items))
        return stack.aggregate(event)

    asl.run(ENSEMBLE, functions(stack) | {"${AggregateFunctionArn}": aggregate}, {"instances": ROWS})
    assert recorded == [0, 0]
    assert len(stack.dynamo.items) == 1


def test_a_tier_without_a_quorum_decides_no_row_and_the_next_tier_is_invoked(tmp_path: Path) -> None:
    broken = member("a", "two_by_two", "probability", columns=["x"])
    stack, ensemble = publish(
        tmp_path, broken, sigmoid("b", "y", tier=2), cascade={"min_margin": 0.4}, quorum=ONE, **BINARY
    )
    output = run(stack, {"instances": ROWS})
    assert (output["status"], [one["tier"] for one in output["predictions"]]) == ("DEGRADED", [2] * 4)
    assert output["members"][0]["error"]["type"] == "InputMismatch"
    assert without_volatile(output) == without_volatile(ensemble.predict({"instances": ROWS}))


def test_the_execution_fails_without_a_quorum_in_the_last_tier(tmp_path: Path) -> None:
    broken = [member(id_, "two_by_two", "probability", columns=["x"], tier=tier) for id_, tier in [("a", 1), ("b", 2)]]
    stack, _ = publish(tmp_path, *broken, cascade={"min_margin": 0.4}, quorum=ONE, **BINARY)
    with pytest.raises(asl.Failed) as failed:
        run(stack, {"instances": ROWS})
    assert failed.value.error == "QuorumNotMet"
    assert stack.records.read("run-1").output.status == "FAILED"


def test_a_cascade_of_ten_thousand_rows_passes_every_state_by_pointer(tmp_path: Path) -> None:
    members = [sigmoid("a", "x"), sigmoid("b", "y", tier=2), sigmoid("c", "z", tier=3)]
    stack, ensemble = publish(tmp_path, *members, cascade={"min_margin": 0.4}, quorum=ONE, **BINARY)
    rows = ROWS * 2500
    body = json.dumps(rows).encode()
    output = run(stack, {"instances": {"s3": stack.data.write("payloads/rows.json", body).s3}})
    whole = ensemble.predict({"instances": rows})
    record = stack.records.read("run-1")
    assert json.loads(stack.data.read(output["predictions"]["s3"].removeprefix("s3://data/"))) == whole["predictions"]
    assert [len(one.outputs) for one in record.output.members] == [10_000, 5_000, 2_500]  # type: ignore[arg-type]
    written = [key.rsplit("/", 1)[1] for key in stack.data.written if "columns" in key]
    assert written == ["columns.npz", "columns-2.npz", "columns-3.npz"]
    outputs = [one["outputs"]["s3"] for one in output["members"]]
    assert [pointer.rsplit("/", 1)[1] for pointer in outputs] == ["a.npy", "b.npy", "c.npy"]


# ---------------------------------------------------------------------------------------------------- shadows


def test_a_failing_shadow_leaves_the_status_complete(tmp_path: Path) -> None:
    stack, ensemble = publish(tmp_path, member("a"), member("log", "logarithm", role="shadow"))
    output = run(stack, {"features": {"x": -1}})
    assert (output["status"], output["predictions"][0]["value"]) == ("COMPLETE", 1.5)
    assert output["members"][1]["error"]["type"] == "InvalidOutput"
    assert without_volatile(output) == without_volatile(ensemble.predict({"features": {"x": -1}}))


def test_the_shadows_of_a_tier_are_invoked_with_it(tmp_path: Path) -> None:
    members = [
        sigmoid("a", "x"),
        sigmoid("b", "y", tier=2),
        sigmoid("first", "z", role="shadow"),
        sigmoid("second", "z", role="shadow", tier=2),
    ]
    stack, ensemble = publish(tmp_path, *members, cascade={"min_margin": 0.4}, quorum=ONE, **BINARY)
    entered: list[str] = []
    output = run(stack, {"instances": ROWS}, entered=entered)
    assert entered.count("Score members and shadows") == 2
    assert "Score members" not in entered
    assert [len(one["outputs"]) for one in output["members"]] == [4, 2, 4, 2]
    assert without_volatile(output) == without_volatile(ensemble.predict({"instances": ROWS}))


# ---------------------------------------------------------------------------------------------------- reviews


@pytest.fixture
def reviewing(tmp_path: Path) -> MemoryStack:
    """Return a stack with one member, whose rows need a review if the margin is below 0.4."""
    return publish(tmp_path, sigmoid("a", "x"), review={"min_margin": 0.4}, **BINARY)[0]


def test_a_review_is_requested_once_and_without_features(reviewing: MemoryStack) -> None:
    entered: list[str] = []
    output = run(reviewing, {"instances": ROWS, "prediction_id": "p"}, entered=entered)
    assert [one["decision"] for one in output["predictions"]] == ["accept", "review", "review", "accept"]
    assert reviewing.events == [
        {
            "Source": "stepensemble",
            "DetailType": "PredictionNeedsReview",
            "EventBusName": "${EventBusName}",
            "Detail": {
                "stack": "${StackName}",
                "prediction_id": "p",
                "release": output["release"],
                "status": "COMPLETE",
                "needs_review": 2,
                "execution": "arn:run-1",
            },
        }
    ]
    assert entered[-3:] == ["Next tier or events?", "Request review", "Succeed"]
    assert len(entered) == 6 + 1 + 1


def test_no_review_is_requested_if_no_row_needs_one(reviewing: MemoryStack) -> None:
    assert run(reviewing, {"instances": [ROWS[0], ROWS[3]]})["needs_review"] == 0
    assert reviewing.events == []


def test_a_repeated_request_sends_the_review_event_again(reviewing: MemoryStack) -> None:
    payload = {"features": ROWS[1], "prediction_id": "p"}
    assert run(reviewing, payload, "first") == run(reviewing, payload, "second")
    assert [event["Detail"]["execution"] for event in reviewing.events] == ["arn:first", "arn:second"]


def test_an_event_that_cannot_be_sent_fails_the_execution_and_leaves_its_record(reviewing: MemoryStack) -> None:
    def reject(_: Any) -> None:
        raise asl.Failed("EventBridge.FailedEntry", "no")

    with pytest.raises(asl.Failed, match="FailedEntry"):
        asl.run(ENSEMBLE, functions(reviewing) | {asl.PUT_EVENTS: reject}, {"features": ROWS[1]})
    assert reviewing.records.read("run-1").output.needs_review == 1


# ---------------------------------------------------------------------------------------- predictions announced


def announcing(definition: dict[str, Any]) -> dict[str, Any]:
    """Return the definition as it is deployed if predictions are announced."""
    return dict(json.loads(json.dumps(definition).replace("${AnnouncedStatuses}", "*")))


def run_announcing(stack: MemoryStack, payload: object, name: str = "run-1", entered: list[str] | None = None) -> Any:
    return asl.run(announcing(ENSEMBLE), functions(stack), payload, name, entered)


def test_a_prediction_is_announced_with_the_place_of_its_record_and_without_features(tmp_path: Path) -> None:
    stack, _ = publish(tmp_path, member("half"), member("log", "logarithm"), quorum=ONE)
    entered: list[str] = []
    output = run_announcing(stack, {"features": {"x": -1}}, entered=entered)
    assert stack.events == [
        {
            "Source": "stepensemble",
            "DetailType": "PredictionCompleted",
            "EventBusName": "${EventBusName}",
            "Detail": {
                "stack": "${StackName}",
                "prediction_id": "run-1",
                "release": output["release"],
                "status": "DEGRADED",
                "needs_review": 0,
                "record": {
                    "table": "${RecordsTable}",
                    "key": {"prediction_id": "run-1"},
                    "path": "/predictions/run-1",
                },
                "execution": "arn:run-1",
            },
        }
    ]
    assert entered[-3:] == ["Next tier or events?", "Announce", "Succeed"]
    assert len(entered) == 6 + 2 + 1


def test_a_prediction_that_needs_a_review_is_announced_in_the_same_transition(reviewing: MemoryStack) -> None:
    entered: list[str] = []
    output = run_announcing(reviewing, {"instances": ROWS, "prediction_id": "p"}, entered=entered)
    assert [event["DetailType"] for event in reviewing.events] == ["PredictionNeedsReview", "PredictionCompleted"]
    assert [event["Detail"]["needs_review"] for event in reviewing.events] == [2, 2]
    assert {event["Detail"]["release"] for event in reviewing.events} == {output["release"]}
    assert entered[-3:] == ["Next tier or events?", "Request review and announce", "Succeed"]


def test_no_prediction_is_announced_if_the_parameter_is_off(reviewing: MemoryStack) -> None:
    off = json.loads(json.dumps(ENSEMBLE).replace("${AnnouncedStatuses}", "none"))
    entered: list[str] = []
    asl.run(off, functions(reviewing), {"instances": ROWS}, entered=entered)
    asl.run(off, functions(reviewing), {"instances": [ROWS[0], ROWS[3]]}, "sure", entered)
    assert [event["DetailType"] for event in reviewing.events] == ["PredictionNeedsReview"]
    assert not {"Announce", "Request review and announce"} & set(entered)


def test_only_the_last_tier_announces_the_prediction(tmp_path: Path) -> None:
    stack, _ = publish(
        tmp_path, sigmoid("a", "x"), sigmoid("b", "y", tier=2), cascade={"min_margin": 0.4}, quorum=ONE, **BINARY
    )
    run_announcing(stack, {"instances": ROWS})
    assert [event["DetailType"] for event in stack.events] == ["PredictionCompleted"]


def test_a_failed_execution_announces_nothing(tmp_path: Path) -> None:
    stack, _ = publish(tmp_path, member("half"), member("log", "logarithm"))
    for payload in ({"features": {"x": -1}}, {"features": {}}):
        with pytest.raises(asl.Failed):
            run_announcing(stack, payload)
    assert stack.events == []


def test_an_announcement_that_cannot_be_sent_fails_the_execution_and_leaves_its_record(tmp_path: Path) -> None:
    def reject(_: Any) -> None:
        raise asl.Failed("EventBridge.FailedEntry", "no")

    stack, _ = publish(tmp_path, member("half"))
    with pytest.raises(asl.Failed, match="FailedEntry"):
        asl.run(announcing(ENSEMBLE), functions(stack) | {asl.PUT_EVENTS: reject}, {"features": {"x": 1}})
    assert stack.records.read("run-1").output.status == "COMPLETE"


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.name)
def test_every_state_can_be_reached(path: Path) -> None:
    # Otherwise AWS rejects the definition (MISSING_TRANSITION_TARGET); it reads no conditions of a Choice.
    for machine in machines_in(json.loads(path.read_text())):
        named = {machine["StartAt"]}
        for state in machine["States"].values():
            ways = [state, *state.get("Catch", []), *state.get("Choices", [])]
            named |= {way[key] for way in ways for key in ("Next", "Default") if key in way}
        assert named == set(machine["States"])


def machines_in(machine: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """List a machine and those inside its Maps and Parallels."""
    yield machine
    for state in machine["States"].values():
        for inner in [*state.get("Branches", []), *([state["ItemProcessor"]] if "ItemProcessor" in state else [])]:
            yield from machines_in(inner)


# ---------------------------------------------------------------------------------------------------- a warm-up

WARM_UP = {"warmup": True}


def test_a_warm_up_loads_the_models_of_the_next_execution_and_records_nothing(shipped: MemoryStack) -> None:
    entered: list[str] = []
    first = run(shipped, WARM_UP, entered=entered)
    assert entered == ["Normalize", "Accepted?", "Warm up", *["Warm up a slot"] * 4, "Warm up Aggregate", "Succeed"]
    assert [one["cold"] for one in first["members"]] == [True] * 4
    assert [one["cold"] for one in run(shipped, WARM_UP, "again")["members"]] == [False] * 4
    assert (shipped.dynamo.items, shipped.data.written, shipped.events) == ({}, [], [])
    passenger = json.loads((ROOT / "events" / "passenger.json").read_text())
    assert [one["cold"] for one in run(shipped, passenger, "next")["members"]] == [False] * 4
    assert list(shipped.dynamo.items) == ["next"]


def test_a_warm_up_is_not_announced(shipped: MemoryStack) -> None:
    entered: list[str] = []
    run_announcing(shipped, WARM_UP, entered=entered)
    assert (shipped.events, "Announce" in entered) == ([], False)


def test_a_warm_up_loads_tiers_shadows_and_the_canary(tmp_path: Path) -> None:
    stack = MemoryStack()
    members = [sigmoid("a", "x"), sigmoid("b", "y", tier=2), sigmoid("s", "z", role="shadow")]
    more: dict[str, Any] = {"cascade": {"min_margin": 0.4}, "quorum": ONE, **BINARY}
    current = sources(tmp_path, *members, **more)
    stack.publish(current)
    canary = sources(tmp_path, *members[:2], {**members[2], "version": "2"}, sigmoid("new", "y"), **more)
    publish_release(canary, stack.releases, SLOTS, canary=10)
    output = run(stack, WARM_UP)
    assert (output["release"], output["canary"]) == (current.digest, canary.digest)
    listed = [(one["id"], one["version"], one["release"] == canary.digest) for one in output["members"]]
    assert sorted(listed) == [
        ("a", "1", False),
        ("b", "1", False),
        ("new", "1", True),
        ("s", "1", False),
        ("s", "2", True),
    ]
    for read in (current, canary):
        output = run(stack, {"instances": ROWS, "release": read.digest}, read.digest[:8])
        assert {one["cold"] for one in output["members"]} == {False}


def test_a_slot_that_cannot_load_its_model_is_reported_and_the_others_are_warm(shipped: MemoryStack) -> None:
    broken = read_sources(SHIPPED).release.members[1]
    shipped.artifacts.write(artifact_key(broken.artifact.digest), b"damaged")

    def end(_: Any) -> Any:
        raise asl.Failed("Runtime.ExitError", '{"errorMessage": "signal: killed"}')

    last = list(shipped.slots)[3]
    output = asl.run(ENSEMBLE, functions(shipped) | {last: end}, WARM_UP)
    errors = [None if one["error"] is None else one["error"]["type"] for one in output["members"]]
    assert errors[:3] == [None, "ArtifactCorrupt", None]
    assert errors[3] is not None
    assert [one["cold"] for one in output["members"]] == [True, None, True, None]


def test_a_warm_up_without_a_release_fails_with_the_errors_name() -> None:
    with pytest.raises(asl.Failed) as failed:
        run(MemoryStack(), WARM_UP)
    assert failed.value.error == "NothingPublished"


@pytest.mark.parametrize(
    "payload",
    [
        {"dataset": "s3://data/inbox/dt={date}/", "scheduled_at": "2026-03-01T05:00:00Z", "timezone": "UTC"},
        {"dataset": "s3://data/inbox/a.csv", "warmup": True},
        {"warmup": True, "features": {"x": 1}},
    ],
)
def test_a_batchs_event_and_a_warm_up_with_other_keys_are_rejected(tmp_path: Path, payload: object) -> None:
    stack, _ = publish(tmp_path, member("half"))
    entered: list[str] = []
    with pytest.raises(asl.Failed) as failed:
        run(stack, payload, entered=entered)
    assert (failed.value.error, entered) == ("InvalidPayload", ["Normalize", "Accepted?", "Fail"])


# ---------------------------------------------------------------------------------------- a payload's own quorum


def test_a_payloads_quorum_replaces_the_manifests(tmp_path: Path) -> None:
    stack, ensemble = publish(tmp_path, member("half"), member("log", "logarithm"))
    payload = {"features": {"x": -1}, "quorum": {"min_members": 1, "required": ["half"]}}
    output = run(stack, payload)
    assert output["status"] == "DEGRADED"
    assert output["policy"]["quorum"] == {"min_members": 1, "min_weight": None, "required": ["half"]}
    assert without_volatile(output) == without_volatile(ensemble.predict(payload))
    assert stack.records.read("run-1").input == payload
    with pytest.raises(asl.Failed) as failed:
        run(stack, {**payload, "quorum": {"required": ["log"], "min_members": 1}}, "strict")
    assert (failed.value.error, "log is required" in failed.value.cause) == ("QuorumNotMet", True)


def test_a_payloads_quorum_that_no_members_can_meet_is_rejected(tmp_path: Path) -> None:
    stack, ensemble = publish(tmp_path, member("half"), member("log", "logarithm"))
    payload = {"features": {"x": 1}, "quorum": {"min_members": 3, "required": ["lug"]}}
    with pytest.raises(asl.Failed) as failed:
        run(stack, payload)
    assert failed.value.error == "InvalidPayload"
    assert "$.quorum.min_members: 3 is more than the 2 voters" in failed.value.cause
    assert '$.quorum.required[0]: "lug" is not a voter' in failed.value.cause
    with pytest.raises(InvalidPayload) as rejected:
        ensemble.predict(payload)
    assert str(rejected.value) == failed.value.cause
    assert stack.dynamo.items == {}
