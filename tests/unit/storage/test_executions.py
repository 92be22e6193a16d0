from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from stepensemble.core.errors import StorageUnavailable
from stepensemble.storage.executions import Executions

ARN = "arn:aws:states:us-east-1:123456789012:execution:batch:one"


class Forgotten(ClientError):
    """The exception of Step Functions' client."""

    def __init__(self) -> None:
        super().__init__({"Error": {"Code": "ExecutionDoesNotExist", "Message": ""}}, "DescribeExecution")


def responding(response: Any) -> Executions:
    def describe_execution(**request: str) -> dict[str, str]:
        assert request == {"executionArn": ARN}
        if isinstance(response, Exception):
            raise response
        return {"status": response}

    exceptions = SimpleNamespace(ExecutionDoesNotExist=Forgotten)
    return Executions(SimpleNamespace(describe_execution=describe_execution, exceptions=exceptions))  # type: ignore[arg-type]


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"])
def test_an_execution_runs_while_its_status_is_running(status: str) -> None:
    assert responding(status).is_running(ARN) == (status == "RUNNING")


def test_a_deleted_execution_does_not_run() -> None:
    assert not responding(Forgotten()).is_running(ARN)


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "DescribeExecution"),
        EndpointConnectionError(endpoint_url="https://states.example"),
    ],
)
def test_an_error_of_step_functions_can_be_retried(error: Exception) -> None:
    with pytest.raises(StorageUnavailable, match="Step Functions: "):
        responding(error).is_running(ARN)
