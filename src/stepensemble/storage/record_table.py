"""Stores records in DynamoDB: one item for each execution, written once.

An item has some of the record's fields as attributes, and the complete record as JSON in `record`. A record that is too
large for an item is stored compressed in the data bucket, and `record_s3` points to it.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from stepensemble.core.errors import ObjectMissing, RecordNotFound, RecordUnreadable, StorageFull, StorageUnavailable
from stepensemble.core.payload import Pointer
from stepensemble.core.record import Record, RecordSummary, decode_record, encode_record
from stepensemble.core.state_size import ITEM_BYTES
from stepensemble.storage.keys import record_key
from stepensemble.storage.objects import Bucket

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

INDEX = "by_day"
DAYS_BACK = 31
"""Days that are listed by default, including today."""

BATCH = 100
"""Items of a BatchGetItem at most."""

UNUSED_ID = "-"
"""An id that no prediction has."""

ATTEMPTS = 8
"""Requests in sequence that may return no item."""

FIRST_WAIT = 0.05
"""Seconds before the next request; doubled after each request that returned no item."""

ATTRIBUTES_BYTES = 4 * 1024
"""Bytes reserved for an item's other attributes and for all names."""

TRANSIENT = frozenset(
    {
        "InternalServerError",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "ThrottlingException",
    }
)


@dataclass(frozen=True, slots=True)
class RecordTable:
    """The table of records, and the bucket for large ones.

    Every method raises StorageUnavailable if a retry may help, and StorageFull if no space is left.
    """

    client: DynamoDBClient
    table: str
    data: Bucket
    retention_days: int = 0

    def add(self, record: Record) -> bool:
        """Store a record unless one is stored under its prediction id; return whether it was stored."""
        body = encode_record(record)
        item: dict[str, Any] = {
            "prediction_id": {"S": record.prediction_id},
            "day": {"S": record.day},
            "recorded_at": {"S": record.recorded_at},
            "started_at": {"S": record.started_at},
            "status": {"S": record.output.status},
            "release": {"S": record.release},
            "execution": {"S": record.execution},
            "rows": {"N": str(record.rows)},
        }
        if len(body) <= ITEM_BYTES - ATTRIBUTES_BYTES:
            item["record"] = {"S": body.decode()}
        else:
            pointer = self.data.write(record_key(body), gzip.compress(body, compresslevel=6, mtime=0))
            item["record_s3"] = {"S": pointer.s3}
        if self.retention_days:
            expires = datetime.fromisoformat(record.recorded_at) + timedelta(days=self.retention_days)
            item["expires_at"] = {"N": str(int(expires.timestamp()))}
        try:
            with _translate_errors():
                self.client.put_item(
                    TableName=self.table, Item=item, ConditionExpression="attribute_not_exists(prediction_id)"
                )
        except self.client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def connect(self) -> None:
        """Open the connection to DynamoDB, which takes longer than a request."""
        with suppress(RecordNotFound):
            self.read(UNUSED_ID)

    def read(self, prediction_id: str) -> Record:
        """Return a record.

        Raises:
            RecordNotFound: no record is stored under that id.
        """
        with _translate_errors():
            found = self.client.get_item(
                TableName=self.table, Key={"prediction_id": {"S": prediction_id}}, ConsistentRead=True
            )
        item = found.get("Item")
        if item is None:
            raise RecordNotFound(f'no record is stored for "{prediction_id}"; ensemble records lists all records')
        return self._decode(item)

    def read_all(self, prediction_ids: Sequence[str]) -> Iterator[Record]:
        """Yield records in this order; those that are deleted or not readable by this version are left out."""
        for start in range(0, len(prediction_ids), BATCH):
            ids = prediction_ids[start : start + BATCH]
            items = {item["prediction_id"]["S"]: item for item in self._get_items(ids)}
            for item in (items[id_] for id_ in ids if id_ in items):
                with suppress(RecordUnreadable, ObjectMissing):
                    yield self._decode(item)

    def latest(self, limit: int) -> list[RecordSummary]:
        """Return the latest records, newest first, of at most `DAYS_BACK` days."""
        return self.since(datetime.now(UTC).date() - timedelta(days=DAYS_BACK - 1), limit)

    def since(self, day: date, limit: int | None = None) -> list[RecordSummary]:
        """Return the records of a day (UTC) and of all days after it, newest first; the first `limit` of them."""
        today = datetime.now(UTC).date()
        dates = (str(today - timedelta(days=back)) for back in range((today - day).days + 1))
        return list(islice((summary for date_ in dates for summary in self._of_day(date_, limit)), limit))

    def _decode(self, item: Mapping[str, Any]) -> Record:
        if "record" in item:
            return decode_record(item["record"]["S"])
        _, key = Pointer(item["record_s3"]["S"]).split()
        return decode_record(gzip.decompress(self.data.read(key)))

    def _get_items(self, prediction_ids: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        keys: Sequence[Mapping[str, Any]] = [{"prediction_id": {"S": id_}} for id_ in prediction_ids]
        empty = 0
        while keys:
            with _translate_errors():
                found = self.client.batch_get_item(RequestItems={self.table: {"Keys": keys, "ConsistentRead": True}})
            items = found["Responses"].get(self.table)
            yield from items or ()
            # DynamoDB stops at 16 MB or when it throttles, and returns the remaining keys.
            rest = found["UnprocessedKeys"].get(self.table)
            keys = rest["Keys"] if rest else ()
            empty = 0 if items else empty + 1
            if empty == ATTEMPTS:
                raise StorageUnavailable(f"DynamoDB: {ATTEMPTS} requests returned no records; try again later")
            if keys:
                time.sleep(FIRST_WAIT * 2**empty)

    def _of_day(self, day: str, limit: int | None) -> Iterator[RecordSummary]:
        with _translate_errors():
            pages = self.client.get_paginator("query").paginate(
                TableName=self.table,
                IndexName=INDEX,
                KeyConditionExpression="#day = :day",
                ExpressionAttributeNames={"#day": "day"},
                ExpressionAttributeValues={":day": {"S": day}},
                ScanIndexForward=False,
                PaginationConfig={} if limit is None else {"MaxItems": limit},
            )
            for page in pages:
                for item in page["Items"]:
                    yield RecordSummary(
                        prediction_id=item["prediction_id"]["S"],
                        recorded_at=item["recorded_at"]["S"],
                        status=item["status"]["S"],
                        release=item["release"]["S"],
                        rows=int(item["rows"]["N"]),
                        execution=item["execution"]["S"],
                    )


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] in TRANSIENT:
            raise StorageUnavailable(f"DynamoDB: {error}") from None
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == HTTPStatus.INSUFFICIENT_STORAGE:
            # Only the local stack returns this; the message has the disk and the remedy.
            raise StorageFull(f"nothing was recorded: {error.response['Error']['Message']}") from None
        raise
    except BotoCoreError as error:
        raise StorageUnavailable(f"DynamoDB: {error}") from None
