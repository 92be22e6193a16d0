"""The release that predicts: the pointer and the releases it names, cached in a warm environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from stepensemble.core.releases.pointer import choose, serves
from stepensemble.core.releases.release import Release, ReleasePointer
from stepensemble.storage.releases import ReleaseStore

POINTER_SECONDS = 3.0
"""How long a warm environment uses a pointer that it has read; after that, a publish is live everywhere."""


class ServedRelease(NamedTuple):
    """A release that a pointer names: its digest, each member's slot by its id, and the release."""

    digest: str
    slots: Mapping[str, str]
    release: Release


@dataclass(slots=True)
class CurrentRelease:
    """The current release, cached: releases permanently, since they never change, the pointer for `POINTER_SECONDS`."""

    releases: ReleaseStore
    clock: Callable[[], float]
    _pointer: ReleasePointer | None = None
    _read_at: float = 0.0
    _known: dict[str, Release] = field(default_factory=dict)

    def get(self, prediction_id: str, wanted: str | None) -> ServedRelease:
        """Return the release that predicts for an execution.

        Args:
            prediction_id: of the execution; it decides between the current release and a canary.
            wanted: digest, or the beginning of one, of the release that must predict. A cached pointer that does not
                name it is read again, so that a release can be used as soon as it is published.

        Raises:
            NothingPublished: there is none.
            ReleaseNotCurrent: the wanted release is neither the current one nor the canary.
        """
        pointer = self.read_pointer(wanted)
        digest, slots = choose(pointer, prediction_id, wanted)
        if digest not in self._known:
            kept = {known: release for known, release in self._known.items() if serves(pointer, known)}
            self._known = {**kept, digest: self.releases.read_release(digest)}
        return ServedRelease(digest, slots, self._known[digest])

    def list_served(self) -> list[ServedRelease]:
        """Return the current release, and the canary if there is one; the pointer is read again.

        Raises:
            NothingPublished: there is none.
        """
        self._pointer = None
        pointer = self.read_pointer()
        served = [pointer.release] if pointer.canary is None else [pointer.release, pointer.canary.release]
        return [self.get("", digest) for digest in served]

    def read_pointer(self, wanted: str | None = None) -> ReleasePointer:
        """Return the pointer; a cached one only if it names the wanted release.

        Raises:
            NothingPublished: there is none.
        """
        pointer = self._pointer
        stale = pointer is None or self.clock() - self._read_at >= POINTER_SECONDS
        if pointer is None or stale or not serves(pointer, wanted or ""):
            pointer, _ = self.releases.read_current()
            self._pointer, self._read_at = pointer, self.clock()
        return pointer

    def forget_pointer(self) -> None:
        """Read the pointer again the next time."""
        self._pointer = None
