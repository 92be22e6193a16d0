"""The toy project, a stack of it, and clients for that stack."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from driving import make_client
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack

LEAK = "leaked"
TOY = Path(__file__).with_name("toy")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the toy project for one test."""
    return Path(shutil.copytree(TOY, tmp_path / "toy"))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack of the toy project for all tests."""
    folder = shutil.copytree(TOY, tmp_path_factory.mktemp("local") / "toy")
    # The functions must not see it, and the stack must work with it.
    os.environ["AWS_SESSION_TOKEN"] = LEAK
    try:
        # Another account, as the stacks of single tests use the default one.
        with LocalStack.start(Path(folder), LocalStackOptions(account="111111111111")) as started:
            yield started
    finally:
        del os.environ["AWS_SESSION_TOKEN"]


@pytest.fixture
def client(stack: LocalStack) -> Callable[[str], Any]:
    """Makes clients for the common stack."""
    return lambda service: make_client(stack.endpoint, service)


@pytest.fixture
def invoke(client: Callable[[str], Any]) -> Callable[..., tuple[str | None, Any]]:
    """Calls a function of the common stack; returns the function error, if any, and the payload."""
    functions = client("lambda")

    def call(name: str, /, **event: Any) -> tuple[str | None, Any]:
        response = functions.invoke(FunctionName=f"stepensemble-local-{name}", Payload=json.dumps(event))
        return response.get("FunctionError"), json.loads(response["Payload"].read())

    return call


@pytest.fixture
def execute(stack: LocalStack, client: Callable[[str], Any]) -> Callable[..., dict[str, Any]]:
    """Creates a state machine from states, runs it, and returns its execution's description."""
    machines = client("stepfunctions")

    def run(states: dict[str, Any], value: object = None, seconds: float = 30) -> dict[str, Any]:
        name = f"test-{time.monotonic_ns()}"
        definition = json.dumps({"StartAt": next(iter(states)), "States": states})
        machine = machines.create_state_machine(name=name, definition=definition, roleArn=stack.outputs["Role"])
        started = machines.start_execution(
            stateMachineArn=machine["stateMachineArn"], name=name, input=json.dumps(value or {})
        )
        return wait(machines, started["executionArn"], seconds)

    return run


def wait(machines: Any, execution: str, seconds: float = 30) -> dict[str, Any]:
    """Wait for an execution's end and return its description."""
    deadline = time.monotonic() + seconds
    while (described := machines.describe_execution(executionArn=execution))["status"] == "RUNNING":
        assert time.monotonic() < deadline, f"{execution} runs for more than {seconds} s"
        time.sleep(0.02)
    return dict(described)
