"""A schedule as EventBridge Scheduler describes it: when it starts next, and what it starts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from stepensemble.cli.schedules import fire, read_schedule
from stepensemble.cli.tables.batch import render_schedule

AT = datetime(2026, 3, 1, 5, tzinfo=UTC)
INPUT = (
    '{"dataset": "s3://data/inbox/dt={date}/", "scheduled_at": "<aws.scheduler.scheduled-time>", '
    '"by": "<aws.scheduler.schedule-arn> <aws.scheduler.attempt-number>", "id": "<aws.scheduler.execution-id>"}'
)


class Services:
    """Scheduler with one schedule, and Step Functions, which records what is started."""

    def __init__(self, **more: Any) -> None:
        self.started: list[dict[str, Any]] = []
        self.requested: dict[str, str] = {}
        self.found = {
            "Arn": "arn:aws:scheduler:us-east-1:1:schedule/default/dev-batch",
            "ScheduleExpression": "cron(0 5 * * ? *)",
            "ScheduleExpressionTimezone": "Europe/Berlin",
            "State": "ENABLED",
            "Target": {"Arn": "arn:aws:states:us-east-1:1:stateMachine:dev-batch", "Input": INPUT},
            **more,
        }

    def get_schedule(self, **requested: str) -> dict[str, Any]:
        self.requested = requested
        return self.found

    def start_execution(self, **started: Any) -> dict[str, str]:
        self.started.append(started)
        return {"executionArn": "arn"}

    def stack(self, schedule: str = "dev-batch") -> Any:
        return SimpleNamespace(scheduler=self, step_functions=self, schedule=schedule)


def test_it_is_found_by_its_name_and_group() -> None:
    services = Services()
    read_schedule(services.stack())
    assert services.requested == {"Name": "dev-batch", "GroupName": "default"}
    read_schedule(services.stack("nightly/dev-batch"))
    assert services.requested == {"Name": "dev-batch", "GroupName": "nightly"}


def test_its_target_is_started_with_its_input_and_the_attributes_of_that_time() -> None:
    services = Services()
    scheduled = read_schedule(services.stack())
    fire(services.stack(), scheduled, AT.astimezone(tz=None))
    (started,) = services.started
    assert started["stateMachineArn"] == "arn:aws:states:us-east-1:1:stateMachine:dev-batch"
    assert started["name"].startswith("schedule-20260301-050000-")
    given = json.loads(started["input"])
    assert given.pop("id")
    assert given == {
        "dataset": "s3://data/inbox/dt={date}/",
        "scheduled_at": "2026-03-01T05:00:00Z",
        "by": "arn:aws:scheduler:us-east-1:1:schedule/default/dev-batch 1",
    }


def test_it_starts_next_in_its_own_timezone_within_its_dates() -> None:
    scheduled = read_schedule(Services(EndDate=AT + timedelta(days=2)).stack())
    times = scheduled.next_times(AT, 5)
    assert [f"{time:%d %H:%M %z}" for time in times] == ["02 05:00 +0100", "03 05:00 +0100"]


def test_a_rate_counts_from_when_it_was_made() -> None:
    made = {"ScheduleExpression": "rate(1 day)", "CreationDate": datetime(2026, 2, 1, 12, 30, tzinfo=UTC)}
    (time,) = read_schedule(Services(**made).stack()).next_times(AT, 1)
    assert time == datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(("state", "heading"), [("ENABLED", "next"), ("DISABLED", "would be next")])
def test_the_table_shows_whether_the_schedule_is_enabled(state: str, heading: str) -> None:
    scheduled = read_schedule(Services(State=state).stack())
    console = Console(width=120)
    with console.capture() as captured:
        console.print(render_schedule(scheduled, scheduled.next_times(AT, 2)))
    lines = [" ".join(line.split()) for line in captured.get().splitlines()]
    assert lines == [
        "schedule dev-batch, cron(0 5 * * ? *) in Europe/Berlin",
        f"state {state.lower()}",
        "dataset s3://data/inbox/dt={date}/",
        "starts dev-batch",
        f"{heading} Mon 2026-03-02 05:00 CET",
        "Tue 2026-03-03 05:00 CET",
    ]
