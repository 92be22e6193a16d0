"""A release: a manifest compiled, immutable, named by the SHA-256 of its bytes.

A release says which artifact (by digest) each member is; it says nothing of slots, so the same manifest and artifacts
have the same name on every stack. Which slot serves which member is the *placement*; it lives in the pointer to the
current release, and `place` computes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from stepensemble.core.errors import NotEnoughSlots, ReleaseCorrupt
from stepensemble.core.features import all_column_names
from stepensemble.core.manifest import Feature, Manifest, select_voters
from stepensemble.core.outputs import Output
from stepensemble.core.policy import Policy
from stepensemble.core.task import Task

SHORT = 12
"""Digits of a digest that a person is shown."""


class Artifact(Struct, frozen=True):
    """A model file by its content."""

    digest: str
    size: int


class ReleasedMember(Struct, frozen=True):
    """A member with everything resolved: the columns named, the artifact by digest."""

    id: str
    version: str
    artifact: Artifact
    runtime: str
    output: Output
    weight: float
    role: Literal["voter", "shadow"]
    timeout: int
    columns: tuple[str, ...]
    tier: int


class Release(Struct, frozen=True):
    """What a stack serves; see the module."""

    format: int
    name: str
    task: Task
    features: tuple[Feature, ...]
    policy: Policy
    members: tuple[ReleasedMember, ...]

    @property
    def voters(self) -> tuple[ReleasedMember, ...]:
        """The members that count."""
        return select_voters(self.members)

    @property
    def tiers(self) -> int:
        """How many tiers there are; 1 without a cascade."""
        return max(member.tier for member in self.members)

    def in_tier(self, tier: int) -> tuple[ReleasedMember, ...]:
        """The members of one tier."""
        return tuple(member for member in self.members if member.tier == tier)


class Term(Struct, frozen=True):
    """A time for which a release was the current one; times are ISO 8601 in UTC.

    Attributes:
        since: None where the pointer of then did not say it.
    """

    release: str
    since: str | None
    until: str


class Canary(Struct, frozen=True):
    """A release that answers a share of the executions beside the current one.

    Attributes:
        percent: of the executions, 1 to 99.
        since: when it began, ISO 8601 in UTC.
    """

    release: str
    slots: Mapping[str, str]
    percent: int
    since: str


class Current(Struct, frozen=True):
    """The pointer: the current release and its placement, member id to slot.

    Attributes:
        since: when it became current, ISO 8601 in UTC; None where an earlier version wrote the pointer and did not say.
        history: what was current before, newest first.
    """

    release: str
    slots: Mapping[str, str]
    since: str | None = None
    history: tuple[Term, ...] = ()
    canary: Canary | None = None


FORMAT = 2


def compile_release(manifest: Manifest, artifacts: Mapping[str, Artifact]) -> Release:
    """Compile a manifest.

    Args:
        manifest: as parsed.
        artifacts: member id to the artifact's digest and size in bytes.
    """
    columns = all_column_names(manifest.features)
    return Release(
        format=FORMAT,
        name=manifest.name,
        task=manifest.task,
        features=manifest.features,
        policy=manifest.policy,
        members=tuple(
            ReleasedMember(
                id=member.id,
                version=member.version,
                artifact=artifacts[member.id],
                runtime=member.runtime,
                output=member.output,
                weight=member.weight,
                role=member.role,
                timeout=member.timeout,
                columns=columns if member.columns is None else member.columns,
                tier=member.tier,
            )
            for member in manifest.members
        ),
    )


def encode_release(release: Release) -> tuple[str, bytes]:
    """Return a release's digest and its bytes."""
    body = msgspec.json.encode(release, order="deterministic")
    return digest_of(body), body


def decode_release(digest: str, body: bytes) -> Release:
    """Read a release back.

    Raises:
        ReleaseCorrupt: the bytes do not have that digest, or are of a format this version does not know.
    """
    if digest_of(body) != digest:
        raise ReleaseCorrupt(f"release {digest[:SHORT]} does not have the digest it is named by; publish again")
    try:
        release = msgspec.json.decode(body, type=Release)
    except msgspec.DecodeError as error:
        raise ReleaseCorrupt(f"release {digest[:SHORT]} is of another format: {error}") from None
    if release.format != FORMAT:
        raise ReleaseCorrupt(f"release {digest[:SHORT]} is of format {release.format}, and this version reads {FORMAT}")
    return release


def digest_of(body: bytes) -> str:
    """Return the SHA-256 of bytes, in hex."""
    return hashlib.sha256(body).hexdigest()


def place(
    members: Sequence[ReleasedMember], slots: Sequence[str], previous: Mapping[str, str], taken: Collection[str] = ()
) -> dict[str, str]:
    """Give every member a slot: the one it had where it had one, else the first free one.

    Args:
        members: of the release to publish.
        slots: the stack's slots, in order.
        previous: the placement until now, member id to slot.
        taken: slots that are not free, whoever has them.

    Raises:
        NotEnoughSlots: there are more members than slots for them.
    """
    kept = {member.id: previous[member.id] for member in members if previous.get(member.id) in slots}
    held = {*kept.values(), *(slot for slot in taken if slot in slots)}
    free = [slot for slot in slots if slot not in held]
    coming = [member.id for member in members if member.id not in kept]
    if len(coming) > len(free):
        needed = len(held) + len(coming)
        beside = f", {needed} with those that are taken" if taken else ""
        raise NotEnoughSlots(
            f"{len(members)} members need as many slots{beside}, and the stack has {len(slots)}; "
            f'raise the parameter "Slots" in template.yaml to 1,…,{needed} and deploy, or remove members'
        )
    given = dict(zip(coming, free, strict=False))
    return {member.id: kept.get(member.id) or given[member.id] for member in members}
