from __future__ import annotations

import json
from collections.abc import Callable
from itertools import permutations
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given

from builders import ROOT
from memory import CountingBucket
from stepensemble.core.errors import DatasetRefused, InboxObjectRefused, InvalidPayload, ObjectMissing, PublishConflict
from stepensemble.core.preprocessing.columns import array_to_bytes
from stepensemble.core.problems import Problem
from stepensemble.handlers.failures import refuse
from stepensemble.handlers.inbox.deliver import ATTEMPTS, UNEXPLAINED, Deliverer, read_failure

OUTPUT = json.loads((ROOT / "events" / "passenger.output.json").read_text()) | {"prediction_id": "p"}
OUTPUT["members"] = [{**one, "duration_ms": 1.5, "cold": False} for one in OUTPUT["members"]]
RESULT = {
    "run": "0" * 16,
    "date": "2026-03-01",
    "release": "0" * 64,
    "rows_in": 3,
    "rows_out": 2,
    "rows_rejected": 1,
    "needs_review": 0,
    "results": "s3://data/results/ensemble=halves/dt=2026-03-01/run=0/",
    "rejected": None,
    "report": "s3://data/results-reports/report.html",
    "summary": "s3://data/results-reports/summary.json",
    "rows_failed": 0,
    "status": "SUCCEEDED",
}
BAD = InvalidPayload([Problem("$.features.Age", '"x" is not a number', "write one"), Problem("$.b", "is c", "leave d")])
RESPONSE, FAILURE = "outbox/a.json.json", "outbox/a.json.error.json"


class Watched(CountingBucket):
    """A bucket that calls a function before each of its calls."""

    __slots__ = ("before",)

    def __init__(self) -> None:
        super().__init__("data")
        object.__setattr__(self, "before", lambda: None)

    def set(self, before: Callable[[], None]) -> None:
        object.__setattr__(self, "before", before)

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        self.before()
        return super().read_tagged(key)

    def replace(self, key: str, body: bytes, tag: str | None) -> None:
        self.before()
        super().replace(key, body, tag)

    def delete(self, keys: Any) -> None:
        self.before()
        super().delete(keys)


@pytest.fixture
def data() -> Watched:
    return Watched()


def detail(number: int = 1, key: str = "inbox/a.json") -> dict[str, Any]:
    """Return an object as Receive describes it; the number is its version's."""
    return {"key": key, "size": 3, "etag": "e", "sequencer": f"{number:04X}", "version_id": f"v{number}"}


def delivered(number: int = 1, **more: Any) -> dict[str, Any]:
    """Return Deliver's event of an execution that has succeeded."""
    input_ = {"kind": "prediction", "name": f"inbox-{number}", "input": {"features": {}}}
    return {"object": detail(number), **input_, "ended": {"output": OUTPUT}, **more}


def rejected(number: int = 1) -> dict[str, Any]:
    return {"object": detail(number), "kind": "refused", **refuse(InboxObjectRefused("no"))}


def failed(described: object, kind: str = "prediction", input_: Any = None) -> dict[str, Any]:
    """Return Deliver's event of a failed execution; `described` is the cause, as text or as an object."""
    cause = described if isinstance(described, str) else json.dumps(described, separators=(",", ":"))
    error = {"Error": "States.TaskFailed", "Cause": cause}
    return {"object": detail(), "kind": kind, "name": "inbox-1", "input": input_ or {"features": {}}, "error": error}


def read(data: CountingBucket, key: str) -> Any:
    return json.loads(data.read(key))


def keys(data: CountingBucket) -> set[str]:
    return {listed.key for listed in data.list("outbox/")}


# --------------------------------------------------------------------------------------------------------- responses


def test_a_prediction_is_the_executions_output_under_the_objects_name(data: Watched) -> None:
    done = Deliverer(data)(delivered())
    assert done == {"object": detail(), "response": {"s3": "s3://data/outbox/a.json.v1.json"}}
    document = read(data, "outbox/a.json.v1.json")
    assert document.pop("object") == detail()
    assert document == OUTPUT
    assert keys(data) == {"outbox/a.json.v1.json", RESPONSE}
    assert data.read(RESPONSE) == data.read("outbox/a.json.v1.json")


def test_what_is_stored_in_s3_replaces_its_pointer(data: Watched) -> None:
    outputs = np.array([[0.25]])
    data.write("executions/e/outputs/linear.npy", array_to_bytes(outputs))
    data.write("executions/e/predictions.json", msgspec.json.encode(OUTPUT["predictions"]))
    first, *others = OUTPUT["members"]
    output = {
        **OUTPUT,
        "predictions": {"s3": "s3://data/executions/e/predictions.json"},
        "members": [{**first, "outputs": {"s3": "s3://data/executions/e/outputs/linear.npy"}}, *others],
    }
    Deliverer(data)(delivered(ended={"output": output}))
    document = read(data, RESPONSE)
    assert document["predictions"] == OUTPUT["predictions"]
    assert [one["outputs"] for one in document["members"]] == [[[0.25]], *(one["outputs"] for one in others)]


