"""Between moto's memory and the state database: what is put back at the start, and what is written through afterwards.

The journal notes which keys moto's backends are told to change. At the end of the request that did it, before it is
answered, their content is read back from moto and written. Notes, not contents: the truth is what moto then holds, also
where a transaction was rolled back or metadata was set after the body. Where it cannot be written, as a disk is full,
moto is given back what is kept, so that nothing is seen that would be gone after a restart. Of a versioned bucket the
current versions are kept, and of an object that is deleted none, which S3 would let go of some days later; tags and
access lists of objects are not. Of logs, what is put into CloudWatch Logs is kept, such as the events that a rule of
EventBridge sends there; the functions' own are files beside the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import Any

from moto.core.utils import utcfromtimestamp
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType, Item, LimitedSizeDict
from moto.logs.models import LogEvent, LogStream, logs_backends
from moto.s3.models import FakeKey, s3_backends

from stepensemble.core.errors import LocalStackError
from stepensemble.local.state_database import (
    Change,
    GoneItem,
    GoneLogStream,
    GoneObject,
    StateDatabase,
    StoredItem,
    StoredLogStream,
    StoredObject,
    decode_json,
    encode_json,
)

OBJECT_ATTRIBUTES = (
    "encryption",
    "kms_key_id",
    "bucket_key_enabled",
    "checksum_value",
    "checksum_type",
    "checksum_parts",
)


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """Names an object."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class ItemKey:
    """Names an item; attribute values as JSON, as in `StoredItem`."""

    table: str
    hash: str
    range: str


@dataclass(frozen=True, slots=True)
class LogStreamKey:
    """Names a stream of a log group."""

    group: str
    stream: str


Key = ObjectKey | ItemKey | LogStreamKey
Touched = dict[Key, tuple[Any, ...]]
"""Keys that a request changes; of an object those of its versions, if it has any, and of a log the stream that it had
before."""


