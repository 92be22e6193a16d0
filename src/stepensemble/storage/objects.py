"""Reads and writes one bucket through obstore, a client that loads in milliseconds, which cold starts need."""

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
"""Larger objects are uploaded in pieces of this size; S3 accepts up to 10,000 pieces of 5 MiB to 5 GiB."""

DELETED_AT_ONCE = 1000
"""Keys that S3 deletes in one request, at most."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """The metadata of an object; `version` is its ETag, which changes with its content."""

    key: str
    size: int
    version: str
    last_modified: datetime


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket; `store` may be any obstore store, so that tests run the same code in memory.

    Every method raises StorageUnavailable if S3 cannot be reached or fails.
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
        with self._translate_errors(key):
            found = obstore.get(self.store, key)
            return found.bytes().to_bytes(), str(found.meta["e_tag"])

    def read_range(self, key: str, start: int, end: int, version: str, version_id: str | None = None) -> bytes:
        """Return the bytes of an object from `start` to before `end`, or to its own end, if it has this version.

        Args:
            key: of the object.
            start: in bytes.
            end: in bytes.
            version: its ETag.
            version_id: the version, in a bucket with versioning; None for the latest.

        Raises:
            DatasetChanged: the object has another version now, or is deleted.
        """
        if start >= end:
            return b""
        options: GetOptions = {"range": (start, end), "if_match": version, **_of_version(version_id)}
        try:
            with self._translate_errors(key):
                return obstore.get(self.store, key, options=options).bytes().to_bytes()
        except (ObjectMissing, PreconditionError):
            raise DatasetChanged(
                f"s3://{self.name}/{key} was changed or removed while it was read; start the run again"
            ) from None

    def write(self, key: str, body: bytes) -> Pointer:
        """Write an object, replacing an existing one, and return a pointer to it."""
        with self._translate_errors(key):
            obstore.put(self.store, key, body)
        return self.pointer(key)

    def upload(self, key: str, body: bytes | mmap, sent: Callable[[int], None] = lambda _: None) -> None:
        """Write an object that may be large, replacing an existing one; `sent` is called with numbers of bytes."""
        if len(body) <= PIECE_BYTES:
            self.write(key, body[:])
            sent(len(body))
            return
        with self._translate_errors(key):
            obstore.put(self.store, key, _split(body, sent), chunk_size=PIECE_BYTES)

    def add_version(self, key: str, body: bytes | mmap) -> str | None:
        """Write an object that may be large; return its version id, None in a bucket without versioning."""
        with self._translate_errors(key):
            if len(body) > PIECE_BYTES:
                return obstore.put(self.store, key, _split(body, lambda _: None), chunk_size=PIECE_BYTES)["version"]
            return obstore.put(self.store, key, body[:])["version"]

    def create(self, key: str, body: bytes) -> bool:
        """Write an object unless there is one; return whether it was written."""
        try:
            with self._translate_errors(key):
                obstore.put(self.store, key, body, mode="create")
        except AlreadyExistsError:
            return False
        return True

    def replace(self, key: str, body: bytes, tag: str | None) -> None:
        """Replace an object if it still has this ETag; for None, create one if there is none.

        Raises:
            PublishConflict: the object has another version now.
        """
        try:
            with self._translate_errors(key):
                obstore.put(self.store, key, body, mode="create" if tag is None else {"e_tag": tag})
        except (AlreadyExistsError, PreconditionError):
            raise PublishConflict(
                f"{key} was changed at the same time by another process; check it and try again"
            ) from None

    def copy(self, source: str, target: str) -> None:
        """Copy an object within S3, replacing an existing one.

        Raises:
            ObjectMissing: there is no such object.
        """
        with self._translate_errors(source):
            obstore.copy(self.store, source, target)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that do not exist are ignored."""
        for some in _batched(keys, DELETED_AT_ONCE):
            with self._translate_errors(some[0]):
                obstore.delete(self.store, some)

    def read_version(self, key: str, version_id: str | None) -> bytes:
        """Return the bytes of one version of an object; for None, of the latest.

        Raises:
            ObjectMissing: there is none.
        """
        with self._translate_errors(key):
            return obstore.get(self.store, key, options=_of_version(version_id)).bytes().to_bytes()

    def head(self, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return the metadata of an object, or of one version of it.

        Raises:
            ObjectMissing: there is none.
        """
        with self._translate_errors(key):
            return _describe(obstore.get(self.store, key, options={"head": True, **_of_version(version_id)}).meta)

    def exists(self, key: str, size: int) -> bool:
        """Return whether there is an object of this size."""
        try:
            return self.head(key).size == size
        except ObjectMissing:
            return False

    def list(self, folder: str) -> Iterator[ObjectInfo]:
        """Yield the metadata of every object under a prefix, in no particular order; `folder` ends with a slash."""
        with self._translate_errors(folder):
            for page in obstore.list(self.store, prefix=folder):
                yield from map(_describe, page)

    def pointer(self, key: str) -> Pointer:
        """Return the pointer to a key of this bucket."""
        return Pointer(f"s3://{self.name}/{key}")

    @contextmanager
    def _translate_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, PermissionDeniedError, ValueError):  # ValueError: the key is invalid
            raise ObjectMissing(f"s3://{self.name}/{key} does not exist, or may not be read") from None
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


def _split(body: bytes | mmap, sent: Callable[[int], None]) -> Iterator[bytes]:
    for start in range(0, len(body), PIECE_BYTES):
        piece = body[start : start + PIECE_BYTES]
        yield piece
        sent(len(piece))  # the client requests the next piece after it has sent this one


def open_bucket(name: str, **config: Any) -> Bucket:
    """Open a bucket.

    Args:
        name: of the bucket.
        config: of obstore's `S3Store` (credentials, region, endpoint); by default from the environment, including
            `AWS_ENDPOINT_URL`.
    """
    store = S3Store(
        name,
        client_options={"allow_http": True, "timeout": timedelta(seconds=20)},
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=10)},
        **config,
    )
    return Bucket(name, store)
