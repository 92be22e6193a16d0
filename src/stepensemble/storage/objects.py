"""One bucket of objects, by obstore: a client that is imported and built in milliseconds, as a cold start needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from mmap import mmap
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, PreconditionError
from obstore.store import S3Store

from stepensemble.core.errors import DatasetChanged, ObjectMissing, PublishConflict, StorageUnavailable
from stepensemble.core.payload import Pointer

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ObjectStore

PIECE_BYTES = 8 * 1024 * 1024
"""Larger objects are uploaded in pieces of this size; S3 takes 5 MiB to 5 GiB (and 10,000 of them)."""

DELETED_AT_ONCE = 1000
"""Keys that S3 deletes in one request, at most."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object without its bytes; `version` is its ETag, which changes with its content."""

    key: str
    size: int
    version: str
    last_modified: datetime


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket; `store` may be any obstore store, so tests run the same code in memory.

    Raises, from every method: StorageUnavailable where S3 cannot be reached or fails.
    """

    name: str
    store: ObjectStore

    def read(self, key: str) -> bytes:
        """Return an object's bytes.

        Raises:
            ObjectMissing: there is none.
        """
        return self.read_tagged(key)[0]

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        """Return an object's bytes and its ETag, for `replace`."""
        with self._translated(key):
            found = obstore.get(self.store, key)
            return found.bytes().to_bytes(), str(found.meta["e_tag"])

    def read_range(self, key: str, start: int, end: int, version: str, version_id: str | None = None) -> bytes:
        """Return the bytes of an object from `start` to before `end`, or to its own end, where it is of this version.

        Args:
            key: of the object.
            start: in bytes.
            end: likewise.
            version: its ETag.
            version_id: where the bucket keeps several versions, which of them; None for the latest.

        Raises:
            DatasetChanged: there is another version by now, or none.
        """
        if start >= end:
            return b""
        options: GetOptions = {"range": (start, end), "if_match": version, **_of_version(version_id)}
        try:
            with self._translated(key):
                return obstore.get(self.store, key, options=options).bytes().to_bytes()
        except (ObjectMissing, PreconditionError):
            raise DatasetChanged(
                f"s3://{self.name}/{key} was changed or removed while it was read; start the run again"
            ) from None

    def write(self, key: str, body: bytes) -> Pointer:
        """Write an object, over an older one where there is one, and return a pointer to it."""
        with self._translated(key):
            obstore.put(self.store, key, body)
        return self.pointer(key)

    def upload(self, key: str, body: bytes | mmap, sent: Callable[[int], None] = lambda _: None) -> None:
        """Write an object that may be large, over an older one where there is one; `sent` is told of bytes."""
        if len(body) <= PIECE_BYTES:
            self.write(key, body[:])
            sent(len(body))
            return
        with self._translated(key):
            obstore.put(self.store, key, _cut(body, sent), chunk_size=PIECE_BYTES)

    def add_version(self, key: str, body: bytes | mmap) -> str | None:
        """Write an object that may be large; return its version id, None of a bucket that keeps no versions."""
        with self._translated(key):
            if len(body) > PIECE_BYTES:
                return obstore.put(self.store, key, _cut(body, lambda _: None), chunk_size=PIECE_BYTES)["version"]
            return obstore.put(self.store, key, body[:])["version"]

    def create(self, key: str, body: bytes) -> bool:
        """Write an object unless there is one; say whether it was written."""
        try:
            with self._translated(key):
                obstore.put(self.store, key, body, mode="create")
        except AlreadyExistsError:
            return False
        return True

    def replace(self, key: str, body: bytes, tag: str | None) -> None:
        """Write an object over exactly the version with this ETag, or, for None, where there is none.

        Raises:
            PublishConflict: there is another version by now.
        """
        try:
            with self._translated(key):
                obstore.put(self.store, key, body, mode="create" if tag is None else {"e_tag": tag})
        except (AlreadyExistsError, PreconditionError):
            raise PublishConflict(f"{key} was changed by somebody else meanwhile; look at it and try again") from None

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the bucket, over an older one where there is one; its bytes stay in S3.

        Raises:
            ObjectMissing: there is nothing to copy.
        """
        with self._translated(source):
            obstore.copy(self.store, source, target)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; one that is not there is none to delete."""
        for some in _batched(keys, DELETED_AT_ONCE):
            with self._translated(some[0]):
                obstore.delete(self.store, some)

    def read_version(self, key: str, version_id: str | None) -> bytes:
        """Return the bytes of one version of an object, of the latest for None.

        Raises:
            ObjectMissing: there is none.
        """
        with self._translated(key):
            return obstore.get(self.store, key, options=_of_version(version_id)).bytes().to_bytes()

    def head(self, key: str, version_id: str | None = None) -> ObjectInfo:
        """Describe an object, or one version of it.

        Raises:
            ObjectMissing: there is none.
        """
        with self._translated(key):
            return _describe(obstore.get(self.store, key, options={"head": True, **_of_version(version_id)}).meta)

    def exists(self, key: str, size: int) -> bool:
        """Say whether there is an object of this size."""
        try:
            return self.head(key).size == size
        except ObjectMissing:
            return False

    def list(self, folder: str) -> Iterator[ObjectInfo]:
        """Yield every object under a folder, in no order; `folder` ends with a slash."""
        with self._translated(folder):
            for page in obstore.list(self.store, prefix=folder):
                yield from map(_describe, page)

    def pointer(self, key: str) -> Pointer:
        """Return the pointer to a key of this bucket."""
        return Pointer(f"s3://{self.name}/{key}")

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, PermissionDeniedError, ValueError):  # ValueError: no key is written like that
            raise ObjectMissing(f"s3://{self.name}/{key} is not there, or may not be read") from None
        except (AlreadyExistsError, PreconditionError):
            raise
        except BaseError as error:
            reason = str(error).splitlines()[0]
            raise StorageUnavailable(f"s3://{self.name}/{key}: {reason}") from None


def _of_version(version_id: str | None) -> GetOptions:
    return {} if version_id is None else {"version": version_id}


def _describe(found: ObjectMeta) -> ObjectInfo:
    return ObjectInfo(str(found["path"]), found["size"], str(found["e_tag"]), found["last_modified"])


def _batched(keys: Iterable[str], size: int) -> Iterator[Sequence[str]]:
    left = iter(keys)
    while some := tuple(islice(left, size)):
        yield some


def _cut(body: bytes | mmap, sent: Callable[[int], None]) -> Iterator[bytes]:
    for start in range(0, len(body), PIECE_BYTES):
        piece = body[start : start + PIECE_BYTES]
        yield piece
        sent(len(piece))  # the next piece is asked for: this one is on its way


def open_bucket(name: str, **config: Any) -> Bucket:
    """Open a bucket.

    Args:
        name: of the bucket.
        config: of obstore's `S3Store` (credentials, region, endpoint); what is not given comes from the environment,
            `AWS_ENDPOINT_URL` included.
    """
    store = S3Store(
        name,
        client_options={"allow_http": True, "timeout": timedelta(seconds=20)},
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=10)},
        **config,
    )
    return Bucket(name, store)
