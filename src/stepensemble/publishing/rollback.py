"""Point back at a release that was published before; undone by another rollback."""

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
class RolledBack:
    """What a rollback did.

    Attributes:
        release: the digest that is current now.
        previous: the one that was current before.
        changed: whether the pointer moved.
        slots: the placement, member id to slot.
        ended: the canary that ended with it; None where there was none.
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
) -> RolledBack:
    """Make an earlier release the current one again, whole or not at all; a canary ends with it.

    Args:
        store: the stack's artifact bucket.
        slots: the stack's.
        reference: as `references.find_release` takes it.
        now: the clock.

    Raises:
        ReleaseNotFound: there is no such release, or more than one.
        ReleaseCorrupt: it, or an artifact of it, is missing or damaged; all of them are named.
        NotEnoughSlots: the stack has fewer slots by now.
        PublishConflict: somebody else published meanwhile.
    """
    current, tag = store.read_current()
    digest = find_release(store, reference)
    release = store.read_release(digest)
    check_artifacts(store, digest, release)
    placed = place(release.members, slots, current.slots)
    if digest == current.release:
        return RolledBack(digest, digest, changed=False, slots=placed, ended=None)
    moment = now().isoformat(timespec="milliseconds")
    store.move_current(succeed(current, digest, placed, moment), tag)
    return RolledBack(digest, current.release, changed=True, slots=placed, ended=current.canary)


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
