"""The state that outlives the stack, in one SQLite database: objects of buckets, items of tables, events of log groups.

Every change is one committed transaction. In WAL mode it survives the death of the process without waiting for the
disk. Only a power cut can lose the last changes, and it never leaves the file half written. Changes are counted, in the
database and in a small file beside it: if the database has counted fewer than the file, it has lost some, which is
reported.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepensemble.local.errors import StateLocked, StateUnreadable, StateUnwritable

SCHEMA = 2
PAGE_BYTES = 64 * 1024
"""SQLite's largest: with it an object of many megabytes is written six times as fast as with pages of 4 KiB."""

CHANGES = "changes"
"""Name of the fact that counts the transactions of changes."""

UNWRITABLE = {
    sqlite3.SQLITE_PERM: "make it writable for this user",
    sqlite3.SQLITE_READONLY: "make it and its folder writable for this user",
    sqlite3.SQLITE_CANTOPEN: "make it and its folder readable and writable for this user",
    sqlite3.SQLITE_IOERR: "check its disk, and run the command again",
    sqlite3.SQLITE_FULL: "free some space on its disk, and run the command again",
}
"""Remedies by SQLite's result codes, for faults that are not the file's."""

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
class RemovedObject:
    """An object that was removed."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class RemovedItem:
    """An item that was removed."""

    table: str
    hash: str
    range: str


@dataclass(frozen=True, slots=True)
class RemovedLogStream:
    """A stream that was removed."""

    group: str
    stream: str


Change = StoredObject | StoredItem | StoredLogStream | RemovedObject | RemovedItem | RemovedLogStream


class StateDatabase:
    """The database of one stack. Use it under `lock_state` only.

    Attributes:
        loss: what is missing, as a sentence with a remedy; None if nothing is.

    Raises, from every method: StateUnreadable, StateUnwritable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._reject_log_without_database()
        with self._translate_errors():
            if not path.exists():
                path.touch(mode=0o600)  # SQLite gives its files beside it the same permissions
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute(f"PRAGMA page_size={PAGE_BYTES}")  # affects a new file only
            self._db.execute("PRAGMA secure_delete=OFF")  # deleted content need not be overwritten
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found < SCHEMA:
                self._db.executescript(f"BEGIN; {TABLES} PRAGMA user_version={SCHEMA}; COMMIT;")
            elif found > SCHEMA:
                raise StateUnreadable(f"{path} was written by a newer version of stepensemble; upgrade to that")
        self._count = int(self.read_fact(CHANGES) or 0)
        self._count_file = os.open(_beside(path, ".changes"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        recorded = int(os.pread(self._count_file, 32, 0) or 0)
        self.loss = None
        if recorded > self._count:
            self.loss = (
                f"{recorded - self._count} of {recorded} changes that this stack had stored are not in {path}: it, or "
                f"its log {path.name}-wal, was emptied, removed or replaced; if you have a copy of the folder "
                f"{path.parent}, stop the stack and put the copy back"
            )

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()
            os.close(self._count_file)

    def read_fact(self, name: str) -> str | None:
        """Return a fact about the stack; None if it is not stored."""
        with self._lock, self._translate_errors():
            row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def write_fact(self, name: str, value: str) -> None:
        """Store a fact about the stack."""
        with self._lock, self._translate_errors():
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def objects(self) -> Iterator[StoredObject]:
        """Return all objects."""
        with self._lock, self._translate_errors():
            rows = self._db.execute("SELECT bucket, key, attributes, body FROM objects ORDER BY bucket, key").fetchall()
            return iter(
                [StoredObject(bucket, key, decode_json(attributes), body) for bucket, key, attributes, body in rows]
            )

    def read_object(self, bucket: str, key: str) -> StoredObject | None:
        """Return an object, or None if none is stored."""
        with self._lock, self._translate_errors():
            query = "SELECT attributes, body FROM objects WHERE bucket = ? AND key = ?"
            row = self._db.execute(query, (bucket, key)).fetchone()
        return None if row is None else StoredObject(bucket, key, decode_json(row[0]), row[1])

    def read_item(self, table: str, hashed: str, ranged: str) -> StoredItem | None:
        """Return an item, or None if none is stored."""
        with self._lock, self._translate_errors():
            query = "SELECT item FROM items WHERE owner = ? AND hash = ? AND range = ?"
            row = self._db.execute(query, (table, hashed, ranged)).fetchone()
        return None if row is None else StoredItem(table, hashed, ranged, decode_json(row[0]))

    def read_log_stream(self, group: str, stream: str) -> StoredLogStream | None:
        """Return a stream, or None if none is stored."""
        with self._lock, self._translate_errors():
            query = "SELECT events FROM log_streams WHERE owner = ? AND stream = ?"
            row = self._db.execute(query, (group, stream)).fetchone()
        return None if row is None else StoredLogStream(group, stream, decode_json(row[0]))

    def items(self) -> Iterator[StoredItem]:
        """Return all items."""
        with self._lock, self._translate_errors():
            rows = self._db.execute("SELECT owner, hash, range, item FROM items ORDER BY rowid").fetchall()
            return iter([StoredItem(owner, hashed, ranged, decode_json(item)) for owner, hashed, ranged, item in rows])

    def log_streams(self) -> Iterator[StoredLogStream]:
        """Return all streams of log groups."""
        with self._lock, self._translate_errors():
            rows = self._db.execute("SELECT owner, stream, events FROM log_streams ORDER BY rowid").fetchall()
            return iter([StoredLogStream(group, stream, decode_json(events)) for group, stream, events in rows])

    def write(self, changes: Iterable[Change]) -> None:
        """Store changes, all or none."""
        with self._lock, self._translate_errors():
            self._db.execute("BEGIN")
            try:
                for change in changes:
                    self._write_one(change)
                self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (CHANGES, str(self._count + 1)))
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # if the disk is full, SQLite has rolled back
                    self._db.execute("ROLLBACK")
                raise
            self._count += 1
            with suppress(OSError):  # the next change writes the count again
                os.pwrite(self._count_file, str(self._count).encode().ljust(20), 0)

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
            case RemovedObject(bucket, key):
                self._db.execute("DELETE FROM objects WHERE bucket = ? AND key = ?", (bucket, key))
            case RemovedItem(table, hashed, ranged):
                row_key = (table, hashed, ranged)
                self._db.execute("DELETE FROM items WHERE owner = ? AND hash = ? AND range = ?", row_key)
            case RemovedLogStream(group, stream):
                self._db.execute("DELETE FROM log_streams WHERE owner = ? AND stream = ?", (group, stream))

    def _reject_log_without_database(self) -> None:
        """Reject an empty database with a log: SQLite would treat it as new, and delete the log."""
        log = _beside(self._path, "-wal")
        if _size(self._path) == 0 and _size(log) > 0:
            raise StateUnreadable(
                f"{self._path} is empty or missing, and its log {log.name} is not; {_explain_recovery(self._path)}"
            )

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the other bits are details
            if code == sqlite3.SQLITE_IOERR and shutil.disk_usage(self._path.parent).free < PAGE_BYTES:
                code = sqlite3.SQLITE_FULL  # SQLite reports an I/O error if its log's index has no space
            if code in UNWRITABLE:
                reason = "no space left on device" if code == sqlite3.SQLITE_FULL else str(error)
                raise StateUnwritable(f"{self._path} cannot be used ({reason}); {UNWRITABLE[code]}") from None
            raise StateUnreadable(f"{self._path} is damaged ({error}); {_explain_recovery(self._path)}") from None
        except ValueError as error:
            raise StateUnreadable(f"{self._path} is damaged ({error}); {_explain_recovery(self._path)}") from None


def encode_json(value: object) -> str:
    """Return JSON; bytes, which occur in items, are encoded."""
    return json.dumps(value, default=lambda found: {BYTES: b64encode(found).decode()})


def decode_json(text: str) -> Any:
    """Decode what `encode_json` has encoded."""
    return json.loads(text, object_hook=lambda found: b64decode(found[BYTES]) if BYTES in found else found)


def remove_database(path: Path) -> None:
    """Remove a database and its files beside it."""
    for suffix in ("", "-wal", "-shm", ".changes"):
        _beside(path, suffix).unlink(missing_ok=True)


def copy_database(path: Path, folder: Path) -> None:
    """Copy a database that no process writes, with its log and its count, into another folder."""
    for suffix in ("", "-wal", ".changes"):
        source = _beside(path, suffix)
        if source.exists():
            shutil.copyfile(source, folder / source.name)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _explain_recovery(path: Path) -> str:
    folder = path.parent
    return f"put a copy of the folder back, or rename it and start with an empty one: mv {folder} {folder}.aside"


def find_owner(path: Path) -> int | None:
    """Return the id of the process that holds a state's lock file; None if none does, 0 if the file has no id yet.

    Raises:
        OSError: the lock file exists and cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return None if _try_lock(descriptor) else _read_owner(descriptor) or 0
    finally:
        os.close(descriptor)


@contextmanager
def lock_state(
    path: Path, wait_seconds: float, on_wait: Callable[[str], None], check: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Own the state, exclusively in this process and all others, until the block ends or the process dies.

    Args:
        path: of the lock file.
        wait_seconds: how long to wait for another owner.
        on_wait: called once, with a message, if there is another owner.
        check: called again and again while there is another owner; may raise.

    Raises:
        StateLocked: the other owner has kept the state for so long.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait_seconds
        notified = False
        while not _try_lock(descriptor):
            if not notified:
                on_wait("Waiting for another ensemble command to finish")
                notified = True
            check()
            if time.monotonic() > deadline:
                owner = _read_owner(descriptor) or "unknown"
                raise StateLocked(
                    f"another ensemble command (process {owner}) has been using {path.parent} for "
                    f"{wait_seconds:.0f} s; wait for it, or end it"
                )
            time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _read_owner(descriptor: int) -> int | None:
    try:
        return int(os.pread(descriptor, 32, 0))
    except ValueError:
        return None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
