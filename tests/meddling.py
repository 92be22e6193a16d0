"""A bucket whose calls are counted and interfered with, one by one: what happens between any two of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

from obstore.store import MemoryStore

from stepensemble.storage.objects import Bucket

CALLS = ("read_tagged", "write", "create", "replace", "copy", "delete", "head", "list")
"""The methods that access the store; the others call these."""


class Killed(Exception):
    """The process ends at this call."""


class MeddledBucket(Bucket):
    """The store of another bucket; `before` and `after` are called with the number of each call, from 0."""

    __slots__ = ("after", "before", "calls", "lock")

    def __init__(
        self,
        bucket: Bucket,
        before: Callable[[int], None] = lambda _: None,
        after: Callable[[int], None] = lambda _: None,
    ) -> None:
        assert isinstance(bucket.store, MemoryStore)
        super().__init__(bucket.name, bucket.store)
        for name, value in {"before": before, "after": after, "calls": 0, "lock": Lock()}.items():
            object.__setattr__(self, name, value)

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        return self._meddle(super().read_tagged, key)

    def write(self, key: str, body: bytes) -> Any:
        return self._meddle(super().write, key, body)

    def create(self, key: str, body: bytes) -> bool:
        return self._meddle(super().create, key, body)

    def replace(self, key: str, body: bytes, tag: str | None) -> None:
        self._meddle(super().replace, key, body, tag)

    def copy(self, source: str, target: str) -> None:
        self._meddle(super().copy, source, target)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:  # one by one: a request for many may be half done when the process ends
            self._meddle(super().delete, [key])

    def head(self, key: str) -> Any:
        return self._meddle(super().head, key)

    def list(self, folder: str) -> Any:
        return self._meddle(lambda: iter(list(super(MeddledBucket, self).list(folder))))

    def _meddle(self, call: Callable[..., Any], *arguments: Any) -> Any:
        with self.lock:
            number = self.calls
            object.__setattr__(self, "calls", number + 1)
        self.before(number)
        try:
            return call(*arguments)
        finally:
            self.after(number)


def kill_at(number: int) -> Callable[[int], None]:
    """Return a meddler that kills at one call."""

    def meddle(call: int) -> None:
        if call == number:
            raise Killed(f"at call {call}")

    return meddle
