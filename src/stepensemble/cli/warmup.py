"""Warm a stack up by hand, and read from the execution's history how long that took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from stepensemble.cli.execution import name_execution, wait_for
from stepensemble.cli.stacks import Stack
from stepensemble.core.payload import WARMUP
from stepensemble.handlers.http.invoker import name_failure
from stepensemble.handlers.prediction.warmup import WarmedMember, WarmUp

ENDS = frozenset({"TaskSucceeded", "TaskFailed", "TaskTimedOut"})


@dataclass(frozen=True, slots=True)
class Round:
    """One warm-up that has ended; times are in milliseconds.

    Attributes:
        trips: function's name to the time between the call to it and its answer, as Step Functions saw it.
    """

    execution: str
    warm_up: WarmUp
    total: float
    trips: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Warmed:
    """Two warm-ups, one after the other; what was cold in the first should not be in the second.

    Attributes:
        normalize, aggregate: names of these functions.
        prefix: the name of every score function without its slot.
    """

    first: Round
    again: Round
    normalize: str
    aggregate: str
    prefix: str

    @property
    def failed(self) -> tuple[WarmedMember, ...]:
        """The members that could not be loaded the second time, so that they are not there now."""
        return tuple(member for member in self.again.warm_up.members if member.error is not None)

    def to_json(self) -> dict[str, Any]:
        """Return everything as one document."""
        served = self.again.warm_up
        return {
            "release": served.release,
            "canary": served.canary,
            "first": self._describe(self.first),
            "again": self._describe(self.again),
        }

    def _describe(self, one: Round) -> dict[str, Any]:
        members = [
            {
                **msgspec.to_builtins(member),
                "slot": member.function.removeprefix(self.prefix),
                "round_trip_ms": one.trips.get(member.function),
            }
            for member in one.warm_up.members
        ]
        return {
            "execution": one.execution,
            "total_ms": one.total,
            "normalize_ms": one.trips.get(self.normalize),
            "aggregate_ms": one.trips.get(self.aggregate),
            "members": members,
        }


def warm_up_twice(stack: Stack) -> Warmed:
    """Warm a stack up, and once more.

    Raises:
        EnsembleError: what the execution failed with; NothingPublished where there is nothing to load.
    """
    return Warmed(
        _warm_up(stack),
        _warm_up(stack),
        stack.outputs["NormalizeFunctionName"],
        stack.outputs["AggregateFunctionName"],
        stack.outputs["ScoreFunctionPrefix"],
    )


def read_trips(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return how long each function took, by its name, in milliseconds: from the call to its end, of the last attempt.

    Args:
        events: of an execution's history, oldest first; each names the one that it follows.
    """
    known = {event["id"]: event for event in events}
    trips: dict[str, float] = {}
    for event in known.values():
        if event["type"] in ENDS:
            called = event
            while called["type"] != "TaskScheduled":
                called = known[called["previousEventId"]]
            asked = msgspec.json.decode(called["taskScheduledEventDetails"]["parameters"])
            function = asked["FunctionName"].rpartition(":")[2]  # of an ARN
            trips[function] = _milliseconds(called["timestamp"], event["timestamp"])
    return trips


def _warm_up(stack: Stack) -> Round:
    name = name_execution()
    started = stack.step_functions.start_execution(
        stateMachineArn=stack.state_machine, name=name, input=msgspec.json.encode({WARMUP: True}).decode()
    )
    described = wait_for(stack, started["executionArn"])
    if described["status"] != "SUCCEEDED":
        raise name_failure(described.get("error", described["status"]), described.get("cause", ""), name)
    history = stack.step_functions.get_paginator("get_execution_history")
    pages = history.paginate(executionArn=started["executionArn"])
    return Round(
        name,
        msgspec.json.decode(described["output"], type=WarmUp),
        _milliseconds(described["startDate"], described["stopDate"]),
        read_trips(event for page in pages for event in page["events"]),
    )


def _milliseconds(start: datetime, end: datetime) -> float:
    return round((end - start).total_seconds() * 1000, 3)
