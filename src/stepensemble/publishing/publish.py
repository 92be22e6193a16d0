"""Publish a release: everything it needs first, the pointer last, so that who is interrupted has changed nothing.

Two steps. `plan` reads and decides, `carry_out` writes what was planned. Artifacts and releases are named by their
digests and never change, so writing them touches nothing that is in use; the pointer is moved by compare-and-set on the
version that the plan has seen.
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
from stepensemble.core.releases.release import SHORT, Current, Release, ReleasedMember, Slots, place
from stepensemble.publishing.manifest_loader import Sources
from stepensemble.storage.releases import ReleaseStore

Now = Callable[[], datetime]
OnUpload = Callable[[str, int], None]
"""Told of uploaded bytes as they go: whose member's they are, and how many."""


@dataclass(frozen=True, slots=True)
class ReleaseBundle:
    """A release with what belongs to it, wherever it comes from.

    Attributes:
        read_artifact: returns a member's model file, its digest checked.
        fingerprint: None where none is at hand.
    """

    release: Release
    digest: str
    body: bytes
    read_artifact: Callable[[ReleasedMember], bytes]
    fingerprint: Fingerprint | None


@dataclass(frozen=True, slots=True)
class PublishPlan:
    """What a publish is going to do.

    Attributes:
        parcel: what is published.
        current: the pointer as it was read, and its ETag; None where there is none.
        slots: the placement, member id to slot.
        canary: the share of executions that the release shall answer, in percent; None where it becomes current.
        uploads: members whose artifacts are not there, an artifact each.
        changed: whether the pointer is to move.
    """

    bundle: ReleaseBundle
    current: Current | None
    tag: str | None
    slots: Mapping[str, str]
    canary: int | None
    uploads: tuple[ReleasedMember, ...]
    changed: bool

    @property
    def previous(self) -> str | None:
        """The release that is current so far."""
        return None if self.current is None else self.current.release

    @property
    def upload_bytes(self) -> int:
        """How many bytes are to be uploaded."""
        return sum(member.artifact.size for member in self.uploads)


@dataclass(frozen=True, slots=True)
class PublishedRelease:
    """What a publish did.

    Attributes:
        release: the digest that is current now, or the canary.
        previous: the one that was current before; None where there was none.
        changed: whether the pointer moved.
        uploaded: ids of the members whose artifacts were not there before.
        slots: the placement, member id to slot.
        canary: the share of executions it answers, in percent; None where it is current.
    """

    release: str
    previous: str | None
    changed: bool
    uploaded: tuple[str, ...]
    slots: Mapping[str, str]
    canary: int | None = None


def bundle_release(sources: Sources, fingerprint: Fingerprint | None = None) -> ReleaseBundle:
    """Return the release of a manifest with what belongs to it."""
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
    on_upload: OnUpload = lambda *_: None,
    now: Now = lambda: datetime.now(UTC),
) -> PublishedRelease:
    """Make the sources' release the current one of a stack, or its canary: `plan` and `carry_out` at once."""
    return apply_plan(
        plan(bundle_release(sources, fingerprint), store, slots, canary=canary, now=now),
        store,
        on_upload=on_upload,
        now=now,
    )


def plan(
    bundle: ReleaseBundle,
    store: ReleaseStore,
    slots: Slots,
    *,
    canary: int | None = None,
    now: Now = lambda: datetime.now(UTC),
) -> PublishPlan:
    """Decide what publishing a release takes; nothing is written.

    Args:
        parcel: past the gate.
        store: the stack's artifact bucket.
        slots: the stack's.
        canary: the share of executions that the release shall answer, 1 to 99 percent; None to make it current.
        now: the clock.

    Raises:
        NotEnoughSlots: the stack has too few.
        CanaryConflict: a canary must be ended first, or the release that shall be one is current already.
        NothingPublished: there is nothing to be a canary beside.
    """
    current, tag = _read_pointer(store)
    members = bundle.release.members
    if current is None and canary is not None:
        raise NothingPublished(
            "a canary stands beside a current release, and nothing is published here yet; publish without --canary"
        )
    if current is None:
        placed = place(members, slots, {})
    elif canary is None:
        placed = place(members, slots, current.slots)
    else:
        # Members of both releases share their slots; the canary's own get slots that the current release leaves free.
        before = {**({} if current.canary is None else current.canary.slots), **current.slots}
        placed = place(members, slots, before, taken=tuple(current.slots.values()))
    aimed = _aim(current, bundle.digest, placed, canary, now)
    absent: dict[str, ReleasedMember] = {}
    for member in members:
        if member.artifact.digest not in absent and not store.has_artifact(member.artifact):
            absent[member.artifact.digest] = member
    return PublishPlan(bundle, current, tag, placed, canary, tuple(absent.values()), changed=aimed != current)


def _read_pointer(store: ReleaseStore) -> tuple[Current | None, str | None]:
    try:
        return store.read_current()
    except NothingPublished:
        return None, None


def _aim(current: Current | None, release: str, slots: Mapping[str, str], canary: int | None, now: Now) -> Current:
    """Return the pointer as it shall be; the present one where nothing is to change."""
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
    """Publish what was planned.

    Raises:
        PublishConflict: somebody else published since the plan; the pointer is theirs.
        ArtifactCorrupt: an upload did not arrive whole.
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
        store.move_current(_aim(plan.current, bundle.digest, plan.slots, plan.canary, now), plan.tag)
    return PublishedRelease(bundle.digest, plan.previous, plan.changed, tuple(uploaded), plan.slots, plan.canary)


def is_due(sources: Sources, store: ReleaseStore) -> bool:
    """Say whether a project's manifest is to be published before a stack predicts by it.

    It is where nothing is current, and where the manifest has changed since it was last looked at
    (`ReleaseStore.note_manifest`). So a rollback and a canary stay what they are until somebody edits the manifest.
    Where nothing was noted yet, a manifest counts as changed if its release was never published. It is due as well
    where another ensemble, one of another name, is current without a canary: that one predicts other inputs.

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
    """Return the name of another ensemble that a publish replaces, or becomes a canary beside; None without one."""
    return find_other(plan.current, plan.bundle.release, store) if plan.changed else None


def find_other(current: Current | None, release: Release, store: ReleaseStore) -> str | None:
    """Return the name of the current ensemble if a release is of another one; None where that cannot be read, too."""
    if current is None:
        return None
    try:
        name = store.read_release(current.release).name
    except ReleaseCorrupt:
        return None
    return None if name == release.name else name


def compare_with_current(plan: PublishPlan, store: ReleaseStore) -> tuple[Difference, ...] | None:
    """List what a publish changes of the current release; None where there is none, or none that can be read."""
    if plan.previous is None:
        return None
    try:
        return compare_releases(store.read_release(plan.previous), plan.bundle.release)
    except ReleaseCorrupt:
        return None
