"""Publish a release: everything it needs first, the pointer last, so that who is interrupted has changed nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stepensemble.core.errors import NothingPublished
from stepensemble.core.release import Current, place
from stepensemble.publishing.sources import Sources
from stepensemble.storage.releases import ReleaseStore


@dataclass(frozen=True, slots=True)
class Published:
    """What a publish did.

    Attributes:
        release: the digest that is current now.
        previous: the one before; None where there was none.
        changed: whether the pointer moved.
        uploaded: ids of the members whose artifacts were not there before.
        slots: the placement, member id to slot.
    """

    release: str
    previous: str | None
    changed: bool
    uploaded: tuple[str, ...]
    slots: dict[str, str]


def publish(
    sources: Sources, store: ReleaseStore, slots: Sequence[str], progress: Callable[[str], None] = lambda _: None
) -> Published:
    """Make the sources' release the current one of a stack.

    Args:
        sources: as read, and past the gate.
        store: the stack's artifact bucket.
        slots: the stack's slots, in order.
        progress: told each member's id before its artifact is looked after.

    Raises:
        NotEnoughSlots: before anything is written.
        PublishConflict: somebody else published meanwhile; the pointer is theirs.
    """
    try:
        current, tag = store.read_current()
        previous, placement, expected = current.release, current.slots, tag
    except NothingPublished:
        previous, placement, expected = None, {}, None
    placed = place(sources.release.members, slots, placement)
    uploaded: list[str] = []
    for member in sources.release.members:
        progress(member.id)
        if store.write_artifact(member.artifact, sources.artifacts[member.id]):
            uploaded.append(member.id)
    store.write_release(sources.digest, sources.body)
    changed = previous != sources.digest or dict(placement) != placed
    if changed:
        store.move_current(Current(sources.digest, placed), expected)
    return Published(sources.digest, previous, changed, tuple(uploaded), placed)
