"""Amazon States Language, as far as the project uses it, works on moto's engine as on AWS."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.stepfunctions.parser import utils as engine_utils

from driving import make_client
from stepensemble.local.emulation.retention import CLEANUP_INTERVAL, Retention
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack

Clients = Callable[[str], Any]
Execute = Callable[..., dict[str, Any]]

ECHO = "stepensemble-local-echo"
HASTY = "stepensemble-local-hasty"
RETRY = {"IntervalSeconds": 1, "MaxAttempts": 1, "BackoffRate": 2, "MaxDelaySeconds": 2, "JitterStrategy": "FULL"}


def task(**changes: Any) -> dict[str, Any]:
    state = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName.$": "$.function", "Payload.$": "$"},
        "OutputPath": "$.Payload",
        "End": True,
    }
    return {key: value for key, value in (state | changes).items() if value is not None}


def events(client: Clients, described: dict[str, Any]) -> list[dict[str, Any]]:
    history = client("stepfunctions").get_execution_history(executionArn=described["executionArn"])
    return list(history["events"])


def test_a_map_invokes_the_functions_that_the_data_names_in_parallel(execute: Execute):
    names = [f"stepensemble-local-{name}" for name in ("worker-A", "worker-B", "echo")]
    map_state = {
        "Type": "Map",
        "ItemsPath": "$.members",
        "ItemSelector": {"member.$": "$$.Map.Item.Value", "index.$": "$$.Map.Item.Index", "shared.$": "$.shared"},
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "INLINE"},
            "StartAt": "Invoke",
            "States": {
                "Invoke": task(
                    Parameters={
                        "FunctionName.$": "$.member",
                        "Payload": {"sleep": 2, "echo.$": "$.shared", "name.$": "$.index"},
                    }
                )
            },
        },
        "ResultPath": "$.results",
        "End": True,
    }
    execute({"Invoke all": map_state}, {"members": names, "shared": 1})  # processes start

    described = execute({"Invoke all": map_state}, {"members": names, "shared": {"deep": [1, 2]}})

    results = json.loads(described["output"])["results"]
    assert [result["function"] for result in results] == names
    assert [result["name"] for result in results] == [0, 1, 2]
    assert all(result["echo"] == {"deep": [1, 2]} for result in results)
    # All ran at the same time.
    assert max(result["began"] for result in results) < min(result["ended"] for result in results)


def test_fail_takes_error_and_cause_from_the_data(execute: Execute):
    fail = {"Type": "Fail", "ErrorPath": "$.failure.error", "CausePath": "$.failure.cause"}

    described = execute({"Fail": fail}, {"failure": {"error": "InvalidPayload", "cause": "row 1: “Sex”\nrow 2"}})

    assert described["status"] == "FAILED"
    assert (described["error"], described["cause"]) == ("InvalidPayload", "row 1: “Sex”\nrow 2")


def test_choice_checks_whether_a_value_is_present(execute: Execute):
    states = {
        "There?": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.failure", "IsPresent": True, "Next": "There"}],
            "Default": "Not there",
        },
        "There": {"Type": "Pass", "Result": "there", "End": True},
        "Not there": {"Type": "Pass", "Result": "not there", "End": True},
    }

    assert json.loads(execute(states, {"failure": None})["output"]) == "there"
    assert json.loads(execute(states, {"other": 1})["output"]) == "not there"


def test_a_task_times_out_by_a_path_and_the_next_invocation_works(execute: Execute):
    invoke = task(
        TimeoutSecondsPath="$.timeout",
        Catch=[{"ErrorEquals": ["States.Timeout"], "ResultPath": "$.error", "Next": "Caught"}],
    )
    states = {"Invoke": invoke, "Caught": {"Type": "Pass", "End": True}}

    described = execute(states, {"function": ECHO, "sleep": 3, "timeout": 1})

    output = json.loads(described["output"])
    assert output["error"]["Error"] == "States.Timeout"
    assert output["function"] == ECHO  # the state's input is still there
    again = json.loads(execute(states, {"function": ECHO, "timeout": 1, "echo": "next"})["output"])
    assert again["echo"] == "next"
    time.sleep(2.5)  # the timed-out invocation has ended by now, and affects nothing
    assert json.loads(execute(states, {"function": ECHO, "timeout": 1, "echo": "last"})["output"])["echo"] == "last"


def test_retries_have_a_number(execute: Execute, client: Clients):
    invoke = task(Retry=[{"ErrorEquals": ["ValueError"], **RETRY, "MaxAttempts": 2}])

    described = execute({"Invoke": invoke}, {"function": ECHO, "raise": "always"})

    assert (described["status"], described["error"]) == ("FAILED", "ValueError")
    cause = json.loads(described["cause"])
    assert cause["errorMessage"] == "always"
    assert sum(event["type"] == "TaskScheduled" for event in events(client, described)) == 3


def test_every_item_of_a_map_has_its_own_retries(execute: Execute, client: Clients):
    invoke = task(
        Retry=[{"ErrorEquals": ["ValueError"], **RETRY}],
        Catch=[{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Carry"}],
    )
    map_state = {
        "Type": "Map",
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "INLINE"},
            "StartAt": "Invoke",
            "States": {"Invoke": invoke, "Carry": {"Type": "Pass", "Parameters": {"error.$": "$.error"}, "End": True}},
        },
        "End": True,
    }
    item = {"function": ECHO, "raise": "always"}

    described = execute({"Invoke all": map_state}, [item, item, {"function": ECHO, "echo": "fine"}])

    first, second, third = json.loads(described["output"])
    assert first["error"]["Error"] == second["error"]["Error"] == "ValueError"
    assert third["echo"] == "fine"
    assert sum(event["type"] == "TaskScheduled" for event in events(client, described)) == 5


def test_functions_failures_have_lambdas_names(execute: Execute):
    def caught(value: dict[str, Any]) -> dict[str, Any]:
        invoke = task(Catch=[{"ErrorEquals": ["States.ALL"], "Next": "Caught"}])
        described = execute({"Invoke": invoke, "Caught": {"Type": "Pass", "End": True}}, value)
        return dict(json.loads(described["output"]))

    assert caught({"function": ECHO, "exit": 1})["Error"] == "Runtime.ExitError"
    assert caught({"function": HASTY, "sleep": 5})["Error"] == "Sandbox.Timedout"
    assert caught({"function": "stepensemble-local-broken"})["Error"] == "Runtime.ImportModuleError"
    assert caught({"function": "missing"})["Error"] == "Lambda.ResourceNotFoundException"
    raised = caught({"function": ECHO, "raise": "no"})
    assert raised["Error"] == "ValueError"
    assert json.loads(raised["Cause"])["errorMessage"] == "no"


def test_catch_all_catches_what_is_not_retried(execute: Execute, client: Clients):
    invoke = task(
        Retry=[{"ErrorEquals": ["Lambda.TooManyRequestsException"], **RETRY}],
        Catch=[{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Caught"}],
    )

    described = execute({"Invoke": invoke, "Caught": {"Type": "Pass", "End": True}}, {"function": ECHO, "raise": "no"})

    assert json.loads(described["output"])["error"]["Error"] == "ValueError"
    assert sum(event["type"] == "TaskScheduled" for event in events(client, described)) == 1


def test_the_context_names_the_execution(execute: Execute):
    show = {
        "Type": "Pass",
        "Parameters": {
            "id.$": "$$.Execution.Id",
            "name.$": "$$.Execution.Name",
            "input.$": "$$.Execution.Input",
            "started.$": "$$.Execution.StartTime",
        },
        "End": True,
    }

    described = execute({"Show": show}, {"a": 1})

    shown = json.loads(described["output"])
    assert shown["id"] == described["executionArn"]
    assert shown["name"] == described["name"]
    assert shown["input"] == {"a": 1}
    assert datetime.strptime(shown["started"], "%Y-%m-%dT%H:%M:%S.%fZ")
    assert len(shown["started"]) == len("2026-01-01T00:00:00.000Z")


def test_an_output_larger_than_a_state_fails_and_cannot_be_caught(execute: Execute):
    described = execute({"Invoke": task()}, {"function": ECHO, "length": 300_000})

    assert (described["status"], described["error"]) == ("FAILED", "States.DataLimitExceeded")


def test_a_success_always_has_its_output(stack: LocalStack, client: Clients):
    machines = client("stepfunctions")
    for _ in range(20):
        started = machines.start_execution(stateMachineArn=stack.outputs["Machine"], input='{"sleep": 0}')
        while (described := machines.describe_execution(executionArn=started["executionArn"]))["status"] == "RUNNING":
            pass
        assert "output" in described


def test_types_of_state_machines_are_the_templates(stack: LocalStack, client: Clients):
    machines = client("stepfunctions")

    for output, kind in (("Machine", "STANDARD"), ("ExpressMachine", "EXPRESS")):
        assert machines.describe_state_machine(stateMachineArn=stack.outputs[output])["type"] == kind


def test_other_services_are_tasks_too(stack: LocalStack, client: Clients, execute: Execute):
    put = {
        "Type": "Task",
        "Resource": "arn:aws:states:::dynamodb:putItem",
        "Parameters": {"TableName": stack.outputs["Facts"], "Item": {"id": {"S.$": "$.id"}}},
        "End": True,
    }

    assert execute({"Put": put}, {"id": "by a task"})["status"] == "SUCCEEDED"

    found = client("dynamodb").get_item(TableName=stack.outputs["Facts"], Key={"id": {"S": "by a task"}})
    assert found["Item"] == {"id": {"S": "by a task"}}


def clean_up(retention: Retention) -> None:
    for _ in range(CLEANUP_INTERVAL):
        retention.clean_up()


@pytest.mark.parametrize(
    "bound", [{"executions": 2}, {"characters": 1}], ids=["by their number", "by the length of their histories"]
)
def test_executions_are_removed_beyond_a_bound_but_not_while_they_run(project: Path, bound: dict[str, int]) -> None:
    with LocalStack.start(project, LocalStackOptions(account="333333333333")) as stack:
        machines = make_client(stack.endpoint, "stepfunctions")
        machine = stack.outputs["Machine"]

        def start(sleep: float) -> str:
            return machines.start_execution(stateMachineArn=machine, input=json.dumps({"sleep": sleep}))["executionArn"]

        runs = start(100)
        ended = [start(0) for _ in range(4)]
        for arn in ended:
            while machines.describe_execution(executionArn=arn)["status"] == "RUNNING":
                time.sleep(0.01)
        clean_up(Retention("333333333333", "us-east-1"))
        assert {one["executionArn"] for one in list_all(machines, machine)} == {runs, *ended}
        clean_up(Retention("333333333333", "us-east-1", **bound))
        kept = ended[2:] if "executions" in bound else ended[3:]
        assert {one["executionArn"] for one in list_all(machines, machine)} == {runs, *kept}
        assert machines.get_execution_history(executionArn=kept[-1])["events"]
        with pytest.raises(ClientError, match="ExecutionDoesNotExist"):
            machines.describe_execution(executionArn=ended[0])


def list_all(machines: Any, machine: str) -> list[dict[str, Any]]:
    return list(machines.list_executions(stateMachineArn=machine)["executions"])


def test_threads_of_synchronous_executions_are_removed_too(client: Clients, stack: LocalStack) -> None:
    ended = threading.Thread()
    engine_utils.TMP_THREADS.append(ended)
    for _ in range(CLEANUP_INTERVAL):
        client("stepfunctions").start_sync_execution(
            stateMachineArn=stack.outputs["ExpressMachine"], input='{"failure": {"error": "E", "cause": "C"}}'
        )
    assert ended not in engine_utils.TMP_THREADS
