from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from stepensemble.storage.review_log import ReviewLog

NOW = datetime.now(UTC)


class Logs:
    """The call that `ReviewLog` makes, for events given as (id, age): oldest first, one event per page."""

    def __init__(self, *events: tuple[str, timedelta]) -> None:
        self.events = sorted(events, key=lambda event: event[1], reverse=True)
        self.requests = 0

    def get_paginator(self, operation: str) -> SimpleNamespace:
        assert operation == "filter_log_events"
        return SimpleNamespace(paginate=self._filter)

    def _filter(self, **request: Any) -> Iterator[dict[str, Any]]:
        assert request["logGroupName"] == "group"
        self.requests += 1
        for id_, age in self.events:
            timestamp = int((NOW - age).timestamp() * 1000)
            if request["startTime"] <= timestamp <= request["endTime"]:
                yield {"events": [{"timestamp": timestamp, "message": json.dumps(message(id_))}]}
        yield {"events": []}


def message(id_: str) -> dict[str, Any]:
    """Return an event as EventBridge delivers it."""
    detail = {"stack": "s", "prediction_id": f"p-{id_}", "release": "r", "status": "COMPLETE", "needs_review": 1}
    return {"version": "0", "id": id_, "time": "2026-03-01T12:00:00Z", "detail": {**detail, "execution": "arn"}}


def latest(logs: Logs, limit: int) -> list[str]:
    return [event.id for event in ReviewLog(logs, "group").latest(limit)]  # type: ignore[arg-type]


AGES = {"minutes": timedelta(minutes=5), "hours": timedelta(hours=7), "days": timedelta(days=20)}


def test_events_of_any_age_are_listed_newest_first() -> None:
    assert latest(Logs(*AGES.items()), 10) == ["minutes", "hours", "days"]


def test_events_older_than_a_month_are_left_out() -> None:
    assert latest(Logs(("old", timedelta(days=32)), ("young", timedelta(days=30))), 10) == ["young"]


def test_reading_stops_at_the_limit() -> None:
    logs = Logs(*AGES.items())
    assert latest(logs, 1) == ["minutes"]
    assert logs.requests == 1


@pytest.mark.parametrize("age", [timedelta(hours=hours) for hours in (1, 2, 4, 8)])
def test_an_event_delivered_twice_or_between_two_windows_is_listed_once(age: timedelta) -> None:
    assert latest(Logs(("same", age), ("same", age + timedelta(milliseconds=3))), 10) == ["same"]


def test_events_are_listed_if_the_clock_is_behind() -> None:
    assert latest(Logs(("ahead", timedelta(minutes=-30))), 10) == ["ahead"]


def test_an_event_has_the_state_machines_detail_and_eventbridges_id_and_time() -> None:
    (event,) = ReviewLog(Logs(("id", timedelta(0))), "group").latest(1)  # type: ignore[arg-type]
    assert (event.id, event.time, event.prediction_id, event.needs_review) == ("id", "2026-03-01T12:00:00Z", "p-id", 1)
