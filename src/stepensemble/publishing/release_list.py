"""What a stack has been given: the current release, the canary, what was current before, and all that is kept."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from stepensemble.core.errors import NothingPublished, ReleaseCorrupt
from stepensemble.core.releases.release import Current, Term
from stepensemble.storage.releases import ReleaseStore, StoredRelease


class MemberLine(Struct, frozen=True):
    """A member in a list."""

    id: str
    version: str
    role: Literal["voter", "shadow"]


class ReleaseLine(Struct, frozen=True):
    """A release in a list.

    Attributes:
        written_at: when it came into the bucket, ISO 8601 in UTC.
        state: None where it is neither.
        members: none where it cannot be read; `problem` then says why.
    """

    release: str
    written_at: str
    state: Literal["current", "canary"] | None
    members: tuple[MemberLine, ...]
    problem: str | None


class ReleaseOverview(Struct, frozen=True):
    """Everything, newest first.

    Attributes:
        current: the digest; None where nothing is published.
        since: since when it is current; None where the pointer does not say.
        canary, percent, canary_since: likewise, None where there is none.
        kept: how many releases there are; `releases` holds the first of them, and in any case the current one and the
            canary.
    """

    current: str | None
    since: str | None
    canary: str | None
    percent: int | None
    canary_since: str | None
    history: tuple[Term, ...]
    kept: int
    releases: tuple[ReleaseLine, ...]


def read_overview(store: ReleaseStore, limit: int) -> ReleaseOverview:
    """Read the pointer and the releases in the bucket: the latest ones, at most `limit`, and those that are served."""
    try:
        current, _ = store.read_current()
    except NothingPublished:
        current = Current("", {})
    kept = store.list_releases()
    canary = current.canary
    served = {current.release, None if canary is None else canary.release}
    shown = [one for place, one in enumerate(kept) if place < limit or one.digest in served]
    return ReleaseOverview(
        current=current.release or None,
        since=current.since,
        canary=None if canary is None else canary.release,
        percent=None if canary is None else canary.percent,
        canary_since=None if canary is None else canary.since,
        history=current.history,
        kept=len(kept),
        releases=tuple(_read_line(store, one, current) for one in shown),
    )


def _read_line(store: ReleaseStore, kept: StoredRelease, current: Current) -> ReleaseLine:
    state: Literal["current", "canary"] | None = None
    if kept.digest == current.release:
        state = "current"
    elif current.canary is not None and kept.digest == current.canary.release:
        state = "canary"
    try:
        members = store.read_release(kept.digest).members
    except ReleaseCorrupt as error:
        return ReleaseLine(kept.digest, kept.written_at.isoformat(), state, (), str(error))
    lines = tuple(MemberLine(member.id, member.version, member.role) for member in members)
    return ReleaseLine(kept.digest, kept.written_at.isoformat(), state, lines, None)
