"""TODO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from stepensemble.core.releases.pointer import choose, serves
from stepensemble.core.releases.release import Current, Release
from stepensemble.storage.releases import ReleaseStore

POINTER_SECONDS = 3.0
"""How long a warm environment may go on with the pointer it has read; a publish is live everywhere after that."""


@dataclass(slots=True)
class CurrentRelease:
    """The current release, cached: releases for good, since they never change, the pointer for `POINTER_SECONDS`."""

    releases: ReleaseStore
    clock: Callable[[], float]
    _pointer: Current | None = None
    _read_at: float = 0.0
    _known: dict[str, Release] = field(default_factory=dict)

    def get(self, prediction_id: str, asked: str | None) -> tuple[str, Mapping[str, str], Release]:
        """Return the release that answers an execution: its digest, its placement, and itself.

        Args:
            prediction_id: of the execution; it decides between the current release and a canary.
            asked: digest, or the beginning of one, of the release that must answer; a cached pointer that does not
                serve it is read anew, so that who has just published sees what was published.

        Raises:
            NothingPublished: there is none.
            ReleaseNotCurrent: the release asked for is neither the current one nor the canary.
        """
        pointer = self.read_pointer(asked)
        digest, slots = choose(pointer, prediction_id, asked)
        if digest not in self._known:
            kept = {known: release for known, release in self._known.items() if serves(pointer, known)}
            self._known = {**kept, digest: self.releases.read_release(digest)}
        return digest, slots, self._known[digest]

    def list_served(self) -> list[tuple[str, Mapping[str, str], Release]]:
        """Return the current release, and the canary if there is one, each as `get` does; the pointer is read anew.

        Raises:
            NothingPublished: there is none.
        """
        self._pointer = None
        pointer = self.read_pointer()
        served = [pointer.release] if pointer.canary is None else [pointer.release, pointer.canary.release]
        return [self.get("", digest) for digest in served]

    def read_pointer(self, asked: str | None = None) -> Current:
        """Return the pointer; one that is cached only where it serves the release that is asked for.

        Raises:
            NothingPublished: there is none.
        """
        pointer = self._pointer
        stale = pointer is None or self.clock() - self._read_at >= POINTER_SECONDS
        if pointer is None or stale or not serves(pointer, asked or ""):
            pointer, _ = self.releases.read_current()
            self._pointer, self._read_at = pointer, self.clock()
        return pointer

    def forget_pointer(self) -> None:
        """Have the pointer read anew the next time."""
        self._pointer = None
