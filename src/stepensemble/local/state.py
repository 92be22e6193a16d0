"""What outlives the stack, in one SQLite database: objects of buckets, items of tables, events of log groups.

Every change is one committed transaction. In WAL mode that survives the death of the process without waiting for the
disk; only a power cut can take the last changes, and it never leaves the file half written.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepensemble.local.errors import StateLocked, StateUnreadable

SCHEMA = 2
PAGE_BYTES = 64 * 1024
"""SQLite's largest: an object of many megabytes is written in a sixth of the time that pages of 4 KiB take."""

BYTES = "$bytes"
TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
    bucket TEXT NOT NULL, key TEXT NOT NULL, attributes TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (bucket, key)
);
CREATE TABLE IF NOT EXISTS items (
    owner TEXT NOT NULL, hash TEXT NOT NULL, range TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (owner, hash, range)
);
CREATE TABLE IF NOT EXISTS log_streams (
    owner TEXT NOT NULL, stream TEXT NOT NULL, events TEXT NOT NULL, PRIMARY KEY (owner, stream)
);
"""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The current version of an object."""

    bucket: str
    key: str
    attributes: Mapping[str, Any]
    body: bytes


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item of a table; `hash` and `range` are its key's attribute values as JSON, `range` empty if it has none."""

    table: str
    hash: str
    range: str
    item: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StoredLogStream:
    """A stream of a log group, with all its events."""

    group: str
    stream: str
    events: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class GoneObject:
    """There is no such object any more."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class GoneItem:
    """There is no such item any more."""

    table: str
    hash: str
    range: str


@dataclass(frozen=True, slots=True)
class GoneLogStream:
    """There is no such stream any more."""

    group: str
    stream: str


Change = StoredObject | StoredItem | StoredLogStream | GoneObject | GoneItem | GoneLogStream


class StateDatabase:
    """The database of one stack. Use it under `lock_state` only.

    Raises, from every method: StateUnreadable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._translated():
            if not path.exists():
                path.touch(mode=0o600)  # which SQLite's files beside it take over
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute(f"PRAGMA page_size={PAGE_BYTES}")  # of a new file only
            self._db.execute("PRAGMA secure_delete=OFF")  # what is deleted need not be overwritten
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found < SCHEMA:
                self._db.executescript(f"BEGIN; {TABLES} PRAGMA user_version={SCHEMA}; COMMIT;")
            elif found > SCHEMA:
                raise StateUnreadable(
                    f"{path} was written by a newer version of stepensemble; upgrade, or start empty with --fresh"
                )

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def read_fact(self, name: str) -> str | None:
        """Return a fact about the stack."""
        with self._lock, self._translated():
            row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def write_fact(self, name: str, value: str) -> None:
        """Keep a fact about the stack."""
        with self._lock, self._translated():
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def objects(self) -> Iterator[StoredObject]:
        """Return all objects."""
        with self._lock, self._translated():
            rows = self._db.execute("SELECT bucket, key, attributes, body FROM objects ORDER BY bucket, key").fetchall()
            return iter([StoredObject(bucket, key, decode_json(told), body) for bucket, key, told, body in rows])

    def items(self) -> Iterator[StoredItem]:
        """Return all items."""
        with self._lock, self._translated():
            rows = self._db.execute("SELECT owner, hash, range, item FROM items ORDER BY rowid").fetchall()
            return iter([StoredItem(owner, hashed, ranged, decode_json(item)) for owner, hashed, ranged, item in rows])

    def log_streams(self) -> Iterator[StoredLogStream]:
        """Return all streams of log groups."""
        with self._lock, self._translated():
            rows = self._db.execute("SELECT owner, stream, events FROM log_streams ORDER BY rowid").fetchall()
            return iter([StoredLogStream(group, stream, decode_json(events)) for group, stream, events in rows])

    def write(self, changes: Iterable[Change]) -> None:
        """Take over changes, all or none."""
        with self._lock, self._translated():
            self._db.execute("BEGIN")
            try:
                for change in changes:
                    self._write_one(change)
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _write_one(self, change: Change) -> None:
        match change:
            case StoredObject(bucket, key, attributes, body):
                row = (bucket, key, encode_json(attributes), body)
                self._db.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", row)
            case StoredItem(table, hashed, ranged, item):
                self._db.execute(
                    "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)", (table, hashed, ranged, encode_json(item))
                )
            case StoredLogStream(group, stream, events):
                self._db.execute(
                    "INSERT OR REPLACE INTO log_streams VALUES (?, ?, ?)", (group, stream, encode_json(events))
                )
            case GoneObject(bucket, key):
                self._db.execute("DELETE FROM objects WHERE bucket = ? AND key = ?", (bucket, key))
            case GoneItem(table, hashed, ranged):
                gone = (table, hashed, ranged)
                self._db.execute("DELETE FROM items WHERE owner = ? AND hash = ? AND range = ?", gone)
            case GoneLogStream(group, stream):
                self._db.execute("DELETE FROM log_streams WHERE owner = ? AND stream = ?", (group, stream))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, ValueError) as error:
            raise StateUnreadable(
                f"the local stack's state in {self._path} cannot be used ({error}); start empty with --fresh"
            ) from None


def encode_json(value: object) -> str:
    """Write JSON in which bytes may occur, as they do in items."""
    return json.dumps(value, default=lambda found: {BYTES: b64encode(found).decode()})


def decode_json(text: str) -> Any:
    """Read what `encode_json` has written."""
    return json.loads(text, object_hook=lambda found: b64decode(found[BYTES]) if BYTES in found else found)


def remove_database(path: Path) -> None:
    """Remove a database and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@contextmanager
def lock_state(path: Path, patience: float, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Own the state: nobody else gets in, in this process or another, until the block ends or the process dies.

    Args:
        path: of the lock file.
        patience: seconds to wait for another owner.
        on_wait: told once if there is another owner.

    Raises:
        StateLocked: the other owner stays.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + patience
        told = False
        while not _try_lock(descriptor):
            if not told:
                on_wait("Waiting for another ensemble command to finish")
                told = True
            if time.monotonic() > deadline:
                owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                raise StateLocked(
                    f"another ensemble command (process {owner}) has been using {path.parent} for {patience:.0f} s; "
                    "wait for it, or end it"
                )
            time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
