"""A stack in memory: the real handlers and stores over buckets and a table that are dictionaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError
from obstore.store import MemoryStore

from stepensemble.core.state_size import ITEM_BYTES
from stepensemble.handlers.current_release import CurrentRelease
from stepensemble.handlers.prediction.aggregate import Aggregator
from stepensemble.handlers.prediction.model_cache import ModelCache
from stepensemble.handlers.prediction.normalize import Normalizer
from stepensemble.handlers.prediction.score import Scorer
from stepensemble.publishing.manifest_loader import Sources
from stepensemble.publishing.publish import PublishedRelease, publish
from stepensemble.storage.objects import Bucket
from stepensemble.storage.record_table import RecordTable
from stepensemble.storage.releases import ReleaseStore

PREFIX = "stack-score-"
GIBIBYTE = 1024**3
SLOTS = {"litert": ("1", "2", "3", "4", "5", "6", "7", "8"), "tensorflow": ("t1", "t2")}


class ConditionFailed(ClientError):
    """The error of DynamoDB's client."""

    def __init__(self) -> None:
        code = "ConditionalCheckFailedException"
        super().__init__({"Error": {"Code": code, "Message": "The conditional request failed"}}, "PutItem")


class Dynamo:
    """The calls that records make, on one table that is a dictionary.

    `fails_with` is raised by the next call; a BatchGetItem comes to the first `at_once` of its keys.
    """

    exceptions = SimpleNamespace(ConditionalCheckFailedException=ConditionFailed)

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}
        self.fails_with: Exception | None = None
        self.at_once = 100

    def put_item(self, **request: Any) -> None:
        self._fail()
        item = request["Item"]
        assert sum(len(k) + len(v.encode()) for k, typed in item.items() for v in typed.values()) <= ITEM_BYTES
        key = item["prediction_id"]["S"]
        if request["ConditionExpression"] == "attribute_not_exists(prediction_id)" and key in self.items:
            raise ConditionFailed
        self.items[key] = item

    def get_item(self, **request: Any) -> dict[str, Any]:
        self._fail()
        assert request["ConsistentRead"]
        key = request["Key"]["prediction_id"]["S"]
        return {"Item": self.items[key]} if key in self.items else {}

    def batch_get_item(self, **request: Any) -> dict[str, Any]:
        self._fail()
        ((table, wanted),) = request["RequestItems"].items()
        assert wanted["ConsistentRead"]
        assert len(wanted["Keys"]) <= 100
        ids = [key["prediction_id"]["S"] for key in wanted["Keys"][: self.at_once]]
        found = [self.items[id_] for id_ in sorted(ids) if id_ in self.items]  # DynamoDB promises no order
        rest = wanted["Keys"][self.at_once :]
        return {"Responses": {table: found}, "UnprocessedKeys": {table: {"Keys": rest}} if rest else {}}

    def get_paginator(self, operation: str) -> SimpleNamespace:
        assert operation == "query"
        return SimpleNamespace(paginate=self._query)

    def _query(self, **request: Any) -> Iterator[dict[str, Any]]:
        self._fail()
        day = request["ExpressionAttributeValues"][":day"]["S"]
        found = [item for item in self.items.values() if item["day"]["S"] == day]
        found.sort(key=lambda item: item["recorded_at"]["S"], reverse=not request["ScanIndexForward"])
        for item in found:  # a page each
            yield {"Items": [item]}

    def _fail(self) -> None:
        if self.fails_with is not None:
            error, self.fails_with = self.fails_with, None
            raise error


class CountingBucket(Bucket):
    """A bucket that counts its calls and keeps the order of what is written."""

    __slots__ = ("calls", "written")

    def __init__(self, name: str) -> None:
        super().__init__(name, MemoryStore())
        object.__setattr__(self, "calls", Counter())
        object.__setattr__(self, "written", [])

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        self.calls[key] += 1
        return super().read_tagged(key)

    def write(self, key: str, body: bytes) -> Any:
        self.written.append(key)
        return super().write(key, body)

    def create(self, key: str, body: bytes) -> bool:
        created = super().create(key, body)
        if created:
            self.written.append(key)
        return created

    def replace(self, key: str, body: bytes, tag: str | None) -> None:
        super().replace(key, body, tag)
        self.written.append(key)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class MemoryStack:
    """A whole stack except the state machine, for which see `asl.py`."""

    def __init__(self) -> None:
        self.artifacts, self.data = CountingBucket("artifacts"), CountingBucket("data")
        self.dynamo, self.clock = Dynamo(), Clock()
        self.releases = ReleaseStore(self.artifacts)
        self.records = RecordTable(self.dynamo, "records", self.data)  # type: ignore[arg-type]
        self.now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
        self.normalize = Normalizer(CurrentRelease(self.releases, self.clock), self.data, PREFIX)
        self.aggregate = Aggregator(self.releases, self.records, self.data, lambda: self.now)
        self.events: list[dict[str, Any]] = []
        self.slots = {
            f"{PREFIX}{slot}": Scorer(ModelCache(self.releases, GIBIBYTE, lambda: 0), self.data)
            for names in SLOTS.values()
            for slot in names
        }

    def put_events(self, request: dict[str, Any]) -> None:
        self.events += request["Entries"]

    def publish(self, sources: Sources) -> PublishedRelease:
        return publish(sources, self.releases, SLOTS, now=lambda: self.now)
