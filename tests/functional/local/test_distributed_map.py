"""A Distributed Map over a list in S3 means on moto's engine what it means on AWS, as far as the batch uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from stepensemble.local.stack import LocalStack

Clients = Callable[[str], Any]
Execute = Callable[..., dict[str, Any]]

ECHO = "stepensemble-local-echo"


def invoke_echo(**changes: Any) -> dict[str, Any]:
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": ECHO, "Payload.$": "$"},
        "OutputPath": "$.Payload",
        **changes,
    }


def over(bucket: str, processor: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "Type": "Map",
        "ItemReader": {
            "Resource": "arn:aws:states:::s3:getObject",
            "ReaderConfig": {"InputType": "JSON"},
            "Parameters": {"Bucket": bucket, "Key.$": "$.list"},
        },
        "ItemSelector": {"echo.$": "$$.Map.Item.Value", "sleep.$": "$.sleep"},
        "MaxConcurrencyPath": "$.concurrency",
        "ToleratedFailurePercentage": 100.0,
        "ItemProcessor": {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}, **processor},
        "ResultWriter": {
            "Resource": "arn:aws:states:::s3:putObject",
            "Parameters": {"Bucket": bucket, "Prefix.$": "$.written"},
        },
        "ResultPath": None,
        "End": True,
        **changes,
    }


INPUT = {"list": "lists/1.json", "written": "written", "sleep": 0, "concurrency": 3}


@pytest.fixture
def bucket(stack: LocalStack, client: Clients) -> str:
    name = stack.outputs["Things"]
    client("s3").put_object(Bucket=name, Key="lists/1.json", Body=json.dumps([{"n": n} for n in range(7)]))
    return name


def test_every_item_is_processed_and_the_results_are_where_the_input_names_them(
    execute: Execute, client: Clients, bucket: str
) -> None:
    processor = {"StartAt": "Invoke", "States": {"Invoke": invoke_echo(End=True)}}
    described = execute({"All": over(bucket, processor, ResultPath="$.results")}, INPUT)
    assert described["status"] == "SUCCEEDED", described["cause"]
    output = json.loads(described["output"])
    written = output.pop("results")["ResultWriterDetails"]
    assert output == INPUT
    assert written["Bucket"] == bucket
    assert written["Key"].startswith("written/")
    assert client("s3").head_object(Bucket=bucket, Key=written["Key"])


def test_an_item_has_its_value_and_the_input_of_the_map(execute: Execute, bucket: str) -> None:
    processor = {"StartAt": "Invoke", "States": {"Invoke": invoke_echo(End=True)}}
    states = {"All": over(bucket, processor, ResultWriter=None, ResultPath="$.results")}
    states["All"].pop("ResultWriter")
    output = json.loads(execute(states, INPUT)["output"])
    assert [one["echo"] for one in output["results"]] == [{"n": n} for n in range(7)]


def test_a_childs_failure_is_caught_in_the_child_and_the_others_go_on(execute: Execute, bucket: str) -> None:
    catch = [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.failure", "Next": "Note"}]
    note = {"Type": "Pass", "Parameters": {"noted.$": "$.failure.Error", "of.$": "$.echo.n"}, "End": True}
    states = {
        "Odd?": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.echo.n", "NumericEquals": 3, "Next": "Fail"}],
            "Default": "Invoke",
        },
        "Fail": invoke_echo(Parameters={"FunctionName": ECHO, "Payload": {"raise": "no"}}, Catch=catch, End=True),
        "Invoke": invoke_echo(Catch=catch, End=True),
        "Note": note,
    }
    machine = over(bucket, {"StartAt": "Odd?", "States": states}, ResultPath="$.results")
    machine.pop("ResultWriter")
    results = json.loads(execute({"All": machine}, INPUT)["output"])["results"]
    assert [one["echo"]["n"] for one in results if "echo" in one] == [0, 1, 2, 4, 5, 6]
    assert results[3] == {"noted": "ValueError", "of": 3}


def test_an_uncaught_failure_of_a_child_is_tolerated(execute: Execute, bucket: str) -> None:
    fail = invoke_echo(Parameters={"FunctionName": ECHO, "Payload": {"raise": "no"}}, End=True)
    described = execute({"All": over(bucket, {"StartAt": "Fail", "States": {"Fail": fail}})}, INPUT)
    assert described["status"] == "SUCCEEDED"
    assert json.loads(described["output"]) == INPUT


def test_a_child_may_hold_a_map_and_a_loop(execute: Execute, bucket: str) -> None:
    inner = {
        "Type": "Map",
        "ItemsPath": "$.members",
        "ItemSelector": {"echo.$": "$$.Map.Item.Value"},
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "INLINE"},
            "StartAt": "Invoke",
            "States": {"Invoke": invoke_echo(End=True)},
        },
        "ResultSelector": {"all.$": "$[*].echo"},
        "ResultPath": "$.results",
        "Next": "Again?",
    }
    states = {
        "Begin": {"Type": "Pass", "Result": [1, 2], "ResultPath": "$.members", "Next": "Inner"},
        "Inner": inner,
        "Again?": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.second", "IsPresent": True, "Next": "End"}],
            "Default": "Second",
        },
        "Second": {"Type": "Pass", "Result": True, "ResultPath": "$.second", "Next": "Members"},
        "Members": {"Type": "Pass", "Result": [3], "ResultPath": "$.members", "Next": "Inner"},
        "End": {"Type": "Pass", "OutputPath": "$.results", "End": True},
    }
    machine = over(bucket, {"StartAt": "Begin", "States": states}, ResultPath="$.results")
    machine.pop("ResultWriter")
    output = json.loads(execute({"All": machine}, INPUT)["output"])
    assert output["results"] == [{"all": [3]}] * 7


def test_a_list_that_is_not_there_fails_the_map_and_can_be_caught(execute: Execute, bucket: str) -> None:
    catch = [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.failure", "Next": "Go on"}]
    processor = {"StartAt": "Invoke", "States": {"Invoke": invoke_echo(End=True)}}
    states = {"All": over(bucket, processor, Catch=catch), "Go on": {"Type": "Pass", "End": True}}
    described = execute(states, INPUT | {"list": "lists/none.json"})
    assert described["status"] == "SUCCEEDED"
    assert "failure" in json.loads(described["output"])


def test_one_worker_processes_thousands_of_items(execute: Execute, client: Clients, bucket: str) -> None:
    client("s3").put_object(Bucket=bucket, Key="lists/many.json", Body=json.dumps(list(range(1500))))
    processor = {"StartAt": "Pass", "States": {"Pass": {"Type": "Pass", "OutputPath": "$.echo", "End": True}}}
    machine = over(bucket, processor, ResultPath="$.results")
    machine.pop("ResultWriter")
    described = execute({"All": machine}, INPUT | {"list": "lists/many.json", "concurrency": 1}, 60)
    assert json.loads(described["output"])["results"] == list(range(1500))
