"""A release: a manifest compiled, immutable, named by the SHA-256 of its bytes.

A release says which artifact (by digest) each member is; it says nothing of slots, so the same manifest and artifacts
have the same name on every stack. Which slot serves which member is the *placement*; it lives in the pointer to the
current release, and `place` computes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from stepensemble.core.errors import NotEnoughSlots, ReleaseCorrupt
from stepensemble.core.features import all_column_names
from stepensemble.core.manifest import Aggregation, Feature, Manifest, OutputKind, Task, voters

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
    output: OutputKind
    weight: float
    role: Literal["voter", "shadow"]
    timeout: int
    columns: tuple[str, ...]


class Release(Struct, frozen=True):
    """What a stack serves; see the module."""

    format: int
    name: str
    task: Task
    features: tuple[Feature, ...]
    aggregation: Aggregation
    min_members: int
    members: tuple[ReleasedMember, ...]

    @property
    def voters(self) -> tuple[ReleasedMember, ...]:
        """The members that count."""
        return tuple(member for member in self.members if member.role == "voter")


class Current(Struct, frozen=True):
    """The pointer: the current release and its placement, member id to slot."""

    release: str
    slots: Mapping[str, str]


FORMAT = 1


def compile_release(manifest: Manifest, artifacts: Mapping[str, Artifact]) -> Release:
    """Compile a manifest.

    Args:
        manifest: as parsed.
        artifacts: member id to the artifact's digest and size in bytes.
    """
    columns = all_column_names(manifest.features)
    min_members = manifest.quorum.min_members or len(voters(manifest.members)) // 2 + 1
    return Release(
        format=FORMAT,
        name=manifest.name,
        task=manifest.task,
        features=manifest.features,
        aggregation=manifest.aggregation,
        min_members=min_members,
        members=tuple(
            ReleasedMember(
                id=member.id,
                version=member.version,
                artifact=artifacts[member.id],
                runtime=member.runtime,
                output=member.output.kind,
                weight=member.weight,
                role=member.role,
                timeout=member.timeout,
                columns=columns if member.columns is None else member.columns,
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


def place(members: Sequence[ReleasedMember], slots: Sequence[str], previous: Mapping[str, str]) -> dict[str, str]:
    """Give every member a slot: the one it had where it had one, else the first free one.

    Args:
        members: of the release to publish.
        slots: the stack's slots, in order.
        previous: the placement until now, member id to slot.

    Raises:
        NotEnoughSlots: there are more members than slots.
    """
    if len(members) > len(slots):
        raise NotEnoughSlots(
            f"{len(members)} members need as many slots, and the stack has {len(slots)}; "
            f'raise the parameter "Slots" in template.yaml to 1,…,{len(members)} and deploy, or remove members'
        )
    kept = {member.id: previous[member.id] for member in members if previous.get(member.id) in slots}
    free = iter([slot for slot in slots if slot not in kept.values()])
    return {member.id: kept[member.id] if member.id in kept else next(free) for member in members}
