"""A template's schedules can be read, and start nothing locally."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from stepensemble.local.stack import LocalStack

Clients = Callable[[str], Any]


def test_a_schedule_is_listed_and_described_as_in_the_template(stack: LocalStack, client: Clients) -> None:
    scheduler = client("scheduler")
    (listed,) = scheduler.list_schedules()["Schedules"]
    described = scheduler.get_schedule(Name=listed["Name"])
    assert listed["Name"] == stack.outputs["Daily"] == "stepensemble-local-daily"
    assert listed["State"] == described["State"] == "DISABLED"
    assert described["ScheduleExpression"] == "cron(0 5 * * ? *)"
    assert described["ScheduleExpressionTimezone"] == "Europe/Berlin"
    assert described["FlexibleTimeWindow"] == {"Mode": "OFF"}


def test_the_target_of_a_schedule_is_resolved(stack: LocalStack, client: Clients) -> None:
    target = client("scheduler").get_schedule(Name=stack.outputs["Daily"])["Target"]
    assert (target["Arn"], target["RoleArn"]) == (stack.outputs["Machine"], stack.outputs["Role"])
    assert json.loads(target["Input"]) == {
        "things": f"s3://{stack.outputs['Things']}",
        "at": "<aws.scheduler.scheduled-time>",
    }
    assert target["RetryPolicy"]["MaximumRetryAttempts"] == 3
    assert target["DeadLetterConfig"]["Arn"].endswith(":stepensemble-local-missed")


def test_the_queue_for_failed_starts_exists_and_is_empty(stack: LocalStack, client: Clients) -> None:
    target = client("scheduler").get_schedule(Name=stack.outputs["Daily"])["Target"]
    queues = client("sqs")
    url = queues.get_queue_url(QueueName=target["DeadLetterConfig"]["Arn"].rpartition(":")[2])["QueueUrl"]
    assert queues.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"] == {
        "ApproximateNumberOfMessages": "0"
    }