class Journal:
    """Writes what one account's S3, DynamoDB and CloudWatch Logs change into a database."""

    def __init__(self, database: StateDatabase, account: str, region: str) -> None:
        self._database = database
        self._s3 = s3_backends[account]["aws"]
        self._dynamodb = dynamodb_backends[account][region]
        self._logs = logs_backends[account][region]
        self._touched: ContextVar[Touched] = ContextVar("touched")

    def restore(self) -> list[str]:
        """Put everything back that is kept for the buckets, tables and log groups there are.

        Returns:
            What could not be put back, a sentence each; it stays in the database.
        """
        damaged: list[str] = []
        for stored in self._database.objects():
            if stored.bucket in self._s3.buckets:
                try:
                    self._put_back_object(stored)
                except (KeyError, TypeError, ValueError) as error:
                    damaged.append(f"s3://{stored.bucket}/{stored.key} is kept, but cannot be read ({error!r})")
        for item in self._database.items():
            if item.table in self._dynamodb.tables:
                self._put_back_item(item)
        for kept in self._database.log_streams():
            if kept.group in self._logs.groups:
                self._put_back_log_stream(kept)
        return damaged

    def record_changes(self) -> None:
        """Note changes from now on."""
        for name in ("put_object", "delete_object"):
            self._note(self._s3, name, lambda bucket, key, *_: [ObjectKey(bucket, key)], ("bucket_name", "key_name"))
        self._note(self._dynamodb, "put_item", self._item_keys, ("table_name", "item_attrs"))
        self._note(self._dynamodb, "update_item", self._item_keys, ("table_name", "key"))
        self._note(self._dynamodb, "delete_item", self._item_keys, ("table_name", "key"))
        self._note(self._dynamodb, "execute_statement", self._all_item_keys, ())
        for name in ("put_log_events", "delete_log_stream"):
            arguments = ("log_group_name", "log_stream_name")
            self._note(self._logs, name, lambda group, stream: [LogStreamKey(group, stream)], arguments)
        self._note(self._logs, "delete_log_group", self._log_stream_keys, ("log_group_name",))

    @contextmanager
    def request(self) -> Iterator[None]:
        """Write, at the end of the block, all that was changed in it.

        Raises:
            LocalStackError: it cannot be written, and is undone.
        """
        touched: Touched = {}
        token = self._touched.set(touched)
        try:
            yield
        finally:
            self._touched.reset(token)
            if touched:
                self._keep(touched)

    def _keep(self, touched: Touched) -> None:
        try:
            self._database.write([self._read(key) for key in touched])
        except LocalStackError:
            for key, versions in touched.items():
                self._undo(key, versions)
            raise
        for key in touched:
            if isinstance(key, ObjectKey):
                self._forget_deleted(key)

    def _note(self, backend: Any, name: str, keys: Callable[..., Iterable[Key]], arguments: tuple[str, ...]) -> None:
        """Have a method of a backend note the keys it is called with, before and after: PartiQL may do anything."""
        original = getattr(backend, name)

        @wraps(original)
        def noting(*args: Any, **kwargs: Any) -> Any:
            given = [*args[: len(arguments)], *(kwargs[argument] for argument in arguments[len(args) :])]
            touched = self._touched.get(None)
            if touched is None:  # not a request from outside: what moto does by itself
                with self.request():
                    return noting(*args, **kwargs)
            self._touch(touched, keys(*given))
            try:
                return original(*args, **kwargs)
            finally:
                self._touch(touched, keys(*given))

        setattr(backend, name, noting)

    def _touch(self, touched: Touched, keys: Iterable[Key]) -> None:
        for key in keys:
            if key not in touched:
                touched[key] = self._list_versions(key)

    def _list_versions(self, key: Key) -> tuple[Any, ...]:
        if isinstance(key, ObjectKey):
            bucket = self._s3.buckets.get(key.bucket)
            return () if bucket is None or not bucket.is_versioned else tuple(bucket.keys.getlist(key.key, []))
        if isinstance(key, LogStreamKey) and key.group in self._logs.groups:
            stream = self._logs.groups[key.group].streams.get(key.stream)
            return () if stream is None else (stream,)
        return ()

    def _undo(self, key: Key, versions: tuple[Any, ...]) -> None:
        """Give moto back what is kept of a key; of an object that has versions, the earlier ones too."""
        match key:
            case ObjectKey(bucket_name, name):
                bucket = self._s3.buckets.get(bucket_name)
                if bucket is None:
                    return
                stored = self._database.read_object(bucket_name, name)
                now = dict.pop(bucket.keys, name, [])
                if stored is not None:
                    self._put_back_object(stored)
                    dict.__getitem__(bucket.keys, name)[:0] = versions[:-1]
                elif versions:
                    dict.__setitem__(bucket.keys, name, list(versions))
                for version in now:
                    if isinstance(version, FakeKey) and not any(version is one for one in versions):
                        version.dispose()
            case ItemKey(table_name, hashed, ranged):
                item = self._database.read_item(table_name, hashed, ranged)
                if item is not None:
                    self._put_back_item(item)
                elif table_name in self._dynamodb.tables:
                    ranged_type = DynamoType(decode_json(ranged)) if ranged else None
                    self._dynamodb.tables[table_name].delete_item(DynamoType(decode_json(hashed)), ranged_type)
            case LogStreamKey(group, stream):
                if group in self._logs.groups:
                    self._logs.groups[group].streams.pop(stream, None)
                    kept = self._database.read_log_stream(group, stream)
                    if kept is not None or versions:  # one without events is not kept
                        self._put_back_log_stream(kept or StoredLogStream(group, stream, []))

    def _forget_deleted(self, key: ObjectKey) -> None:
        """Let go of the versions of an object whose latest is a delete marker."""
        bucket = self._s3.buckets.get(key.bucket)
        found = None if bucket is None else bucket.keys.get(key.key)
        if bucket is not None and found is not None and not isinstance(found, FakeKey):
            for version in dict.pop(bucket.keys, key.key):  # moto's own pop fails at a delete marker
                if isinstance(version, FakeKey):
                    version.dispose()

    def _item_keys(self, table_name: str, attributes: dict[str, Any]) -> list[ItemKey]:
        table = self._dynamodb.tables.get(table_name)
        if table is None or table.hash_key_attr not in attributes:
            return []  # refused by moto in a moment
        ranged = attributes.get(table.range_key_attr) if table.range_key_attr else None
        hashed = encode_json(attributes[table.hash_key_attr])
        return [ItemKey(table.name, hashed, "" if ranged is None else encode_json(ranged))]

    def _all_item_keys(self) -> list[ItemKey]:
        tables = self._dynamodb.tables.values()
        return [
            key
            for table in tables
            for item in table.all_items()
            for key in self._item_keys(table.name, _attributes(item))
        ]

    def _log_stream_keys(self, log_group_name: str) -> list[LogStreamKey]:
        group = self._logs.groups.get(log_group_name)
        return [] if group is None else [LogStreamKey(group.name, stream) for stream in group.streams]

    def _read(self, key: Key) -> Change:
        match key:
            case ObjectKey():
                return self._read_object(key)
            case ItemKey():
                return self._read_item(key)
            case LogStreamKey():
                return self._read_log_stream(key)

    def _read_object(self, key: ObjectKey) -> Change:
        bucket = self._s3.buckets.get(key.bucket)
        found = None if bucket is None else bucket.keys.get(key.key)
        if not isinstance(found, FakeKey):  # removed, or the latest version is a delete marker
            return GoneObject(key.bucket, key.key)
        attributes = {name: getattr(found, name) for name in OBJECT_ATTRIBUTES} | {
            "version_id": found.version_id,
            "etag": found.etag.strip('"'),
            "last_modified": found.last_modified.isoformat(),
            "storage": found.storage_class,
            "checksum_algorithm": found.checksum_algorithm,
            "metadata": dict(found.metadata),
        }
        return StoredObject(key.bucket, key.key, attributes, found.value)

    def _read_item(self, key: ItemKey) -> Change:
        table = self._dynamodb.tables.get(key.table)
        found = None
        if table is not None:
            ranged = DynamoType(decode_json(key.range)) if key.range else None
            found = table.get_item(DynamoType(decode_json(key.hash)), ranged)
        if found is None:
            return GoneItem(key.table, key.hash, key.range)
        return StoredItem(key.table, key.hash, key.range, _attributes(found))

    def _read_log_stream(self, key: LogStreamKey) -> Change:
        group = self._logs.groups.get(key.group)
        found = None if group is None else group.streams.get(key.stream)
        if found is None:
            return GoneLogStream(key.group, key.stream)
        events = [
            {"timestamp": event.timestamp, "message": event.message, "ingestion_time": event.ingestion_time}
            for event in found.events
        ]
        return StoredLogStream(key.group, key.stream, events)

    def _put_back_object(self, stored: StoredObject) -> None:
        bucket = self._s3.buckets[stored.bucket]
        attributes = stored.attributes
        found = FakeKey(
            name=stored.key,
            bucket_name=stored.bucket,
            value=stored.body,
            account_id=self._s3.account_id,
            region_name=self._s3.region_name,
            storage=attributes["storage"],
            etag=attributes["etag"],
            is_versioned=bucket.is_versioned,
            version_id=attributes["version_id"],
            **{name: attributes[name] for name in OBJECT_ATTRIBUTES},
        )
        found.last_modified = datetime.fromisoformat(attributes["last_modified"])
        found.checksum_algorithm = attributes["checksum_algorithm"]
        found.metadata.update(attributes["metadata"])
        bucket.keys.setlist(stored.key, [found])

    def _put_back_item(self, stored: StoredItem) -> None:
        table: Any = self._dynamodb.tables[stored.table]
        hashed = DynamoType(decode_json(stored.hash))
        ranged = DynamoType(decode_json(stored.range)) if stored.range else None
        item = Item(hashed, ranged, {})
        # One by one, each attribute would have moto measure all the others: these were measured when they were put.
        item.attrs = LimitedSizeDict()
        dict.update(item.attrs, {name: DynamoType(value) for name, value in stored.item.items()})
        if ranged is None:
            table.items[hashed] = item
        else:
            table.items[hashed][ranged] = item

    def _put_back_log_stream(self, stored: StoredLogStream) -> None:
        group: Any = self._logs.groups[stored.group]
        stream: Any = LogStream(group, stored.stream)
        stream.events = [LogEvent(event["ingestion_time"], dict(event)) for event in stored.events]
        stream.stored_bytes = sum(len(event.message) for event in stream.events)
        if stream.events:
            stream.last_ingestion_time = utcfromtimestamp(stream.events[-1].ingestion_time / 1000)
        group.streams[stored.stream] = stream


def _attributes(item: Item) -> dict[str, Any]:
    attributes: dict[str, Any] = item.to_json()["Attributes"]
    return attributes
