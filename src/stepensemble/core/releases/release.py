"""A release: a manifest compiled, immutable, named by the SHA-256 of its bytes.

A release names the artifact of each member by its digest. It does not mention slots, so the same manifest and artifacts
have the same digest on every stack. Which slot serves which member is the *placement*; it lives in the pointer to the
current release, and `place` computes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from stepensemble.core.errors import NotEnoughSlots, ReleaseCorrupt
from stepensemble.core.preprocessing.encoding import all_column_names
from stepensemble.core.schema.manifest import Feature, Manifest, input_columns, select_voters
from stepensemble.core.schema.outputs import Output
from stepensemble.core.schema.policy import Policy
from stepensemble.core.schema.task import Task

SHORT = 12
"""Digits of a digest that messages and tables show."""


class Artifact(Struct, frozen=True):
    """A model file, identified by its content."""

    digest: str
    size: int


class ReleasedMember(Struct, frozen=True, omit_defaults=True):
    """A member with everything resolved: the artifact by digest, the columns of each input named.

    Attributes:
        inputs: input name to its columns, in order; a single input is named "".
        varies: whether its output for a row may depend on the rows beside it or on the call. Omitted where false, so
            that earlier releases keep their digests.
        trusted: whether its SavedModel may do more than compute. Omitted where false, for the same reason.
    """

    id: str
    version: str
    artifact: Artifact
    runtime: str
    output: Output
    weight: float
    role: Literal["voter", "shadow"]
    timeout: int
    inputs: Mapping[str, tuple[str, ...]]
    signature: str | None
    tier: int
    varies: bool = False
    trusted: bool = False


class Release(Struct, frozen=True):
    """What a stack serves; see the module's docstring."""

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


class PastRelease(Struct, frozen=True):
    """A period in which a release was the current one; times are ISO 8601 in UTC.

    Attributes:
        since: None where an earlier version wrote the pointer without it.
    """

    release: str
    since: str | None
    until: str


class Canary(Struct, frozen=True):
    """A release that predicts for a share of the executions, beside the current one.

    Attributes:
        percent: of the executions, 1 to 99.
        since: when it started, ISO 8601 in UTC.
    """

    release: str
    slots: Mapping[str, str]
    percent: int
    since: str


class ReleasePointer(Struct, frozen=True):
    """The pointer: the current release and its placement, member id to slot.

    Attributes:
        since: when it became current, ISO 8601 in UTC; None where an earlier version wrote the pointer without it.
        history: what was current before, newest first.
    """

    release: str
    slots: Mapping[str, str]
    since: str | None = None
    history: tuple[PastRelease, ...] = ()
    canary: Canary | None = None


FORMAT = 3


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
                inputs=input_columns(member, columns),
                signature=member.signature,
                tier=member.tier,
                varies=member.varies,
                trusted=member.trusted == artifacts[member.id].digest,
            )
            for member in manifest.members
        ),
    )


def encode_release(release: Release) -> tuple[str, bytes]:
    """Return a release's digest and its bytes."""
    body = msgspec.json.encode(release, order="deterministic")
    return digest_of(body), body


def decode_release(digest: str, body: bytes) -> Release:
    """Decode a release.

    Raises:
        ReleaseCorrupt: the bytes do not have that digest, or are of a format this version does not know.
    """
    if digest_of(body) != digest:
        raise ReleaseCorrupt(f"release {digest[:SHORT]} does not match the digest in its name; publish again")
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


Slots = Mapping[str, Sequence[str]]
"""The names of a stack's slots, in order, by runtime."""


def name_add_on(stack: str) -> str:
    """Return the name of the stack of `template-tensorflow.yaml`, which holds a stack's slots for TensorFlow."""
    return f"{stack}-tensorflow"


def place(
    members: Sequence[ReleasedMember], slots: Slots, previous: Mapping[str, str], taken: Collection[str] = ()
) -> dict[str, str]:
    """Assign a slot of its runtime to every member: the one it had, or the first free one.

    Args:
        members: of the release to publish.
        slots: the stack's.
        previous: the placement before, member id to slot.
        taken: slots that are not free.

    Raises:
        NotEnoughSlots: a runtime has more members than slots.
    """
    placed: dict[str, str] = {}
    for runtime in dict.fromkeys(member.runtime for member in members):
        ids = [member.id for member in members if member.runtime == runtime]
        placed |= _place_alike(runtime, ids, slots.get(runtime, ()), previous, taken)
    return {member.id: placed[member.id] for member in members}


def _place_alike(
    runtime: str, ids: Sequence[str], slots: Sequence[str], previous: Mapping[str, str], taken: Collection[str]
) -> dict[str, str]:
    unmoved = {id_: previous[id_] for id_ in ids if previous.get(id_) in slots}
    others = {slot for slot in taken if slot in slots}
    held = {*unmoved.values(), *others}
    free = [slot for slot in slots if slot not in held]
    new = [id_ for id_ in ids if id_ not in unmoved]
    if len(new) > len(free):
        raise NotEnoughSlots(
            _explain_missing_slots(runtime, ids, len(slots), len(held) + len(new), beside=bool(others))
        )
    return unmoved | dict(zip(new, free, strict=False))


def _explain_missing_slots(runtime: str, ids: Sequence[str], slots: int, needed: int, *, beside: bool) -> str:
    tensorflow = runtime == "tensorflow"
    if tensorflow and not slots:
        return (
            f"TensorFlow is needed by {', '.join(ids)}, and the stack has no slots for it; "
            "deploy template-tensorflow.yaml beside it (make deploy-tensorflow), or convert the models to LiteRT. "
            "A local stack needs two things when it starts: template-tensorflow.yaml beside template.yaml, and "
            "TensorFlow (pip install 'stepensemble[tensorflow]'); add what is missing, and restart it if it runs"
        )
    who, letter, template = ("members for TensorFlow", "t", "-tensorflow") if tensorflow else ("members", "", "")
    with_taken = f", {needed} with those that are taken" if beside else ""
    return (
        f"{len(ids)} {who} need as many slots{with_taken}, and the stack has {slots}; raise the parameter "
        f'"Slots" in template{template}.yaml to {letter}1,…,{letter}{needed} and deploy, or remove members'
    )
