"""Records in DynamoDB: one item an execution, written once.

An item is the record's key facts as attributes and the whole record as JSON in `record`; a record too large for an item
lies compressed in the data bucket, and `record_s3` points at it.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from stepensemble.core.errors import RecordNotFound, StorageUnavailable
from stepensemble.core.limits import ITEM_BYTES
from stepensemble.core.payload import Pointer
from stepensemble.core.records import Record, RecordSummary, decode_record, encode_record
from stepensemble.storage.keys import record_key
from stepensemble.storage.objects import Bucket

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

INDEX = "by_day"
ATTRIBUTES_BYTES = 4 * 1024
"""Reserve for an item's other attributes and for all names."""

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
    """The records' table and the bucket for large bodies.

    Raises, from every method: StorageUnavailable where a retry may help.
    """

    client: DynamoDBClient
    table: str
    data: Bucket
    retention_days: int = 0

    def add(self, record: Record) -> bool:
        """Keep a record unless one is kept under its prediction id; say whether it was kept."""
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
            kept_until = datetime.fromisoformat(record.recorded_at) + timedelta(days=self.retention_days)
            item["expires_at"] = {"N": str(int(kept_until.timestamp()))}
        try:
            with _translated():
                self.client.put_item(
                    TableName=self.table, Item=item, ConditionExpression="attribute_not_exists(prediction_id)"
                )
        except self.client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def read(self, prediction_id: str) -> Record:
        """Return a record.

        Raises:
            RecordNotFound: none is kept under that id.
        """
        with _translated():
            found = self.client.get_item(
                TableName=self.table, Key={"prediction_id": {"S": prediction_id}}, ConsistentRead=True
            )
        item = found.get("Item")
        if item is None:
            raise RecordNotFound(f'no record is kept of "{prediction_id}"; ensemble records lists those there are')
        if "record" in item:
            return decode_record(item["record"]["S"])
        _, key = Pointer(item["record_s3"]["S"]).split()
        return decode_record(gzip.decompress(self.data.read(key)))

    def latest(self, limit: int, days: int = 31) -> list[RecordSummary]:
        """Return the latest records, newest first, of at most so many days back."""
        today = datetime.now(UTC).date()
        dates = (str(today - timedelta(days=back)) for back in range(days))
        return list(islice((summary for day in dates for summary in self._of_day(day, limit)), limit))

    def _of_day(self, day: str, limit: int) -> Iterator[RecordSummary]:
        with _translated():
            pages = self.client.get_paginator("query").paginate(
                TableName=self.table,
                IndexName=INDEX,
                KeyConditionExpression="#day = :day",
                ExpressionAttributeNames={"#day": "day"},
                ExpressionAttributeValues={":day": {"S": day}},
                ScanIndexForward=False,
                PaginationConfig={"MaxItems": limit},
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
def _translated() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] in TRANSIENT:
            raise StorageUnavailable(f"DynamoDB: {error}") from None
        raise
    except BotoCoreError as error:
        raise StorageUnavailable(f"DynamoDB: {error}") from None
