"""Between moto's memory and the state database: restores the state at the start, and stores every change afterwards.

The journal records which keys a request changes in moto's backends. At the end of the request, before the response is
sent, it reads their content from moto and stores it. Keys, not contents, are recorded: what moto then holds is right,
also if a transaction was rolled back or metadata was set after the body. If a change cannot be stored, for instance on
a full disk, moto gets back what is stored, so that clients never see what a restart would lose.

Of a versioned bucket the current versions are stored, and nothing of a deleted object, which S3 would keep for some
days; tags and access lists of objects are not stored. Of logs, what is put into CloudWatch Logs is stored, such as the
events that a rule of EventBridge sends there; the functions' own logs are files beside the database.
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
    RemovedItem,
    RemovedLogStream,
    RemovedObject,
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
ChangedKeys = dict[Key, tuple[Any, ...]]
"""Keys that a request changes, each with what moto had before: the versions of an object in a versioned bucket, the
stream of a log group, nothing of an item."""


class Journal:
    """Stores the changes of one account's S3, DynamoDB and CloudWatch Logs in a database."""

    def __init__(self, database: StateDatabase, account: str, region: str) -> None:
        self._database = database
        self._s3 = s3_backends[account]["aws"]
        self._dynamodb = dynamodb_backends[account][region]
        self._logs = logs_backends[account][region]
        self._changed: ContextVar[ChangedKeys] = ContextVar("changed")

    def restore(self) -> list[str]:
        """Restore everything that is stored for the existing buckets, tables and log groups.

        Returns:
            A sentence for each object that cannot be restored; it stays in the database.
        """
        damaged: list[str] = []
        for stored in self._database.objects():
            if stored.bucket in self._s3.buckets:
                try:
                    self._restore_object(stored)
                except (KeyError, TypeError, ValueError) as error:
                    damaged.append(f"s3://{stored.bucket}/{stored.key} is stored, but cannot be read ({error!r})")
        for item in self._database.items():
            if item.table in self._dynamodb.tables:
                self._restore_item(item)
        for stream in self._database.log_streams():
            if stream.group in self._logs.groups:
                self._restore_log_stream(stream)
        return damaged

    def record_changes(self) -> None:
        """Record changes from now on."""
        for name in ("put_object", "delete_object"):
            self._wrap(self._s3, name, lambda bucket, key, *_: [ObjectKey(bucket, key)], ("bucket_name", "key_name"))
        self._wrap(self._dynamodb, "put_item", self._item_keys, ("table_name", "item_attrs"))
        self._wrap(self._dynamodb, "update_item", self._item_keys, ("table_name", "key"))
        self._wrap(self._dynamodb, "delete_item", self._item_keys, ("table_name", "key"))
        self._wrap(self._dynamodb, "execute_statement", self._all_item_keys, ())
        for name in ("put_log_events", "delete_log_stream"):
            arguments = ("log_group_name", "log_stream_name")
            self._wrap(self._logs, name, lambda group, stream: [LogStreamKey(group, stream)], arguments)
        self._wrap(self._logs, "delete_log_group", self._log_stream_keys, ("log_group_name",))

    @contextmanager
    def request(self) -> Iterator[None]:
        """Store, at the end of the block, all that was changed in it.

        Raises:
            LocalStackError: the changes cannot be stored, and are undone.
        """
        changed: ChangedKeys = {}
        token = self._changed.set(changed)
        try:
            yield
        finally:
            self._changed.reset(token)
            if changed:
                self._store(changed)

    def _store(self, changed: ChangedKeys) -> None:
        try:
            self._database.write([self._read(key) for key in changed])
        except LocalStackError:
            for key, versions in changed.items():
                self._undo(key, versions)
            raise
        for key in changed:
            if isinstance(key, ObjectKey):
                self._remove_versions(key)

    def _wrap(self, backend: Any, name: str, keys: Callable[..., Iterable[Key]], arguments: tuple[str, ...]) -> None:
        """Have a backend's method record its keys, before and after it runs: PartiQL may change any item."""
        original = getattr(backend, name)

        @wraps(original)
        def recording(*args: Any, **kwargs: Any) -> Any:
            values = [*args[: len(arguments)], *(kwargs[argument] for argument in arguments[len(args) :])]
            changed = self._changed.get(None)
            if changed is None:  # not a client's request, but a change by moto itself
                with self.request():
                    return recording(*args, **kwargs)
            self._record(changed, keys(*values))
            try:
                return original(*args, **kwargs)
            finally:
                self._record(changed, keys(*values))

        setattr(backend, name, recording)

    def _record(self, changed: ChangedKeys, keys: Iterable[Key]) -> None:
        for key in keys:
            if key not in changed:
                changed[key] = self._list_versions(key)

    def _list_versions(self, key: Key) -> tuple[Any, ...]:
        if isinstance(key, ObjectKey):
            bucket = self._s3.buckets.get(key.bucket)
            return () if bucket is None or not bucket.is_versioned else tuple(bucket.keys.getlist(key.key, []))
        if isinstance(key, LogStreamKey) and key.group in self._logs.groups:
            stream = self._logs.groups[key.group].streams.get(key.stream)
            return () if stream is None else (stream,)
        return ()

    def _undo(self, key: Key, versions: tuple[Any, ...]) -> None:
        """Restore what is stored of a key, or remove it from moto; an object gets its earlier versions back too."""
        match key:
            case ObjectKey():
                self._undo_object(key, versions)
            case ItemKey():
                self._undo_item(key)
            case LogStreamKey():
                self._undo_log_stream(key, versions)

    def _undo_object(self, key: ObjectKey, versions: tuple[Any, ...]) -> None:
        bucket = self._s3.buckets.get(key.bucket)
        if bucket is None:
            return
        stored = self._database.read_object(key.bucket, key.key)
        current = dict.pop(bucket.keys, key.key, [])
        if stored is not None:
            self._restore_object(stored)
            dict.__getitem__(bucket.keys, key.key)[:0] = versions[:-1]
        elif versions:
            dict.__setitem__(bucket.keys, key.key, list(versions))
        for version in current:
            if isinstance(version, FakeKey) and not any(version is one for one in versions):
                version.dispose()

    def _undo_item(self, key: ItemKey) -> None:
        stored = self._database.read_item(key.table, key.hash, key.range)
        if stored is not None:
            self._restore_item(stored)
        elif key.table in self._dynamodb.tables:
            ranged = DynamoType(decode_json(key.range)) if key.range else None
            self._dynamodb.tables[key.table].delete_item(DynamoType(decode_json(key.hash)), ranged)

    def _undo_log_stream(self, key: LogStreamKey, versions: tuple[Any, ...]) -> None:
        if key.group in self._logs.groups:
            self._logs.groups[key.group].streams.pop(key.stream, None)
            stored = self._database.read_log_stream(key.group, key.stream)
            if stored is not None or versions:  # a stream without events is not stored
                self._restore_log_stream(stored or StoredLogStream(key.group, key.stream, []))

    def _remove_versions(self, key: ObjectKey) -> None:
        """Remove the versions of an object whose latest version is a delete marker."""
        bucket = self._s3.buckets.get(key.bucket)
        found = None if bucket is None else bucket.keys.get(key.key)
        if bucket is not None and found is not None and not isinstance(found, FakeKey):
            for version in dict.pop(bucket.keys, key.key):  # moto's own pop fails at a delete marker
                if isinstance(version, FakeKey):
                    version.dispose()

    def _item_keys(self, table_name: str, attributes: dict[str, Any]) -> list[ItemKey]:
        table = self._dynamodb.tables.get(table_name)
        if table is None or table.hash_key_attr not in attributes:
            return []  # moto rejects the request
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
            return RemovedObject(key.bucket, key.key)
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
            return RemovedItem(key.table, key.hash, key.range)
        return StoredItem(key.table, key.hash, key.range, _attributes(found))

    def _read_log_stream(self, key: LogStreamKey) -> Change:
        group = self._logs.groups.get(key.group)
        found = None if group is None else group.streams.get(key.stream)
        if found is None:
            return RemovedLogStream(key.group, key.stream)
        events = [
            {"timestamp": event.timestamp, "message": event.message, "ingestion_time": event.ingestion_time}
            for event in found.events
        ]
        return StoredLogStream(key.group, key.stream, events)

    def _restore_object(self, stored: StoredObject) -> None:
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

    def _restore_item(self, stored: StoredItem) -> None:
        table: Any = self._dynamodb.tables[stored.table]
        hashed = DynamoType(decode_json(stored.hash))
        ranged = DynamoType(decode_json(stored.range)) if stored.range else None
        item = Item(hashed, ranged, {})
        # Set one by one, every attribute makes moto measure all the others. They were measured when they were stored.
        item.attrs = LimitedSizeDict()
        dict.update(item.attrs, {name: DynamoType(value) for name, value in stored.item.items()})
        if ranged is None:
            table.items[hashed] = item
        else:
            table.items[hashed][ranged] = item

    def _restore_log_stream(self, stored: StoredLogStream) -> None:
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
