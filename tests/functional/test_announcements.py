"""Predictions that are announced on EventBridge if the stack's parameter is set."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from builders import ROOT
from driving import copy_project, predict, run_ensemble, start, wait
from stepensemble.cli.stacks import Stack, ensure_published, local_stack
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack
from stepensemble.publishing.manifest_loader import read_sources

PASSENGER = json.loads((ROOT / "events" / "passenger.json").read_text())
(SHOWN,) = (
    json.loads(block)
    for block in re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "deployment.md").read_text(), flags=re.DOTALL)
    if "PredictionCompleted" in block
)
ReadEvents = Callable[[], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder for this module."""
    return copy_project(tmp_path_factory.mktemp("announcing"))


@pytest.fixture(scope="module")
def announcing(folder: Path) -> Iterator[Stack]:
    """A stack that announces predictions; commands in its folder use it."""
    parameters = {"AnnouncePredictions": "true"}
    with LocalStack.start(
        folder, LocalStackOptions(announce=True, account="666666666666", parameters=parameters)
    ) as local:
        opened = local_stack(local.name, local.endpoint)
        ensure_published(opened, read_sources(folder / "models" / "manifest.json"), notify=lambda _: None)
        yield opened


@contextmanager
def receive_events(stack: Stack) -> Iterator[ReadEvents]:
    """Send all of a stack's events to a queue while the block lasts; yield a function that takes them out of it."""
    events, queues = (stack.session.client(name, endpoint_url=stack.endpoint) for name in ("events", "sqs"))
    url = queues.create_queue(QueueName="received")["QueueUrl"]
    arn = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name="received", EventPattern=json.dumps({"source": ["stepensemble"]}))
    events.put_targets(Rule="received", Targets=[{"Id": "queue", "Arn": arn}])

    def read_events() -> list[dict[str, Any]]:
        received: list[dict[str, Any]] = []
        while messages := queues.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                received.append(json.loads(message["Body"]))
                queues.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return received

    try:
        yield read_events
    finally:
        events.remove_targets(Rule="received", Ids=["queue"])
        events.delete_rule(Name="received")
        queues.delete_queue(QueueUrl=url)


def completed(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["detail-type"] == "PredictionCompleted"]


def test_a_rule_gets_the_documented_event_which_names_the_record(announcing: Stack) -> None:
    with receive_events(announcing) as read_events:
        output = predict(announcing, PASSENGER, name="announced")
        (event,) = completed(read_events())
    assert {key: event[key] for key in SHOWN if key != "detail"} == {
        key: SHOWN[key] for key in SHOWN if key != "detail"
    }
    detail = event["detail"]
    assert (set(detail), set(detail["record"])) == (set(SHOWN["detail"]), set(SHOWN["detail"]["record"]))
    assert (detail["stack"], detail["status"], detail["release"]) == (announcing.name, "COMPLETE", output["release"])
    dynamo = announcing.session.client("dynamodb", endpoint_url=announcing.endpoint)
    key = {name: {"S": value} for name, value in detail["record"]["key"].items()}
    item = dynamo.get_item(TableName=detail["record"]["table"], Key=key)["Item"]
    assert item["execution"]["S"] == detail["execution"]
    assert (detail["prediction_id"], detail["record"]["path"]) == ("announced", "/predictions/announced")
    assert "features" not in json.dumps(event)


def test_a_synchronous_execution_is_announced_too(announcing: Stack) -> None:
    with receive_events(announcing) as read_events:
        machine = announcing.outputs["ExpressStateMachineArn"]
        done = announcing.step_functions.start_sync_execution(stateMachineArn=machine, input=json.dumps(PASSENGER))
        (event,) = completed(read_events())
    assert event["detail"]["prediction_id"] == json.loads(done["output"])["prediction_id"]


def test_a_warm_up_a_rejection_and_a_batch_announce_nothing(announcing: Stack, folder: Path) -> None:
    with receive_events(announcing) as read_events:
        assert wait(announcing, start(announcing, {"warmup": True}))["status"] == "SUCCEEDED"
        assert wait(announcing, start(announcing, {"features": {}}))["status"] == "FAILED"
        done = run_ensemble(folder, "batch", "examples/titanic/passengers.csv", "--date", "2026-03-01")
        assert done.returncode == 0, done.stderr
        assert read_events() == []


def test_by_default_nothing_is_announced_and_no_state_is_added(stack: Stack, shared_project: Path) -> None:
    ensure_published(stack, read_sources(shared_project / "models" / "manifest.json"), notify=lambda _: None)
    with receive_events(stack) as read_events:
        execution = start(stack, PASSENGER)
        assert wait(stack, execution)["status"] == "SUCCEEDED"
        assert completed(read_events()) == []
    history = stack.step_functions.get_execution_history(executionArn=execution, maxResults=1000)["events"]
    entered = [event["stateEnteredEventDetails"]["name"] for event in history if "stateEnteredEventDetails" in event]
    assert entered[-2:] == ["Next tier or events?", "Succeed"]
