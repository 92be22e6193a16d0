"""A schedule as EventBridge Scheduler has it, and what it would start: the batch's, or the warm-up's."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stepensemble.batch.schedule_times import next_times
from stepensemble.cli.stacks import Stack


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A schedule.

    Attributes:
        template: the target's input as it stands, with context attributes in it.
        start, end: between which it starts anything; None where that is open.
        created: when it was made; a rate counts from there.
    """

    name: str
    arn: str
    expression: str
    timezone: str
    state: str
    target: str
    template: str
    start: datetime | None
    end: datetime | None
    created: datetime | None

    @property
    def input(self) -> Mapping[str, Any]:
        """The target's input, with context attributes as they stand."""
        read = json.loads(self.template)
        return read if isinstance(read, dict) else {}

    def next_times(self, after: datetime, many: int) -> list[datetime]:
        """Return when it starts its target next, or would if it were enabled, in its timezone."""
        start = self.start or (self.created if self.expression.startswith("rate") else None)
        return next_times(self.expression, self.timezone, after, many, start=start, end=self.end)

    def to_json(self, times: Sequence[datetime]) -> dict[str, Any]:
        """Return what is known of it, with its next times."""
        known = {name: getattr(self, name) for name in ("name", "expression", "timezone", "state", "target")}
        return known | {"input": self.input, "next": [time.isoformat() for time in times]}

    def fill(self, at: datetime) -> str:
        """Return the input that its target gets, with the context attributes replaced as Scheduler does.

        https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-schedule-context-attributes.html
        """
        attributes = {
            "schedule-arn": self.arn,
            "scheduled-time": f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "execution-id": secrets.token_hex(8),
            "attempt-number": "1",
        }
        filled = self.template
        for name, value in attributes.items():
            filled = filled.replace(f"<aws.scheduler.{name}>", value)
        return filled


def read_schedule(stack: Stack, named: str | None = None) -> Scheduled:
    """Return a schedule of a stack: the one that is named, or the batch's."""
    group, _, name = (named or stack.schedule).rpartition("/")
    found = stack.scheduler.get_schedule(Name=name, GroupName=group or "default")
    return Scheduled(
        name=name,
        arn=found["Arn"],
        expression=found["ScheduleExpression"],
        timezone=found.get("ScheduleExpressionTimezone", "UTC"),
        state=found["State"],
        target=found["Target"]["Arn"],
        template=found["Target"].get("Input", "{}"),
        start=found.get("StartDate"),
        end=found.get("EndDate"),
        created=found.get("CreationDate"),
    )


def fire(stack: Stack, scheduled: Scheduled, at: datetime) -> str:
    """Start what the schedule starts, with what it gives it at that time, and return the execution's ARN."""
    name = f"schedule-{at.astimezone(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    started = stack.step_functions.start_execution(
        stateMachineArn=scheduled.target, name=name, input=scheduled.fill(at)
    )
    return started["executionArn"]