def test_a_missing_object_of_a_pointer_is_a_failure(data: Watched) -> None:
    output = {**OUTPUT, "predictions": {"s3": "s3://data/executions/e/predictions.json"}}
    with pytest.raises(ObjectMissing):
        Deliverer(data)(delivered(ended={"output": output}))
    assert keys(data) == set()


def test_the_response_to_a_run_is_its_result(data: Watched) -> None:
    Deliverer(data)(delivered(kind="run", ended={"output": RESULT}))
    assert read(data, RESPONSE) == {"object": detail(), **RESULT}


def test_the_response_to_an_object_without_a_version_is_named_by_its_sequencer_and_etag(data: Watched) -> None:
    unversioned = {**detail(), "version_id": None}
    Deliverer(data)(delivered(object=unversioned))
    assert keys(data) == {"outbox/a.json.0001-e.json", RESPONSE}
    assert read(data, RESPONSE)["object"] == unversioned


# -------------------------------------------------------------------------------------------------------- failures


def test_a_rejection_has_its_error_its_message_and_every_problem(data: Watched) -> None:
    Deliverer(data)({"object": detail(), "kind": "refused", **refuse(BAD)})
    assert keys(data) == {"outbox/a.json.v1.error.json", FAILURE}
    assert read(data, FAILURE) == {
        "object": detail(),
        "error": "InvalidPayload",
        "message": str(BAD),
        "problems": [
            {"path": "$.features.Age", "message": '"x" is not a number', "remedy": "write one"},
            {"path": "$.b", "message": "is c", "remedy": "leave d"},
        ],
    }
    assert data.read(FAILURE) == data.read("outbox/a.json.v1.error.json")


def test_the_error_of_an_execution_is_reported_as_it_is() -> None:
    failure = read_failure(failed({"Status": "FAILED", "Error": "InvalidPayload", "Cause": str(BAD)}))
    assert failure is not None
    assert (failure.error, failure.message, failure.problems) == ("InvalidPayload", str(BAD), BAD.problems)
    assert failure.prediction_id is None  # nothing is recorded


def test_a_dataset_that_is_rejected_has_its_problems_by_files_and_columns() -> None:
    problems = Problem("a b.csv", "has no header", "write one"), Problem("feature Sex", "is no column", "add it")
    cause = str(DatasetRefused(problems))
    failure = read_failure(failed({"Error": "DatasetRefused", "Cause": cause}, kind="run"))
    assert failure is not None
    assert (failure.message, failure.problems) == (cause, problems)


@pytest.mark.parametrize(("input_", "id_"), [({}, "inbox-1"), ({"prediction_id": "mine"}, "mine")])
def test_without_a_quorum_the_record_is_named(input_: dict[str, str], id_: str) -> None:
    described = {"Error": "QuorumNotMet", "Cause": "1 of 2"}
    failure = read_failure(failed(described, input_={"features": {}, **input_}))
    assert failure is not None
    assert msgspec.to_builtins(failure) == {"error": "QuorumNotMet", "message": "1 of 2", "prediction_id": id_}


def test_the_error_is_found_in_a_truncated_description() -> None:
    described = {
        "ExecutionArn": "arn",
        "Error": "QuorumNotMet",
        "Input": '{"metadata": {"Error":"Nonsense"}}',
        "Cause": "c" * 40_000,
    }
    cut = json.dumps(described, separators=(",", ":"))[:32_768]
    failure = read_failure(failed(cut))
    assert failure is not None
    assert (failure.error, failure.prediction_id, failure.message) == ("QuorumNotMet", "inbox-1", cut)


@pytest.mark.parametrize("cause", ["", "not JSON", "[1]", '"text"', "null", "7"])
def test_a_cause_without_a_description_is_reported_unchanged(cause: str) -> None:
    failure = read_failure(failed(cause))
    assert failure is not None
    assert (failure.error, failure.message) == ("States.TaskFailed", cause)


@pytest.mark.parametrize("status", ["TIMED_OUT", "ABORTED"])
def test_an_execution_that_names_no_error_failed_as_its_status_states(status: str) -> None:
    failure = read_failure(failed({"Status": status}))
    assert failure is not None
    assert (failure.error, failure.message) == (status, UNEXPLAINED)


def test_an_error_of_the_state_machine_keeps_its_name() -> None:
    error = {"Error": "StepFunctions.ExecutionLimitExceededException", "Cause": "too many"}
    failure = read_failure({**failed({}), "error": error})
    assert failure is not None
    assert (failure.error, failure.message) == (error["Error"], error["Cause"])
    without = read_failure({**failed({}), "error": {"Error": "States.Timeout"}})
    assert without is not None
    assert (without.error, without.message) == ("States.Timeout", "")


def test_a_success_is_not_a_failure() -> None:
    assert read_failure(delivered()) is None


# -------------------------------------------------------------------------------------------------------- versions


