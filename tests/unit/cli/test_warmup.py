"""The times of a warm-up, read from an execution's history, and the table of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

from stepensemble.cli.tables.warmup import render_warmup
from stepensemble.cli.warmup import WarmUpComparison, WarmUpRound, read_round_trips
from stepensemble.core.aggregation.output import MemberFailure
from stepensemble.handlers.prediction.warmup import WarmedMember, WarmUp

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ARN = "arn:aws:lambda:us-east-1:123456789012:function:dev-normalize"


def event(id_: int, previous: int, kind: str, milliseconds: int, function: str | None = None) -> dict[str, Any]:
    """Return an event of a history as Step Functions lists it."""
    found: dict[str, Any] = {"id": id_, "previousEventId": previous, "type": kind}
    found["timestamp"] = NOON + timedelta(milliseconds=milliseconds)
    if function is not None:
        found["taskScheduledEventDetails"] = {"parameters": json.dumps({"FunctionName": function, "Payload": {}})}
    return found


def test_a_round_trip_is_from_an_invocation_to_its_end_with_other_events_between() -> None:
    events = [
        event(1, 0, "ExecutionStarted", 0),
        event(2, 1, "TaskStateEntered", 0),
        event(3, 2, "TaskScheduled", 5, ARN),
        event(4, 3, "TaskStarted", 6),
        event(5, 4, "TaskSucceeded", 25),
        event(6, 5, "MapStateEntered", 26),
        event(7, 6, "TaskScheduled", 30, "dev-score-1"),
        event(8, 6, "TaskScheduled", 31, "dev-score-2"),
        event(9, 8, "TaskStarted", 32),
        event(10, 7, "TaskStarted", 33),
        event(11, 9, "TaskTimedOut", 1031),
        event(12, 10, "TaskSucceeded", 1530),
    ]
    assert read_round_trips(events) == {"dev-normalize": 20, "dev-score-1": 1500, "dev-score-2": 1000}


def test_the_last_attempt_of_a_repeated_invocation_counts() -> None:
    events = [
        event(1, 0, "TaskStateEntered", 0),
        event(2, 1, "TaskScheduled", 0, "dev-score-1"),
        event(3, 2, "TaskFailed", 9),
        event(4, 3, "TaskScheduled", 500, "dev-score-1"),
        event(5, 4, "TaskStarted", 501),
        event(6, 5, "TaskSucceeded", 507),
    ]
    assert read_round_trips(events) == {"dev-score-1": 7}


CURRENT, CANARY = "c" * 64, "d" * 64


def warm_ups(*members: tuple[bool | None, bool | None], canary: bool = False) -> WarmUpComparison:
    """Return two rounds over members a, b, …, each cold or not in both; None is a failure. The last is the canary's."""

    def make(turn: int) -> WarmUpRound:
        made = []
        for number, colds in enumerate(members):
            failure = (
                MemberFailure("ArtifactCorrupt", "it was overwritten\nrestore it") if colds[turn] is None else None
            )
            release = CANARY if canary and number == len(members) - 1 else CURRENT
            slot = min(number + 1, len(members) - canary)  # the canary's member shares the slot of the one before
            name = f"dev-score-{slot}"
            made.append(WarmedMember("ab"[number], "1", "voter", release, name, colds[turn], error=failure))
        trips = {"dev-normalize": 300.0, "dev-aggregate": 1200.0, "dev-score-1": 600.0, "dev-score-2": 70.0}
        served = WarmUp(release=CURRENT, canary=CANARY if canary else None, members=tuple(made))
        return WarmUpRound(f"run-{turn}", served, 2100.0, {name: trip / (100**turn) for name, trip in trips.items()})

    return WarmUpComparison(make(0), make(1), "dev-normalize", "dev-aggregate", "dev-score-")


def render(one: WarmUpComparison) -> list[str]:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(render_warmup(one))
    return [" ".join(line.split()) for line in captured.get().splitlines()]


def test_cold_and_warm_times_stand_side_by_side() -> None:
    assert render(warm_ups((True, False), (False, False))) == [
        "member version slot model first second",
        "a 1 1 loaded 600 ms 6 ms",
        "b 1 2 already loaded 70 ms 1 ms",
        "",
        "Normalize 300 ms 3 ms",
        "Aggregate 1.2 s 12 ms",
        "whole execution 2.1 s 2.1 s",
        "",
        "warm 1 of 2 models were loaded; release cccccccccccc",
    ]


def test_a_slots_time_is_shown_once_and_the_canarys_member_as_such() -> None:
    lines = render(warm_ups((True, False), (True, False), canary=True))
    assert lines[1:3] == ["a 1 1 loaded 600 ms 6 ms", "b (canary) 1 1 loaded"]
    assert lines[-1] == "warm 2 of 2 models were loaded and are warm now; release cccccccccccc, canary dddddddddddd"


def test_a_warm_up_of_warm_slots_is_reported_as_such() -> None:
    last = render(warm_ups((False, False)))[-1]
    assert last == "warm no model had to be loaded, so both columns show warm slots; release cccccccccccc"


def test_a_slot_that_failed_was_not_warm() -> None:
    assert render(warm_ups((None, None)))[-2] == "warm 0 of 1 models were loaded; release cccccccccccc"


def test_a_member_that_is_loaded_twice_or_not_at_all_is_named() -> None:
    twice = render(warm_ups((True, True), (None, None)))
    assert twice[2] == "b 1 2 ArtifactCorrupt 70 ms 1 ms"
    assert twice[-2:] == [
        "a was loaded again: another execution environment was used, or the slot cannot hold all of its models",
        "b failed: it was overwritten",
    ]
    assert [member.id for member in warm_ups((True, True), (None, None)).failed] == ["b"]


def test_a_member_that_came_up_the_second_time_has_not_failed() -> None:
    assert warm_ups((None, True)).failed == ()


def test_the_document_has_both_rounds_and_a_slot_a_member() -> None:
    document = json.loads(json.dumps(warm_ups((True, False)).to_json()))
    assert (document["release"], document["canary"]) == (CURRENT, None)
    assert document["first"]["members"][0]["slot"] == "1"
    assert [document[turn]["members"][0]["round_trip_ms"] for turn in ("first", "second")] == [600, 6]
    assert [document[turn]["aggregate_ms"] for turn in ("first", "second")] == [1200, 12]
