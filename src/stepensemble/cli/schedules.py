"""The schedules in EventBridge Scheduler, of the batch and of the warm-up: when they start, and what."""

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
class Schedule:
    """A schedule.

    Attributes:
        template: the target's input, with the context attributes not yet replaced.
        start, end: the time between which it is active; None if there is no limit.
        created: when it was created; a rate counts from then.
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
        """The target's input, with the context attributes not yet replaced."""
        document = json.loads(self.template)
        return document if isinstance(document, dict) else {}

    def next_times(self, after: datetime, many: int) -> list[datetime]:
        """Return the next times at which it starts its target, or would if it were enabled, in its timezone."""
        start = self.start or (self.created if self.expression.startswith("rate") else None)
        return next_times(self.expression, self.timezone, after, many, start=start, end=self.end)

    def to_json(self, times: Sequence[datetime]) -> dict[str, Any]:
        """Return the schedule as one document, with its next times."""
        fields = {name: getattr(self, name) for name in ("name", "expression", "timezone", "state", "target")}
        return fields | {"input": self.input, "next": [time.isoformat() for time in times]}

    def fill(self, at: datetime) -> str:
        """Return the input for its target, with the context attributes replaced as Scheduler replaces them.

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


def read_schedule(stack: Stack, named: str | None = None) -> Schedule:
    """Return the schedule of that name, by default the batch's."""
    group, _, name = (named or stack.schedule).rpartition("/")
    found = stack.scheduler.get_schedule(Name=name, GroupName=group or "default")
    return Schedule(
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


def fire(stack: Stack, schedule: Schedule, at: datetime) -> str:
    """Start the schedule's target with the input of that time, and return the execution's ARN."""
    name = f"schedule-{at.astimezone(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    started = stack.step_functions.start_execution(stateMachineArn=schedule.target, name=name, input=schedule.fill(at))
    return started["executionArn"]
