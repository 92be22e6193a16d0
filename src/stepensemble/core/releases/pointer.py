"""Moves the pointer to the current release, and chooses the release that serves an execution.

The pointer holds the current release, the releases before it, and sometimes a canary: a release that serves a share of
the executions, chosen by their prediction ids, until it is promoted or aborted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from msgspec import structs

from stepensemble.core.errors import CanaryConflict, NoCanary, ReleaseNotCurrent
from stepensemble.core.releases.release import SHORT, Canary, PastRelease, ReleasePointer

HISTORY = 20
"""Most terms that a pointer keeps."""

BUCKETS = 10_000
"""Number of buckets that prediction ids are hashed to; one percent is a hundred of them."""


def succeed(current: ReleasePointer | None, release: str, slots: Mapping[str, str], now: str) -> ReleasePointer:
    """Make a release the current one, and end a canary.

    Args:
        current: the pointer before; None if there is none.
        release: its digest; if it is current already, only the placement changes.
        slots: its placement.
        now: ISO 8601 in UTC.
    """
    if current is None:
        return ReleasePointer(release, slots, now)
    if current.release == release:
        return ReleasePointer(release, slots, current.since, current.history)
    term = PastRelease(current.release, current.since, now)
    return ReleasePointer(release, slots, now, (term, *current.history)[:HISTORY])


def find_previous(current: ReleasePointer) -> str | None:
    """Return the release that was current before; None if the pointer holds no other."""
    return next((term.release for term in current.history if term.release != current.release), None)


def begin_canary(
    current: ReleasePointer, release: str, slots: Mapping[str, str], percent: int, now: str
) -> ReleasePointer:
    """Let a release serve a share of the executions; if it is the canary already, only share and placement change.

    Raises:
        CanaryConflict: another release is the canary.
    """
    began = now
    if current.canary is not None:
        if current.canary.release != release:
            refuse_canary(current)
        began = current.canary.since
    return structs.replace(current, canary=Canary(release, slots, percent, began))


def promote_canary(current: ReleasePointer, now: str) -> ReleasePointer:
    """Make the canary the current release, in its present slots.

    Raises:
        NoCanary: there is none.
    """
    canary = find_canary(current)
    return succeed(current, canary.release, canary.slots, now)


def abort_canary(current: ReleasePointer) -> ReleasePointer:
    """End the canary; the current release serves every execution again.

    Raises:
        NoCanary: there is none.
    """
    find_canary(current)
    return structs.replace(current, canary=None)


def find_canary(current: ReleasePointer) -> Canary:
    """Return the canary.

    Raises:
        NoCanary: there is none.
    """
    if current.canary is None:
        raise NoCanary("there is no canary; start one with: ensemble publish --canary PERCENT")
    return current.canary


def refuse_canary(current: ReleasePointer) -> None:
    """Check that there is no canary.

    Raises:
        CanaryConflict: one is.
    """
    if current.canary is not None:
        raise CanaryConflict(
            f"release {current.canary.release[:SHORT]} is the canary and serves {current.canary.percent}%; end it "
            "first, with: ensemble canary promote, or: ensemble canary abort"
        )


def serves(current: ReleasePointer, release: str) -> bool:
    """Return whether a release, named by its digest or a prefix of it, is current or the canary."""
    return current.release.startswith(release) or (
        current.canary is not None and current.canary.release.startswith(release)
    )


def choose(current: ReleasePointer, prediction_id: str, requested: str | None = None) -> tuple[str, Mapping[str, str]]:
    """Choose the release that serves an execution, and return it with its placement.

    The same pointer and prediction id always give the same release.

    Args:
        current: the pointer.
        prediction_id: of the execution; its hash decides whether the canary serves it.
        requested: the digest, or a prefix of it, of the release that the payload names.

    Raises:
        ReleaseNotCurrent: the requested release is neither current nor the canary.
    """
    canary = current.canary
    if requested is not None and not serves(current, requested):
        beside = "" if canary is None else f", and {canary.release[:SHORT]} is the canary"
        raise ReleaseNotCurrent(
            f"release {requested[:SHORT]} is not the current one, {current.release[:SHORT]} is{beside}; "
            'publish it, or leave "release" out'
        )
    if canary is not None:
        in_share = _bucket(canary.release, prediction_id) < canary.percent * BUCKETS // 100
        if in_share if requested is None else not current.release.startswith(requested):
            return canary.release, canary.slots
    return current.release, current.slots


def _bucket(release: str, prediction_id: str) -> int:
    """Return the bucket of a prediction id, 0 to `BUCKETS` - 1; it differs from release to release."""
    digest = hashlib.sha256(f"{release}:{prediction_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % BUCKETS
