"""Reads the predictions that need a review from CloudWatch Logs, where a rule of EventBridge stores the events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_logs.type_defs import FilteredLogEventTypeDef

FIRST_WINDOW = timedelta(hours=1)
AHEAD = timedelta(hours=2)
"""How far in the future, by this machine's clock, an event may be: CloudWatch accepts no later ones."""


class ReviewEvent(Struct, frozen=True):
    """One event; `time` is ISO 8601 in UTC.

    Attributes:
        needs_review: the number of rows of the prediction that need a review.
        execution: its ARN; a recorded prediction has one event for each execution that requested it.
    """

    id: str
    time: str
    prediction_id: str
    release: str
    status: str
    needs_review: int
    execution: str


@dataclass(frozen=True, slots=True)
class ReviewLog:
    """The log group of review events."""

    client: CloudWatchLogsClient
    group: str

    def latest(self, limit: int, days: int = 31) -> list[ReviewEvent]:
        """Return the latest events of the last days, newest first."""
        found: dict[str, ReviewEvent] = {}
        for entry in self._backwards(datetime.now(UTC), timedelta(days=days)):
            message = msgspec.json.decode(entry["message"])
            event = msgspec.convert({**message["detail"], "id": message["id"], "time": message["time"]}, ReviewEvent)
            found.setdefault(event.id, event)  # one event may be delivered twice
            if len(found) == limit:
                break
        return list(found.values())

    def _backwards(self, now: datetime, reach: timedelta) -> Iterator[FilteredLogEventTypeDef]:
        """Read windows of time, each as long as all later ones: CloudWatch lists a window from its beginning."""
        window, end = FIRST_WINDOW, now + AHEAD
        while end > now - reach:
            start = max(now - window, now - reach)
            pages = self.client.get_paginator("filter_log_events").paginate(
                logGroupName=self.group, startTime=_milliseconds(start), endTime=_milliseconds(end)
            )
            entries = [entry for page in pages for entry in page["events"]]
            yield from sorted(entries, key=lambda entry: entry["timestamp"], reverse=True)
            window, end = window * 2, start


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)
