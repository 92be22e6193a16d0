"""Publishes a release: artifacts and release first, the pointer last, so an interruption leaves the current release.

There are two steps. `plan` reads and decides, `apply_plan` writes. Artifacts and releases are named by their digests
and never change, so writing them has no effect on what is in use. The pointer is moved by compare-and-set on the
version that the plan has read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from stepensemble.core.errors import CanaryConflict, NothingPublished, ReleaseCorrupt
from stepensemble.core.releases.diff import Difference, compare_releases
from stepensemble.core.releases.fingerprint import Fingerprint
from stepensemble.core.releases.pointer import begin_canary, refuse_canary, serves, succeed
from stepensemble.core.releases.release import SHORT, Release, ReleasedMember, ReleasePointer, Slots, place
from stepensemble.publishing.manifest_loader import Sources
from stepensemble.storage.releases import ReleaseStore

Now = Callable[[], datetime]
OnUpload = Callable[[str, int], None]
"""Called during an upload with the member's id and the number of bytes sent since the last call."""


@dataclass(frozen=True, slots=True)
class ReleaseBundle:
    """A release with its artifacts and its fingerprint, from a manifest or from a stack.

    Attributes:
        read_artifact: returns a member's model file, with its digest checked.
        fingerprint: None if there is none.
    """

    release: Release
    digest: str
    body: bytes
    read_artifact: Callable[[ReleasedMember], bytes]
    fingerprint: Fingerprint | None


@dataclass(frozen=True, slots=True)
class PublishPlan:
    """What a publish will write.

    Attributes:
        bundle: the release to publish.
        current: the pointer as it was read; None if nothing is published.
        tag: the pointer's ETag; None if nothing is published.
        slots: the placement, member id to slot.
        canary: the share of executions for the release as a canary, in percent; None if it becomes current.
        uploads: one member for each artifact that is not stored yet.
        changed: whether the pointer will move.
    """

    bundle: ReleaseBundle
    current: ReleasePointer | None
    tag: str | None
    slots: Mapping[str, str]
    canary: int | None
    uploads: tuple[ReleasedMember, ...]
    changed: bool

    @property
    def previous(self) -> str | None:
        """The release that is current before the publish."""
        return None if self.current is None else self.current.release

    @property
    def upload_bytes(self) -> int:
        """The number of bytes to upload."""
        return sum(member.artifact.size for member in self.uploads)


@dataclass(frozen=True, slots=True)
class PublishedRelease:
    """What a publish did.

    Attributes:
        release: the digest that is current now, or the canary.
        previous: the one that was current before; None if there was none.
        changed: whether the pointer moved.
        uploaded: ids of the members whose artifacts were uploaded.
        slots: the placement, member id to slot.
        canary: the share of executions that it predicts, in percent; None if it is current.
    """

    release: str
    previous: str | None
    changed: bool
    uploaded: tuple[str, ...]
    slots: Mapping[str, str]
    canary: int | None = None


def bundle_release(sources: Sources, fingerprint: Fingerprint | None = None) -> ReleaseBundle:
    """Return the release of a manifest, with its artifacts and its fingerprint."""
    return ReleaseBundle(
        sources.release, sources.digest, sources.body, lambda member: sources.artifacts[member.id], fingerprint
    )


def publish(
    sources: Sources,
    store: ReleaseStore,
    slots: Slots,
    *,
    fingerprint: Fingerprint | None = None,
    canary: int | None = None,
    now: Now = lambda: datetime.now(UTC),
) -> PublishedRelease:
    """Make the sources' release the current one of a stack, or its canary: `plan`, then `apply_plan`."""
    planned = plan(bundle_release(sources, fingerprint), store, slots, canary=canary, now=now)
    return apply_plan(planned, store, now=now)


