"""Which error an execution's failure becomes in the HTTP API."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, ReadTimeoutError

from builders import REGRESSION, release, released
from stepensemble.core import errors
from stepensemble.core.problems import Problem, list_problems, read_problems
from stepensemble.handlers.http.invoker import Invoker, name_failure
from stepensemble.handlers.state import list_members

PROBLEMS = [
    Problem("$.instances[0].Age", '"x" is not a number', "write a number, without unit or words"),
    Problem("$.instances[1].Sex", '"a; b" is not in the vocabulary', 'use one of "female", "male"'),
]


def test_the_problems_of_a_rejected_payload_are_read_back() -> None:
    assert read_problems(list_problems(PROBLEMS)) == PROBLEMS
    rejected = name_failure("InvalidPayload", list_problems(PROBLEMS), "e")
    assert isinstance(rejected, errors.InvalidPayload)
    assert rejected.problems == tuple(PROBLEMS)


def test_problems_that_were_cut_off_are_counted() -> None:
    cause = list_problems(PROBLEMS * 20, max_bytes=300)
    found = read_problems(cause)
    assert found[0] == PROBLEMS[0]
    assert found[-1].message == f"and {40 - len(found) + 1} more problems"


@pytest.mark.parametrize("name", ["QuorumNotMet", "PredictionConflict", "NothingPublished", "ArtifactCorrupt"])
def test_this_packages_errors_keep_their_name_and_message(name: str) -> None:
    error = name_failure(name, "what is wrong; what to do", "e")
    assert (type(error).__name__, str(error)) == (name, "what is wrong; what to do")


def test_only_the_message_of_an_error_raised_in_a_function_is_reported() -> None:
    cause = {"errorMessage": "S3 is slow", "errorType": "StorageUnavailable", "stackTrace": ['File "secret.py"']}
    error = name_failure("StorageUnavailable", json.dumps(cause), "e")
    assert (type(error), str(error)) == (errors.StorageUnavailable, "S3 is slow")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Lambda.TooManyRequestsException", errors.Throttled),
        ("States.Timeout", errors.StorageUnavailable),
        ("TIMED_OUT", errors.StorageUnavailable),
        ("KeyError", errors.ExecutionFailed),
        ("EnsembleError2", errors.ExecutionFailed),
        ("list_problems", errors.ExecutionFailed),
    ],
)
def test_only_the_name_of_any_other_failure_is_reported(name: str, kind: type[errors.EnsembleError]) -> None:
    error = name_failure(name, 'Traceback (most recent call last): File "secret.py"', "e")
    assert type(error) is kind
    assert "secret" not in str(error)


class FailingClient:
    """A client whose calls all fail with this error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def start_sync_execution(self, **_: object) -> object:
        raise self.error

    def invoke(self, **_: object) -> object:
        raise self.error


def make_error(code: str, status: int = 400) -> ClientError:
    response = {"Error": {"Code": code, "Message": "secret"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "StartSyncExecution")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (make_error("ThrottlingException"), errors.Throttled),
        (make_error("Whatever", 429), errors.Throttled),
        (make_error("InternalServerError", 500), errors.StorageUnavailable),
        (make_error("ExpiredTokenException"), errors.StorageUnavailable),
        (ReadTimeoutError(endpoint_url="http://secret"), errors.StillRunning),
        (ConnectTimeoutError(endpoint_url="http://secret"), errors.StorageUnavailable),
    ],
)
def test_a_call_that_step_functions_rejects_may_be_retried(error: Exception, kind: type[errors.EnsembleError]) -> None:
    invoker = Invoker(FailingClient(error), "arn", FailingClient(error), None)  # type: ignore[arg-type]
    with pytest.raises(kind) as raised:
        invoker.run("e", {"features": {}})
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("ValidationException", 400, errors.ExecutionFailed),
        ("InvalidExecutionInput", 400, errors.ExecutionFailed),
        ("InvalidName", 400, errors.ExecutionFailed),
        ("StateMachineDoesNotExist", 400, errors.ExecutionFailed),
        ("AccessDeniedException", 400, errors.ExecutionFailed),
        ("ResourceNotFoundException", 404, errors.ExecutionFailed),
        ("RequestTooLargeException", 413, errors.PayloadTooLarge),
        ("RequestEntityTooLargeException", 413, errors.PayloadTooLarge),
    ],
)
def test_a_permanent_error_is_not_to_be_retried(code: str, status: int, kind: type[errors.EnsembleError]) -> None:
    client = FailingClient(make_error(code, status))
    invoker = Invoker(client, "arn", client, None)  # type: ignore[arg-type]
    (member,) = list_members(release(REGRESSION, released("half")), {"half": "1"}, "score-")
    for call in (lambda: invoker.run("e", {}), lambda: invoker.score("e", member, {"x": np.zeros(1)}, 1, 1)):
        with pytest.raises(kind) as raised:
            call()
        assert not isinstance(raised.value, errors.StorageUnavailable | errors.Throttled)
        assert code in str(raised.value)
        assert "secret" not in str(raised.value)


