"""Warm a stack up, and read from the execution's history how long each function took."""

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
class WarmUpRound:
    """One warm-up that has ended; times are in milliseconds.

    Attributes:
        execution: the execution's name.
        warm_up: the execution's output.
        total: how long the execution took.
        round_trips: how long each function took, from its invocation to its response, by the function's name.
    """

    execution: str
    warm_up: WarmUp
    total: float
    round_trips: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class WarmUpComparison:
    """Two warm-ups, one after the other; a member that was cold in the first should be warm in the second.

    Attributes:
        normalize, aggregate: names of these two functions.
        prefix: the name of every score function without the number of its slot.
    """

    first: WarmUpRound
    second: WarmUpRound
    normalize: str
    aggregate: str
    prefix: str

    @property
    def failed(self) -> tuple[WarmedMember, ...]:
        """The members that could not be loaded the second time, and so are not loaded now."""
        return tuple(member for member in self.second.warm_up.members if member.error is not None)

    def to_json(self) -> dict[str, Any]:
        """Return everything as one document."""
        warm_up = self.second.warm_up
        return {
            "release": warm_up.release,
            "canary": warm_up.canary,
            "first": self._describe(self.first),
            "second": self._describe(self.second),
        }

    def _describe(self, one: WarmUpRound) -> dict[str, Any]:
        members = [
            {
                **msgspec.to_builtins(member),
                "slot": member.function.removeprefix(self.prefix),
                "round_trip_ms": one.round_trips.get(member.function),
            }
            for member in one.warm_up.members
        ]
        return {
            "execution": one.execution,
            "total_ms": one.total,
            "normalize_ms": one.round_trips.get(self.normalize),
            "aggregate_ms": one.round_trips.get(self.aggregate),
            "members": members,
        }


def warm_up_twice(stack: Stack) -> WarmUpComparison:
    """Warm a stack up twice.

    Raises:
        EnsembleError: the execution failed, with its error; NothingPublished if the stack has no release.
    """
    return WarmUpComparison(
        _warm_up(stack),
        _warm_up(stack),
        stack.outputs["NormalizeFunctionName"],
        stack.outputs["AggregateFunctionName"],
        stack.outputs["ScoreFunctionPrefix"],
    )


def read_round_trips(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return how long the last attempt of each function took, from its invocation to its end, in milliseconds by name.

    Args:
        events: the events of an execution's history, oldest first; each has the id of its previous event.
    """
    by_id = {event["id"]: event for event in events}
    round_trips: dict[str, float] = {}
    for event in by_id.values():
        if event["type"] in ENDS:
            scheduled = event
            while scheduled["type"] != "TaskScheduled":
                scheduled = by_id[scheduled["previousEventId"]]
            parameters = msgspec.json.decode(scheduled["taskScheduledEventDetails"]["parameters"])
            function = parameters["FunctionName"].rpartition(":")[2]  # the last part of an ARN
            round_trips[function] = _milliseconds(scheduled["timestamp"], event["timestamp"])
    return round_trips


def _warm_up(stack: Stack) -> WarmUpRound:
    name = name_execution()
    started = stack.step_functions.start_execution(
        stateMachineArn=stack.state_machine, name=name, input=msgspec.json.encode({WARMUP: True}).decode()
    )
    described = wait_for(stack, started["executionArn"])
    if described["status"] != "SUCCEEDED":
        raise name_failure(described.get("error", described["status"]), described.get("cause", ""), name)
    history = stack.step_functions.get_paginator("get_execution_history")
    pages = history.paginate(executionArn=started["executionArn"])
    return WarmUpRound(
        name,
        msgspec.json.decode(described["output"], type=WarmUp),
        _milliseconds(described["startDate"], described["stopDate"]),
        read_round_trips(event for page in pages for event in page["events"]),
    )


def _milliseconds(start: datetime, end: datetime) -> float:
    return round((end - start).total_seconds() * 1000, 3)
