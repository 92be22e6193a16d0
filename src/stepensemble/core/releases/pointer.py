"""How the pointer to the current release moves, and which release answers an execution.

The pointer holds one current release, what was current before it, and at times a canary: a release that answers a share
of the executions, chosen by their prediction ids, until it is promoted or aborted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from msgspec import structs

from stepensemble.core.errors import CanaryConflict, NoCanary, ReleaseNotCurrent
from stepensemble.core.releases.release import SHORT, Canary, Current, Term

HISTORY = 20
"""Terms that a pointer remembers."""

PARTS = 10_000
"""Into how many parts prediction ids are hashed; a percent is a hundred of them."""


def succeed(current: Current | None, release: str, slots: Mapping[str, str], now: str) -> Current:
    """Make a release the current one; a canary ends with it.

    Args:
        current: the pointer until now; None where there is none.
        release: the release's digest; of the current one only the placement changes.
        slots: its placement.
        now: ISO 8601 in UTC.
    """
    if current is None:
        return Current(release, slots, now)
    if current.release == release:
        return Current(release, slots, current.since, current.history)
    term = Term(current.release, current.since, now)
    return Current(release, slots, now, (term, *current.history)[:HISTORY])


def find_previous(current: Current) -> str | None:
    """Return the release that was current before; None where the pointer remembers no other."""
    return next((term.release for term in current.history if term.release != current.release), None)


def begin_canary(current: Current, release: str, slots: Mapping[str, str], percent: int, now: str) -> Current:
    """Let a release answer a share of the executions; of the present canary only share and placement change.

    Raises:
        CanaryConflict: another release is the canary.
    """
    began = now
    if current.canary is not None:
        if current.canary.release != release:
            refuse_canary(current)
        began = current.canary.since
    return structs.replace(current, canary=Canary(release, slots, percent, began))


def promote_canary(current: Current, now: str) -> Current:
    """Make the canary the current release, in the slots it has.

    Raises:
        NoCanary: there is none.
    """
    canary = find_canary(current)
    return succeed(current, canary.release, canary.slots, now)


def abort_canary(current: Current) -> Current:
    """End the canary; the current release answers everything again.

    Raises:
        NoCanary: there is none.
    """
    find_canary(current)
    return structs.replace(current, canary=None)


def find_canary(current: Current) -> Canary:
    """Return the canary.

    Raises:
        NoCanary: there is none.
    """
    if current.canary is None:
        raise NoCanary("there is no canary here; begin one with: ensemble publish --canary PERCENT")
    return current.canary


def refuse_canary(current: Current) -> None:
    """Make sure that no canary is under way.

    Raises:
        CanaryConflict: one is.
    """
    if current.canary is not None:
        raise CanaryConflict(
            f"release {current.canary.release[:SHORT]} is the canary and answers {current.canary.percent}%; end it "
            "first, with: ensemble canary promote, or: ensemble canary abort"
        )


def serves(current: Current, release: str) -> bool:
    """Say whether a release, named by its digest or the beginning of one, is current or the canary."""
    return current.release.startswith(release) or (
        current.canary is not None and current.canary.release.startswith(release)
    )


def choose(current: Current, prediction_id: str, asked: str | None = None) -> tuple[str, Mapping[str, str]]:
    """Choose the release that answers an execution, and return it with its placement.

    The same pointer and prediction id always give the same release.

    Args:
        current: the pointer.
        prediction_id: of the execution; its hash decides whether the canary answers.
        asked: digest, or the beginning of one, of the release that the payload asks for.

    Raises:
        ReleaseNotCurrent: the release asked for is neither current nor the canary.
    """
    canary = current.canary
    if asked is not None and not serves(current, asked):
        beside = "" if canary is None else f", and {canary.release[:SHORT]} is the canary"
        raise ReleaseNotCurrent(
            f"release {asked[:SHORT]} is not the current one, {current.release[:SHORT]} is{beside}; "
            'publish it, or leave "release" out'
        )
    if canary is not None:
        drawn = _part(canary.release, prediction_id) < canary.percent * PARTS // 100
        if drawn if asked is None else not current.release.startswith(asked):
            return canary.release, canary.slots
    return current.release, current.slots


def _part(release: str, prediction_id: str) -> int:
    """Return the part that an id falls into, 0 to `PARTS` - 1; another one with each release."""
    digest = hashlib.sha256(f"{release}:{prediction_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % PARTS
