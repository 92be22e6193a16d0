from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from stepensemble.core.errors import StorageUnavailable
from stepensemble.storage.executions import Executions

ARN = "arn:aws:states:us-east-1:123456789012:execution:batch:one"


class Forgotten(ClientError):
    """As Step Functions' client raises it."""

    def __init__(self) -> None:
        super().__init__({"Error": {"Code": "ExecutionDoesNotExist", "Message": ""}}, "DescribeExecution")


def answering(answer: Any) -> Executions:
    def describe_execution(**request: str) -> dict[str, str]:
        assert request == {"executionArn": ARN}
        if isinstance(answer, Exception):
            raise answer
        return {"status": answer}

    exceptions = SimpleNamespace(ExecutionDoesNotExist=Forgotten)
    return Executions(SimpleNamespace(describe_execution=describe_execution, exceptions=exceptions))  # type: ignore[arg-type]


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"])
def test_an_execution_runs_while_its_status_says_so(status: str) -> None:
    assert answering(status).is_running(ARN) == (status == "RUNNING")


def test_an_execution_that_is_forgotten_does_not_run() -> None:
    assert not answering(Forgotten()).is_running(ARN)


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "DescribeExecution"),
        EndpointConnectionError(endpoint_url="https://states.example"),
    ],
)
def test_no_answer_is_worth_a_retry(error: Exception) -> None:
    with pytest.raises(StorageUnavailable, match="Step Functions: "):
        answering(error).is_running(ARN)
