"""The HTTP API over the real handlers: which release predicts while the pointer moves, and its labels."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

import asl
from builders import ROOT, member, sources
from memory import PREFIX, SLOTS, Clock, MemoryStack
from stepensemble.core.errors import (
    ExecutionFailed,
    InvalidPayload,
    LabelUnknown,
    QuorumNotMet,
    RecordsClosed,
    ServableNotFound,
)
from stepensemble.handlers.current_release import POINTER_SECONDS, CurrentRelease
from stepensemble.handlers.http.invoker import Invoker
from stepensemble.handlers.http.service import (
    BODY_BYTES,
    RESPONSE_BYTES,
    PredictionService,
    ServiceFailure,
    fits_response,
)
from stepensemble.publishing.canary import abort_canary, promote_canary
from stepensemble.publishing.manifest_loader import Sources
from stepensemble.publishing.publish import publish
from stepensemble.serving.servables import version_of

ENSEMBLE = json.loads((ROOT / "statemachine" / "ensemble.asl.json").read_text())
ROW = {"instances": [{"x": 1.0}]}


class Clients:
    """Step Functions and Lambda, as far as the service invokes them."""

    def __init__(self, stack: MemoryStack) -> None:
        self.functions = {
            **stack.slots,
            "${NormalizeFunctionArn}": stack.normalize,
            "${AggregateFunctionArn}": stack.aggregate,
            asl.PUT_EVENTS: stack.put_events,
        }

    def start_sync_execution(self, **request: Any) -> dict[str, Any]:
        try:
            output = asl.run(ENSEMBLE, self.functions, json.loads(request["input"]), request["name"])
        except asl.Failed as failed:
            return {"status": "FAILED", "error": failed.error, "cause": failed.cause}
        return {"status": "SUCCEEDED", "output": msgspec.json.encode(output).decode()}

    def invoke(self, **request: Any) -> dict[str, Any]:
        response = self.functions[request["FunctionName"]](json.loads(request["Payload"]))
        return {"Payload": io.BytesIO(msgspec.json.encode(response))}


def make_service(stack: MemoryStack, clock: Clock) -> PredictionService:
    """Return a service whose cached pointer expires by this clock."""
    clients: Any = Clients(stack)
    ids = iter(range(1000))
    invoker = Invoker(clients, "machine", clients, stack.data)
    return PredictionService(
        CurrentRelease(stack.releases, clock), stack.records, invoker, PREFIX, lambda: f"http-{next(ids)}"
    )


def versions(folder: Path) -> tuple[Sources, Sources]:
    """Return an ensemble that computes x / 2 + 2, and its next version, which has one member more."""
    for name in ("first", "second"):
        (folder / name).mkdir()
    return sources(folder / "first", member("half")), sources(folder / "second", member("half"), member("other"))


@pytest.fixture
def stack() -> MemoryStack:
    return MemoryStack()


def predict(
    service: PredictionService, name: str = "halves", version: int | None = None, label: str | None = None
) -> str:
    """Predict, check the prediction, and return the release it comes from."""
    response = service.predict_servable("predict", name, version, label, ROW)
    assert response.body == {"predictions": [2.5]}
    return response.release


@pytest.mark.parametrize("first", [True, False], ids=["records first", "dies first"])
def test_an_execution_that_died_names_its_record_where_there_is_one(
    stack: MemoryStack, tmp_path: Path, first: bool
) -> None:
    stack.publish(sources(tmp_path, member("half")))
    service = make_service(stack, Clock())

    def die(event: Any) -> Any:
        if first:
            stack.aggregate(event)
        raise type("Runtime.ExitError", (Exception,), {})

    service.invoker.step_functions.functions["${AggregateFunctionArn}"] = die  # type: ignore[attr-defined]
    with pytest.raises(ServiceFailure) as failed:
        service.predict({"features": {"x": 1.0}})
    assert isinstance(failed.value.error, ExecutionFailed)
    assert failed.value.recorded == ("http-0" if first else None)


def test_a_prediction_without_a_quorum_names_its_record(stack: MemoryStack, tmp_path: Path) -> None:
    stack.publish(sources(tmp_path, member("log", "logarithm")))
    with pytest.raises(ServiceFailure) as failed:
        make_service(stack, Clock()).predict({"features": {"x": -1.0}})
    assert isinstance(failed.value.error, QuorumNotMet)
    assert failed.value.recorded == "http-0"


def test_a_canary_is_served_by_its_label_and_its_version_as_soon_as_it_is_published(
    stack: MemoryStack, tmp_path: Path
) -> None:
    first, second = versions(tmp_path)
    stack.publish(first)
    service = make_service(stack, Clock())
    assert predict(service) == first.digest
    publish(second, stack.releases, SLOTS, canary=1)
    # The service's clock stands still, so its cached pointer does not expire.
    assert predict(service, label="canary") == second.digest
    assert predict(service, version=version_of(second.digest)) == second.digest
    assert predict(service, "other", label="canary") == second.digest
    assert predict(service, label="stable") == first.digest
    assert service.status("halves", None, "canary") == service.status("halves", version_of(second.digest), None)
    assert [one["version"] for one in service.status("halves", None, None)["model_version_status"]] == [
        str(version_of(digest)) for digest in (first.digest, second.digest)
    ]
    assert len(service.status("other", None, None)["model_version_status"]) == 1


def test_a_release_that_is_replaced_during_a_request_is_no_conflict_if_none_was_named(
    stack: MemoryStack, tmp_path: Path
) -> None:
    first, second = versions(tmp_path)
    stack.publish(first)
    service = make_service(stack, Clock())
    assert predict(service) == first.digest
    stack.publish(second)
    stack.clock.seconds += POINTER_SECONDS  # Normalize reads the new pointer, the service does not
    assert predict(service) == second.digest
    assert predict(service, label="stable") == second.digest
    with pytest.raises(ServableNotFound):
        predict(service, version=version_of(first.digest))


def test_a_canary_that_was_promoted_is_stable_and_its_label_is_gone(stack: MemoryStack, tmp_path: Path) -> None:
    first, second = versions(tmp_path)
    stack.publish(first)
    publish(second, stack.releases, SLOTS, canary=50)
    service = make_service(stack, Clock())
    assert predict(service, label="canary") == second.digest
    promote_canary(stack.releases)
    stack.clock.seconds += POINTER_SECONDS
    assert predict(service, label="stable") == second.digest
    assert predict(service, version=version_of(second.digest)) == second.digest
    with pytest.raises(LabelUnknown):
        predict(service, label="canary")
    with pytest.raises(ServableNotFound):
        predict(service, version=version_of(first.digest))


def test_an_aborted_canary_is_no_longer_invoked(stack: MemoryStack, tmp_path: Path) -> None:
    first, second = versions(tmp_path)
    stack.publish(first)
    publish(second, stack.releases, SLOTS, canary=99)
    service = make_service(stack, Clock())
    assert predict(service, label="canary") == second.digest
    abort_canary(stack.releases)
    stack.clock.seconds += POINTER_SECONDS
    with pytest.raises(LabelUnknown):
        predict(service, label="canary")
    assert {predict(service) for _ in range(20)} == {first.digest}


def test_a_missing_status_has_tensorflow_servings_message(stack: MemoryStack, tmp_path: Path) -> None:
    first, _ = versions(tmp_path)
    stack.publish(first)
    service = make_service(stack, Clock())
    with pytest.raises(ServableNotFound, match=r"^Could not find any versions of model half_plus$"):
        service.status("half_plus", None, None)
    with pytest.raises(ServableNotFound, match=r"^Could not find version 3 of model half$"):
        service.status("half", 3, None)
    with pytest.raises(ServableNotFound, match=r"^Servable not found for request: Latest\(half_plus\)$"):
        service.metadata("half_plus", None, None)


def test_metadata_has_the_models_own_names_types_and_shapes(stack: MemoryStack, tmp_path: Path) -> None:
    read = sources(
        tmp_path,
        member("index", "sign_label", kind="label"),
        member("name", "text", kind="label", output={"kind": "label", "name": "label", "classes": ["no", "yés"]}),
        member("whole", "int8", kind="logit"),
        task={"type": "binary", "classes": ["no", "yés"]},
        aggregation={"method": "hard_vote"},
    )
    stack.publish(read)
    service = make_service(stack, Clock())

    def tensors(name: str, group: str) -> dict[str, tuple[str, list[str]]]:
        described = service.metadata(name, None, None)["metadata"]["signature_def"]["signature_def"]
        return {
            name: (tensor["dtype"], [one["size"] for one in tensor["tensor_shape"]["dim"]])
            for name, tensor in described["serving_default"][group].items()
        }

    assert tensors("index", "inputs") == tensors("name", "inputs") == {"x": ("DT_FLOAT", ["-1", "1"])}
    assert [dtype for dtype, _ in tensors("index", "outputs").values()] == ["DT_INT32"]
    assert tensors("name", "outputs") == {"label": ("DT_STRING", ["-1"])}
    # A quantized tensor is described by its floats.
    assert {dtype for group in ("inputs", "outputs") for dtype, _ in tensors("whole", group).values()} == {"DT_FLOAT"}


SCALED = {"name": "x", "type": "number", "scaling": {"type": "standard", "mean": 1, "std": 2}}


@pytest.mark.parametrize(
    ("body", "response"),
    [
        # y = x / 2 + 2 of what was sent
        ({"instances": [5.0]}, {"predictions": [4.5]}),
        ({"instances": [[5.0]]}, {"predictions": [[4.5]]}),
        ({"instances": [{"x": 5.0}, {"x": 1}]}, {"predictions": [4.5, 2.5]}),
        ({"instances": [{"x": [5.0]}]}, {"predictions": [[4.5]]}),
        ({"instances": [{"inputs": [5.0]}]}, {"predictions": [[4.5]]}),
        ({"inputs": [5.0, 1.0]}, {"outputs": [4.5, 2.5]}),
        ({"inputs": {"x": [[5.0]]}}, {"outputs": [[4.5]]}),
        ({"inputs": {"x": [1.0, 2.0]}}, {"outputs": [2.5, 3.0]}),
        ({"inputs": {"inputs": [1.0, 2.0]}, "signature_name": "serving_default"}, {"outputs": [2.5, 3.0]}),
        # of (x - 1) / 2, the feature after its scaling
        ({"instances": [{"x": 5.0}], "signature_name": "features"}, {"predictions": [[3.0]]}),
        ({"inputs": {"x": [5.0]}, "signature_name": "features"}, {"outputs": [[3.0]]}),
    ],
)
def test_a_member_takes_its_models_input_in_every_form_of_tensorflow_serving(
    stack: MemoryStack, tmp_path: Path, body: dict[str, Any], response: dict[str, Any]
) -> None:
    stack.publish(sources(tmp_path, member("half"), features=[SCALED]))
    service = make_service(stack, Clock())
    assert service.predict_servable("predict", "half", None, None, body).body == response
    examples = {"examples": [{"x": 5.0}], "signature_name": "tensorflow/serving/regress"}
    assert service.predict_servable("regress", "half", None, None, examples).body == {"results": [4.5]}
    assert service.predict_servable("predict", "halves", None, None, {"instances": [{"x": 5.0}]}).body == {
        "predictions": [3.0]
    }


def test_a_bad_value_is_reported_under_the_name_that_the_client_used(stack: MemoryStack, tmp_path: Path) -> None:
    stack.publish(sources(tmp_path, member("half"), features=[SCALED]))
    service = make_service(stack, Clock())
    for name in ("x", "inputs"):
        with pytest.raises(InvalidPayload) as rejected:
            service.predict_servable("predict", "half", None, None, {"inputs": {name: [1.0, "a"]}})
        assert [problem.path for problem in rejected.value.problems] == [f"$.inputs.{name}[1]"]


def test_where_clients_may_not_read_records_none_is_read(stack: MemoryStack) -> None:
    service = replace(make_service(stack, Clock()), records=None)
    for prediction_id in ("http-1", "no id at all"):
        with pytest.raises(RecordsClosed, match="HttpRecords"):
            service.read_record(prediction_id)


def test_a_slot_describes_its_model_once(stack: MemoryStack, tmp_path: Path) -> None:
    stack.publish(sources(tmp_path, member("half")))
    service = make_service(stack, Clock())
    for _ in range(3):
        service.predict_servable("predict", "half", None, None, ROW)
    assert len(service.signatures) == 1


@pytest.mark.parametrize(("character", "size"), [("1", 1), ('"', 2), ("\n", 2), ("é", 6)])
def test_a_response_holds_a_body_as_a_json_string(character: str, size: int) -> None:
    most = character * ((RESPONSE_BYTES - 2) // size)
    assert fits_response(most.encode())
    assert not fits_response((most + character).encode())
    headers = {"Content-Type": "application/json", "X-Prediction-Id": "x" * 128, "X-Release": "0" * 64}
    assert len(json.dumps({"statusCode": 200, "headers": headers, "body": most})) <= BODY_BYTES


def test_a_request_with_bare_numbers_gets_bare_numbers(tmp_path: Path) -> None:
    # The request of TensorFlow Serving's half_plus_two: https://www.tensorflow.org/tfx/serving/api_rest
    stack = MemoryStack()
    stack.publish(sources(tmp_path, member("half", "bare")))
    service = make_service(stack, Clock())
    response = service.predict_servable("predict", "half", None, None, {"instances": [1.0, 2.0, 5.0]})
    assert response.body == {"predictions": [2.5, 3.0, 4.5]}