def test_after_a_retry_the_first_response_stays(data: Watched) -> None:
    deliver = Deliverer(data)
    first = deliver(delivered())
    before = {key: data.read(key) for key in keys(data)}
    assert deliver(delivered()) == first
    assert deliver(delivered(ended={"output": {**OUTPUT, "status": "DEGRADED"}})) == first
    assert {key: data.read(key) for key in keys(data)} == before


def test_a_later_version_is_the_latest_and_every_version_keeps_its_own(data: Watched) -> None:
    deliver = Deliverer(data)
    deliver(delivered(1))
    deliver(delivered(2))
    assert keys(data) == {"outbox/a.json.v1.json", "outbox/a.json.v2.json", RESPONSE}
    assert read(data, RESPONSE)["object"] == detail(2)


def test_a_late_response_to_an_older_version_leaves_the_latest_alone(data: Watched) -> None:
    deliver = Deliverer(data)
    deliver(delivered(2))
    latest = data.read(RESPONSE)
    deliver(delivered(1))
    deliver(rejected(0))
    assert data.read(RESPONSE) == latest
    assert FAILURE not in keys(data)
    assert {"outbox/a.json.v1.json", "outbox/a.json.v0.error.json"} <= keys(data)


def test_a_response_replaces_an_older_failure_and_a_failure_an_older_response(data: Watched) -> None:
    deliver = Deliverer(data)
    deliver(rejected(1))
    assert {RESPONSE, FAILURE} & keys(data) == {FAILURE}
    deliver(delivered(2))
    assert {RESPONSE, FAILURE} & keys(data) == {RESPONSE}
    deliver(rejected(3))
    assert {RESPONSE, FAILURE} & keys(data) == {FAILURE}
    assert read(data, FAILURE)["object"] == detail(3)


def test_another_file_in_place_of_the_latest_is_overwritten(data: Watched) -> None:
    for body in (b"not JSON", b"[]", b'{"object": {"key": 1}}'):
        data.write(RESPONSE, body)
        Deliverer(data)(delivered())
        assert read(data, RESPONSE)["object"] == detail()
    data.write(FAILURE, b"a person's note")
    Deliverer(data)(delivered(2))
    assert data.read(FAILURE) == b"a person's note"


@given(st.permutations(range(4)), st.lists(st.booleans(), min_size=4, max_size=4), st.lists(st.integers(0, 3)))
def test_in_any_order_of_responses_the_last_version_is_the_latest(
    order: list[int], sound: list[bool], again: list[int]
) -> None:
    data = CountingBucket("data")
    for number in [*order, *again]:
        Deliverer(data)(delivered(number) if sound[number] else rejected(number))
    latest = RESPONSE if sound[3] else FAILURE
    assert {RESPONSE, FAILURE} & keys(data) == {latest}
    assert read(data, latest)["object"] == detail(3)
    endings = {f"outbox/a.json.v{number}{'' if sound[number] else '.error'}.json" for number in range(4)}
    assert keys(data) == endings | {latest}


@pytest.mark.parametrize("sound", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("order", list(permutations((1, 2))))
@pytest.mark.parametrize("moment", range(5))
def test_the_later_version_of_two_concurrent_responses_is_the_latest(
    data: Watched, order: tuple[int, int], sound: tuple[bool, bool], moment: int
) -> None:
    events = [delivered(number) if sound[number - 1] else rejected(number) for number in order]
    calls = 0

    def meanwhile() -> None:
        nonlocal calls
        calls += 1
        if calls == moment + 1:
            data.set(lambda: None)
            Deliverer(data)(events[1])

    data.set(meanwhile)
    Deliverer(data)(events[0])
    data.set(lambda: None)
    if calls <= moment:  # the delivery ended before that call
        Deliverer(data)(events[1])
    latest = RESPONSE if sound[1] else FAILURE
    assert {RESPONSE, FAILURE} & keys(data) == {latest}
    assert read(data, latest)["object"] == detail(2)


def test_a_response_that_is_no_longer_the_latest_deletes_no_later_one(data: Watched) -> None:
    """The third version has its response; the second has failed and not yet read the latest; the first comes last."""
    Deliverer(data)(delivered(3))
    data.write(FAILURE, json.dumps({"object": detail(2)}).encode())
    Deliverer(data)(delivered(1))
    assert {RESPONSE, FAILURE} & keys(data) == {RESPONSE}
    assert read(data, RESPONSE)["object"] == detail(3)


def test_a_writer_that_always_loses_gives_up_and_keeps_its_own_response(data: Watched) -> None:
    tried = 0

    def meanwhile() -> None:
        nonlocal tried
        tried += 1
        data.write(RESPONSE, f"{tried}".encode())

    data.set(meanwhile)
    with pytest.raises(PublishConflict):
        Deliverer(data)(delivered())
    assert tried == 2 * ATTEMPTS  # a read and a write each
    assert read(data, "outbox/a.json.v1.json")["object"] == detail()