def test_metadata_too_large_for_an_execution_is_rejected_before_a_write() -> None:
    invoker = Invoker(None, "arn", None, None)  # type: ignore[arg-type]
    with pytest.raises(errors.PayloadTooLarge) as rejected:
        invoker.run("e", {"features": {"x": 1.0}, "prediction_id": "p", "metadata": {"note": "x" * 300_000}})
    (problem,) = rejected.value.problems
    assert (problem.path, "300,011 bytes" in problem.message) == ("$.metadata", True)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (make_error("TooManyRequestsException", 429), errors.Throttled),
        (make_error("ServiceException", 500), errors.StorageUnavailable),
        (ReadTimeoutError(endpoint_url="http://secret"), errors.StillRunning),
    ],
)
def test_a_call_that_lambda_rejects_may_be_retried(error: Exception, kind: type[errors.EnsembleError]) -> None:
    invoker = Invoker(FailingClient(error), "arn", FailingClient(error), None)  # type: ignore[arg-type]
    (member,) = list_members(release(REGRESSION, released("half")), {"half": "1"}, "score-")
    with pytest.raises(kind) as raised:
        invoker.score("e", member, {"x": np.zeros(1)}, 1, 1)
    assert "secret" not in str(raised.value)


class StubLambda:
    """Lambda, which returns these responses one after the other."""

    def __init__(self, *responses: dict[str, Any]) -> None:
        self.responses = list(responses)

    def invoke(self, **_: object) -> object:
        response = self.responses.pop(0)
        failed = {"FunctionError": "Unhandled"} if "errorType" in response else {}
        return {"Payload": io.BytesIO(json.dumps(response).encode()), **failed}


DIED = {"errorType": "Runtime.ExitError", "errorMessage": "Runtime exited with error: signal: killed"}
REFUSED = {"errorType": "InvalidOutput", "errorMessage": "is not finite"}


@pytest.mark.parametrize(
    ("responses", "kind", "left"),
    [
        ([DIED, {"outputs": [2.0]}], None, 0),
        ([DIED, DIED, {"outputs": [2.0]}], errors.ExecutionFailed, 1),
        ([DIED, REFUSED], errors.InvalidOutput, 0),
        ([REFUSED, {"outputs": [2.0]}], errors.InvalidOutput, 1),
    ],
)
def test_a_slot_whose_process_died_is_called_once_more(
    responses: list[dict[str, Any]], kind: type[errors.EnsembleError] | None, left: int
) -> None:
    client: Any = StubLambda(*responses)
    invoker = Invoker(client, "arn", client, None)  # type: ignore[arg-type]
    (member,) = list_members(release(REGRESSION, released("half")), {"half": "1"}, "score-")
    if kind is None:
        assert invoker.score("e", member, {"x": np.zeros(1)}, 1, 1) == [2.0]
    else:
        with pytest.raises(kind):
            invoker.score("e", member, {"x": np.zeros(1)}, 1, 1)
    assert len(client.responses) == left
