from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import asl
from builders import ROOT, member, sources
from expected_events import list_events, without_volatile
from memory import MemoryStack
from stepensemble import Ensemble
from stepensemble.core import errors
from stepensemble.core.errors import EnsembleError
from stepensemble.handlers.normalize import POINTER_SECONDS
from stepensemble.publishing.sources import read_sources

DEFINITIONS = sorted((ROOT / "statemachine").glob("*.asl.json"))
ENSEMBLE = json.loads((ROOT / "statemachine" / "ensemble.asl.json").read_text())
SHIPPED = ROOT / "models" / "manifest.json"


def states_of(machine: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """List a machine's states, those inside a Map included."""
    for name, state in machine["States"].items():
        yield name, state
        if "ItemProcessor" in state:
            yield from states_of(state["ItemProcessor"])


STATES = [
    pytest.param(state, id=f"{path.name}: {name}")
    for path in DEFINITIONS
    for name, state in states_of(json.loads(path.read_text()))
]
ERROR_NAMES = {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, EnsembleError)
}


@pytest.mark.parametrize("state", STATES)
def test_error_names_are_the_engines_or_ours(state: dict[str, Any]) -> None:
    named = {name for rule in state.get("Retry", []) + state.get("Catch", []) for name in rule["ErrorEquals"]}
    assert {name for name in named if not name.startswith(("States.", "Lambda.", "Sandbox."))} <= ERROR_NAMES


@pytest.mark.parametrize("state", STATES)
def test_every_retry_has_full_jitter_and_a_cap(state: dict[str, Any]) -> None:
    for rule in state.get("Retry", []):
        assert rule["JitterStrategy"] == "FULL"
        assert rule["MaxDelaySeconds"] <= 10
        assert 1 <= rule["MaxAttempts"] <= 5


@pytest.mark.parametrize("state", STATES)
def test_every_task_has_a_timeout_and_retries_what_passes(state: dict[str, Any]) -> None:
    if state["Type"] != "Task":
        return
    assert "TimeoutSeconds" in state or "TimeoutSecondsPath" in state
    retried = {name for rule in state["Retry"] for name in rule["ErrorEquals"]}
    assert {
        "StorageUnavailable",
        "Lambda.ServiceException",
        "Lambda.TooManyRequestsException",
        "States.Timeout",
    } <= retried


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.name)
def test_definitions_are_json_path(path: Path) -> None:
    text = path.read_text()
    assert "JSONata" not in text
    assert "{%" not in text


def functions(stack: MemoryStack) -> dict[str, Callable[[Any], Any]]:
    """Return the functions by the names the definition and Normalize give them."""
    known: dict[str, Callable[[Any], Any]] = {**stack.slots}
    known["${NormalizeFunctionArn}"] = stack.normalize
    known["${AggregateFunctionArn}"] = stack.aggregate
    return known


def run(stack: MemoryStack, payload: object, name: str = "run-1") -> Any:
    return asl.run(ENSEMBLE, functions(stack), payload, name)


@pytest.fixture
def shipped() -> MemoryStack:
    stack = MemoryStack()
    stack.publish(read_sources(SHIPPED))
    return stack


@pytest.mark.parametrize("event", list_events("passenger"), ids=lambda path: path.name)
def test_what_each_state_passes_on_is_what_the_next_reads(shipped: MemoryStack, event: Path) -> None:
    payload = json.loads(event.read_text())
    output = run(shipped, payload)
    assert without_volatile(output) == without_volatile(Ensemble.load(SHIPPED).predict(payload))
    assert output["prediction_id"] == "run-1"
    record = shipped.records.read("run-1")
    assert (record.execution, record.started_at) == ("arn:run-1", asl.STARTED_AT)
    assert record.metadata == payload.get("metadata", {})


def test_a_refused_payload_fails_with_its_name_and_cause(shipped: MemoryStack) -> None:
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
    assert (log["status"], log["outputs"], log["duration_ms"], log["cold"]) == ("failed", None, None, None)
    assert log["error"] == {"type": "InvalidOutput", "message": "the output of row 0 is not finite (1 of 1 rows)"}


def test_no_quorum_fails_with_its_name_and_is_recorded(tmp_path: Path) -> None:
    stack = MemoryStack()
    stack.publish(sources(tmp_path, member("half"), member("log", "logarithm")))
    with pytest.raises(asl.Failed) as failed:
        run(stack, {"features": {"x": -1}})
    assert failed.value.error == "QuorumNotMet"
    assert failed.value.cause == "1 of 2 voters answered, and the quorum is 2; missing: log"
    assert stack.records.read("run-1").output.status == "FAILED"


def test_ten_thousand_rows_pass_every_state_by_pointer(tmp_path: Path) -> None:
    stack, read = MemoryStack(), sources(tmp_path, member("a"), member("b"))
    stack.publish(read)
    body = json.dumps([{"x": row} for row in range(10_000)]).encode()
    output = run(stack, {"instances": {"s3": stack.data.write("payloads/rows.json", body).s3}})
    assert output["predictions"]["s3"].startswith("s3://data/executions/run-1-")
    whole = Ensemble.load(read.path).predict({"instances": json.loads(body)})
    kept = json.loads(stack.data.read(output["predictions"]["s3"].removeprefix("s3://data/")))
    assert kept == whole["predictions"]


@pytest.mark.parametrize("rows", [1, 200, 400, 500, 600, 700, 3000])
def test_states_stay_within_what_they_may_carry(tmp_path: Path, rows: int) -> None:
    # Around the place where inline turns into pointers; `asl` measures every state.
    stack = MemoryStack()
    stack.publish(sources(tmp_path, *(member(f"m{number}") for number in range(8))))
    output = run(stack, {"instances": [{"x": row / 3} for row in range(rows)]})
    assert isinstance(output["predictions"], list) == (rows <= 400)


def test_an_edited_manifest_answers_at_the_next_execution(tmp_path: Path) -> None:
    stack = MemoryStack()
    stack.publish(sources(tmp_path, member("half")))
    assert [one["id"] for one in run(stack, {"features": {"x": 1}}, "before")["members"]] == ["half"]
    newer = sources(tmp_path, member("half"), member("log", "logarithm"))
    stack.publish(newer)
    stack.clock.seconds += POINTER_SECONDS
    output = run(stack, {"features": {"x": 1}}, "after")
    assert output["release"] == newer.digest
    assert [one["outputs"] for one in output["members"]] == [[2.5], [0.0]]
