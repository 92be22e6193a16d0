"""Lists a stack's releases: the current one, the canary, those that were current before, and all that are stored."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from stepensemble.core.errors import NothingPublished, ReleaseCorrupt
from stepensemble.core.releases.release import PastRelease, ReleasePointer
from stepensemble.storage.releases import ReleaseStore, StoredRelease


class MemberLine(Struct, frozen=True):
    """A member in a list."""

    id: str
    version: str
    role: Literal["voter", "shadow"]


class ReleaseLine(Struct, frozen=True):
    """A release in a list.

    Attributes:
        written_at: when it was stored, ISO 8601 in UTC.
        state: None if it is neither.
        members: empty if it cannot be read; `problem` then has the reason.
    """

    release: str
    written_at: str
    state: Literal["current", "canary"] | None
    members: tuple[MemberLine, ...]
    problem: str | None


class ReleaseOverview(Struct, frozen=True):
    """A stack's releases, newest first.

    Attributes:
        current: the digest; None if nothing is published.
        since: when it became current; None if the pointer does not have it.
        canary, percent, canary_since: likewise for the canary; None if there is none.
        total: how many releases are stored; `releases` has the newest of them, and always the current one and the
            canary.
    """

    current: str | None
    since: str | None
    canary: str | None
    percent: int | None
    canary_since: str | None
    history: tuple[PastRelease, ...]
    total: int
    releases: tuple[ReleaseLine, ...]


def read_overview(store: ReleaseStore, limit: int) -> ReleaseOverview:
    """Read the pointer and the releases in the bucket: the latest ones, at most `limit`, and those that are served."""
    try:
        current, _ = store.read_current()
    except NothingPublished:
        current = ReleasePointer("", {})
    stored = store.list_releases()
    canary = current.canary
    served = {current.release, None if canary is None else canary.release}
    shown = [one for place, one in enumerate(stored) if place < limit or one.digest in served]
    return ReleaseOverview(
        current=current.release or None,
        since=current.since,
        canary=None if canary is None else canary.release,
        percent=None if canary is None else canary.percent,
        canary_since=None if canary is None else canary.since,
        history=current.history,
        total=len(stored),
        releases=tuple(_read_line(store, one, current) for one in shown),
    )


def _read_line(store: ReleaseStore, stored: StoredRelease, current: ReleasePointer) -> ReleaseLine:
    state: Literal["current", "canary"] | None = None
    if stored.digest == current.release:
        state = "current"
    elif current.canary is not None and stored.digest == current.canary.release:
        state = "canary"
    try:
        members = store.read_release(stored.digest).members
    except ReleaseCorrupt as error:
        return ReleaseLine(stored.digest, stored.written_at.isoformat(), state, (), str(error))
    lines = tuple(MemberLine(member.id, member.version, member.role) for member in members)
    return ReleaseLine(stored.digest, stored.written_at.isoformat(), state, lines, None)
