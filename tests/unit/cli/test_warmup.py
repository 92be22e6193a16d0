"""The times of a warm-up, read from an execution's history; and what is shown of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

from stepensemble.cli.tables.warmup import render_warmup
from stepensemble.cli.warmup import WarmUpRound, WarmUpComparison, read_round_trips
from stepensemble.core.aggregation.prediction import MemberFailure
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


def test_a_round_trip_is_from_the_call_to_its_end_though_others_come_between() -> None:
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


def test_of_a_call_that_was_tried_again_the_last_attempt_counts() -> None:
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


def warmed(*members: tuple[bool | None, bool | None], canary: bool = False) -> WarmUpComparison:
    """Return two rounds over members a, b, …, each cold or not in both; None is a failure. The last is the canary's."""

    def make(turn: int) -> WarmUpRound:
        made = []
        for number, colds in enumerate(members):
            failure = (
                MemberFailure("ArtifactCorrupt", "it was overwritten\nrestore it") if colds[turn] is None else None
            )
            release = CANARY if canary and number == len(members) - 1 else CURRENT
            slot = min(number + 1, len(members) - canary)  # the canary's shares the slot of the one before
            name = f"dev-score-{slot}"
            made.append(WarmedMember("ab"[number], "1", "voter", release, name, colds[turn], error=failure))
        trips = {"dev-normalize": 300.0, "dev-aggregate": 1200.0, "dev-score-1": 600.0, "dev-score-2": 70.0}
        served = WarmUp(release=CURRENT, canary=CANARY if canary else None, members=tuple(made))
        return WarmUpRound(f"run-{turn}", served, 2100.0, {name: trip / (100**turn) for name, trip in trips.items()})

    return WarmUpComparison(make(0), make(1), "dev-normalize", "dev-aggregate", "dev-score-")


def drawn(one: WarmUpComparison) -> list[str]:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(render_warmup(one))
    return [" ".join(line.split()) for line in captured.get().splitlines()]


def test_cold_and_warm_times_stand_side_by_side() -> None:
    assert drawn(warmed((True, False), (False, False))) == [
        "member version slot model first again",
        "a 1 1 loaded 600 ms 6 ms",
        "b 1 2 already there 70 ms 1 ms",
        "",
        "Normalize 300 ms 3 ms",
        "Aggregate 1.2 s 12 ms",
        "the execution 2.1 s 2.1 s",
        "",
        "warm 1 of 2 models were loaded; release cccccccccccc",
    ]


def test_a_slots_time_is_shown_once_and_the_canarys_member_as_such() -> None:
    lines = drawn(warmed((True, False), (True, False), canary=True))
    assert lines[1:3] == ["a 1 1 loaded 600 ms 6 ms", "b (canary) 1 1 loaded"]
    assert lines[-1] == "warm 2 models were loaded, and are there now; release cccccccccccc, canary dddddddddddd"


def test_where_nothing_was_cold_that_is_said() -> None:
    last = drawn(warmed((False, False)))[-1]
    assert last == "warm no model had to be loaded, so both columns are of warm slots; release cccccccccccc"


def test_a_slot_that_failed_was_not_warm() -> None:
    assert drawn(warmed((None, None)))[-2] == "warm 0 of 1 models were loaded; release cccccccccccc"


def test_what_is_loaded_twice_or_not_at_all_is_named() -> None:
    twice = drawn(warmed((True, True), (None, None)))
    assert twice[2] == "b 1 2 ArtifactCorrupt 70 ms 1 ms"
    assert twice[-2:] == [
        "a was loaded again: another environment answered, or the slot cannot hold all of its models",
        "without b: it was overwritten",
    ]
    assert [member.id for member in warmed((True, True), (None, None)).failed] == ["b"]


def test_a_member_that_came_up_the_second_time_has_not_failed() -> None:
    assert warmed((None, True)).failed == ()


def test_the_document_has_both_rounds_and_a_slot_a_member() -> None:
    document = json.loads(json.dumps(warmed((True, False)).to_json()))
    assert (document["release"], document["canary"]) == (CURRENT, None)
    assert document["first"]["members"][0]["slot"] == "1"
    assert [document[turn]["members"][0]["round_trip_ms"] for turn in ("first", "again")] == [600, 6]
    assert [document[turn]["aggregate_ms"] for turn in ("first", "again")] == [1200, 12]