def plan(
    bundle: ReleaseBundle,
    store: ReleaseStore,
    slots: Slots,
    *,
    canary: int | None = None,
    now: Now = lambda: datetime.now(UTC),
) -> PublishPlan:
    """Decide what publishing a release will write; write nothing.

    Args:
        bundle: a release that has passed the gate.
        store: the stack's artifact bucket.
        slots: the stack's.
        canary: the share of executions for the release as a canary, 1 to 99 percent; None to make it current.
        now: the clock.

    Raises:
        NotEnoughSlots: the stack has too few.
        CanaryConflict: there is a canary that must be ended first, or the release is current already.
        NothingPublished: there is no current release for a canary.
    """
    current, tag = _read_pointer(store)
    members = bundle.release.members
    if current is None and canary is not None:
        raise NothingPublished(
            "a canary needs a current release, and nothing is published here yet; publish without --canary"
        )
    if current is None:
        placed = place(members, slots, {})
    elif canary is None:
        placed = place(members, slots, current.slots)
    else:
        # Members of both releases keep their slots; the canary's other members get slots that are free.
        previous = {**({} if current.canary is None else current.canary.slots), **current.slots}
        placed = place(members, slots, previous, taken=tuple(current.slots.values()))
    target = _build_pointer(current, bundle.digest, placed, canary, now)
    absent: dict[str, ReleasedMember] = {}
    for member in members:
        if member.artifact.digest not in absent and not store.has_artifact(member.artifact):
            absent[member.artifact.digest] = member
    return PublishPlan(bundle, current, tag, placed, canary, tuple(absent.values()), changed=target != current)


def _read_pointer(store: ReleaseStore) -> tuple[ReleasePointer | None, str | None]:
    try:
        return store.read_current()
    except NothingPublished:
        return None, None


def _build_pointer(
    current: ReleasePointer | None, release: str, slots: Mapping[str, str], canary: int | None, now: Now
) -> ReleasePointer:
    """Return the new pointer; the current one if nothing changes."""
    moment = now().isoformat(timespec="milliseconds")
    if current is None:
        return succeed(None, release, slots, moment)
    if canary is not None:
        if release == current.release:
            raise CanaryConflict(f"release {release[:SHORT]} is the current one already; change the manifest first")
        return begin_canary(current, release, slots, canary, moment)
    if release == current.release and dict(slots) == dict(current.slots):
        return current
    refuse_canary(current)
    return succeed(current, release, slots, moment)


def apply_plan(
    plan: PublishPlan,
    store: ReleaseStore,
    *,
    on_upload: OnUpload = lambda *_: None,
    now: Now = lambda: datetime.now(UTC),
) -> PublishedRelease:
    """Write a planned publish.

    Raises:
        PublishConflict: the pointer was changed since the plan; it keeps that change.
        ArtifactCorrupt: an upload is incomplete.
    """
    bundle = plan.bundle
    uploaded = [
        member.id
        for member in plan.uploads
        if store.write_artifact(member.artifact, bundle.read_artifact(member), partial(on_upload, member.id))
    ]
    store.write_release(bundle.digest, bundle.body)
    if bundle.fingerprint is not None:
        store.write_fingerprint(bundle.fingerprint)
    if plan.changed:
        store.move_current(_build_pointer(plan.current, bundle.digest, plan.slots, plan.canary, now), plan.tag)
    return PublishedRelease(bundle.digest, plan.previous, plan.changed, tuple(uploaded), plan.slots, plan.canary)


def is_due(sources: Sources, store: ReleaseStore) -> bool:
    """Return whether a project's manifest must be published before a stack predicts.

    It must if there is no current release, or if the manifest has changed since it was last noted
    (`ReleaseStore.note_manifest`). So a rollback and a canary stay in place until a person edits the manifest. If no
    manifest was noted yet, it counts as changed if its release was never published. It must also if an ensemble of
    another name is current without a canary, since that ensemble predicts other inputs.

    Args:
        sources: the project's manifest.
        store: the stack's artifact bucket.
    """
    current, _ = _read_pointer(store)
    if current is None:
        return True
    if serves(current, sources.digest):
        return False
    other = find_other(current, sources.release, store) is not None
    if other and current.canary is None:
        return True
    seen = store.read_seen_manifest()
    if seen is not None:
        return seen != sources.digest
    return not other and not store.has_release(sources.digest)


def name_replaced(plan: PublishPlan, store: ReleaseStore) -> str | None:
    """Return the name of another ensemble that a publish replaces, or adds a canary to; None without one."""
    return find_other(plan.current, plan.bundle.release, store) if plan.changed else None


def find_other(current: ReleasePointer | None, release: Release, store: ReleaseStore) -> str | None:
    """Return the current ensemble's name if a release has another one; None also if the current cannot be read."""
    if current is None:
        return None
    try:
        name = store.read_release(current.release).name
    except ReleaseCorrupt:
        return None
    return None if name == release.name else name


def compare_with_current(plan: PublishPlan, store: ReleaseStore) -> tuple[Difference, ...] | None:
    """List the differences from the current release; None if there is none, or it cannot be read."""
    if plan.previous is None:
        return None
    try:
        return compare_releases(store.read_release(plan.previous), plan.bundle.release)
    except ReleaseCorrupt:
        return None
