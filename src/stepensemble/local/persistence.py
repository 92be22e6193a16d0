"""Between moto's memory and the state database: what is put back at the start, and what is written through afterwards.

The journal notes which keys moto's backends are told to change. At the end of the request that did it, before it is
answered, their content is read back from moto and written. Notes, not contents: the truth is what moto then holds, also
where a transaction was rolled back or metadata was set after the body. Of a versioned bucket the current versions are
kept; tags and access lists of objects are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import Any

from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType, Item, LimitedSizeDict
from moto.s3.models import FakeKey, s3_backends

from stepensemble.local.state import (
    Change,
    GoneItem,
    GoneObject,
    StateDatabase,
    StoredItem,
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


class Journal:
    """Writes what one account's S3 and DynamoDB change into a database."""

    def __init__(self, database: StateDatabase, account: str, region: str) -> None:
        self._database = database
        self._s3 = s3_backends[account]["aws"]
        self._dynamodb = dynamodb_backends[account][region]
        self._touched: ContextVar[set[ObjectKey | ItemKey]] = ContextVar("touched")

    def restore(self) -> None:
        """Put everything back that is kept for the buckets and tables there are."""
        for stored in self._database.objects():
            if stored.bucket in self._s3.buckets:
                self._put_back_object(stored)
        for item in self._database.items():
            if item.table in self._dynamodb.tables:
                self._put_back_item(item)

    def follow(self) -> None:
        """Note changes from now on."""
        for name in ("put_object", "delete_object"):
            self._note(self._s3, name, lambda bucket, key, *_: [ObjectKey(bucket, key)], ("bucket_name", "key_name"))
        self._note(self._dynamodb, "put_item", self._item_keys, ("table_name", "item_attrs"))
        self._note(self._dynamodb, "update_item", self._item_keys, ("table_name", "key"))
        self._note(self._dynamodb, "delete_item", self._item_keys, ("table_name", "key"))
        self._note(self._dynamodb, "execute_statement", self._all_item_keys, ())

    @contextmanager
    def request(self) -> Iterator[None]:
        """Write, at the end of the block, all that was changed in it."""
        touched: set[ObjectKey | ItemKey] = set()
        token = self._touched.set(touched)
        try:
            yield
        finally:
            self._touched.reset(token)
            if touched:
                self._database.write([self._read(key) for key in touched])

    def _note(
        self, backend: Any, name: str, keys: Callable[..., Iterable[ObjectKey | ItemKey]], arguments: tuple[str, ...]
    ) -> None:
        """Have a method of a backend note the keys it is called with, before and after: PartiQL may do anything."""
        original = getattr(backend, name)

        @wraps(original)
        def noting(*args: Any, **kwargs: Any) -> Any:
            given = [*args[: len(arguments)], *(kwargs[argument] for argument in arguments[len(args) :])]
            touched = self._touched.get(None)
            if touched is None:  # not a request from outside: what moto does by itself
                with self.request():
                    return noting(*args, **kwargs)
            touched.update(keys(*given))
            try:
                return original(*args, **kwargs)
            finally:
                touched.update(keys(*given))

        setattr(backend, name, noting)

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

    def _read(self, key: ObjectKey | ItemKey) -> Change:
        return self._read_object(key) if isinstance(key, ObjectKey) else self._read_item(key)

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


def _attributes(item: Item) -> dict[str, Any]:
    attributes: dict[str, Any] = item.to_json()["Attributes"]
    return attributes
