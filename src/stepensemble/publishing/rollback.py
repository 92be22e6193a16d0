"""Moves the pointer back to an earlier release; another rollback undoes it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from stepensemble.core.errors import MemberError, ReleaseCorrupt
from stepensemble.core.releases.pointer import succeed
from stepensemble.core.releases.release import SHORT, Canary, Release, Slots, place
from stepensemble.publishing.publish import Now
from stepensemble.publishing.release_lookup import find_release
from stepensemble.storage.releases import ReleaseStore


@dataclass(frozen=True, slots=True)
class RollbackResult:
    """What a rollback did.

    Attributes:
        release: the digest that is current now.
        previous: the one that was current before.
        changed: whether the pointer moved.
        slots: the placement, member id to slot.
        ended: the canary that the rollback ended; None if there was none.
    """

    release: str
    previous: str
    changed: bool
    slots: dict[str, str]
    ended: Canary | None


def roll_back(
    store: ReleaseStore,
    slots: Slots,
    reference: str = "previous",
    *,
    now: Now = lambda: datetime.now(UTC),
) -> RollbackResult:
    """Make an earlier release the current one again, completely or not at all; this ends a canary.

    Args:
        store: the stack's artifact bucket.
        slots: the stack's.
        reference: as for `release_lookup.find_release`.
        now: the clock.

    Raises:
        ReleaseNotFound: there is no such release, or more than one.
        ReleaseCorrupt: it is missing or damaged, or one of its artifacts is; the error names all of them.
        NotEnoughSlots: the stack now has too few slots.
        PublishConflict: the pointer was changed concurrently.
    """
    current, tag = store.read_current()
    digest = find_release(store, reference)
    release = store.read_release(digest)
    check_artifacts(store, digest, release)
    placed = place(release.members, slots, current.slots)
    if digest == current.release:
        return RollbackResult(digest, digest, changed=False, slots=placed, ended=None)
    moment = now().isoformat(timespec="milliseconds")
    store.move_current(succeed(current, digest, placed, moment), tag)
    return RollbackResult(digest, current.release, changed=True, slots=placed, ended=current.canary)


def check_artifacts(store: ReleaseStore, digest: str, release: Release) -> None:
    """Read every artifact of a release.

    Raises:
        ReleaseCorrupt: with every one that is missing or damaged.
    """
    broken: list[str] = []
    for member in release.members:
        try:
            store.read_artifact(member.artifact)
        except MemberError as error:
            broken.append(f"- {member.id}: {error}")
    if broken:
        raise ReleaseCorrupt(f"release {digest[:SHORT]} cannot be served:\n" + "\n".join(broken))
