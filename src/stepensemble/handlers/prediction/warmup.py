"""What travels in a warm-up: which slot loads which models, and the results.

A slot is invoked once with all of its members, those of the canary included. Separate invocations at the same time
would start one environment for each member, and each would load only one of the models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from stepensemble.core.aggregation.output import MemberFailure
from stepensemble.core.releases.release import Artifact, Release, ReleasedMember
from stepensemble.handlers.current_release import ServedRelease
from stepensemble.handlers.prediction.member_results import name_failure
from stepensemble.serving.servables import Input, Servable, list_inputs


class MemberToLoad(Struct, frozen=True, omit_defaults=True):
    """The part of a member that its slot needs to load it and to predict one row of zeros.

    Attributes:
        inputs: input name to its type and the shape of a row, as in an execution; the input of a model with a single
            one is named "".
        output: name of the output to use, of a model that has several.
        trusted: as a release has it; left out where it is false.
    """

    runtime: str
    artifact: Artifact
    signature: str | None
    inputs: Mapping[str, Input]
    output: str | None
    trusted: bool = False


class MemberToWarm(MemberToLoad, frozen=True, kw_only=True):
    """A member as the state machine carries it, with the digest of its release."""

    id: str
    version: str
    role: Literal["voter", "shadow"]
    release: str


class SlotToLoad(Struct, frozen=True):
    """What a slot is sent for a warm-up."""

    members: tuple[MemberToLoad, ...]


class SlotToWarm(Struct, frozen=True):
    """A slot as the state machine carries it: `function` is its name, `timeout` is in seconds."""

    function: str
    timeout: int
    members: tuple[MemberToWarm, ...]


class Serving(Struct, frozen=True):
    """Digests of the releases that are served: the current one, and the canary if there is one."""

    release: str
    canary: str | None


def list_slots(served: Iterable[ServedRelease], function_prefix: str) -> tuple[SlotToWarm, ...]:
    """Return every slot that has members, with all of them; a member that two releases share is listed once.

    Args:
        served: releases with their digests and placements, the current one first.
        function_prefix: the name of every score function without its slot.
    """
    slots: dict[str, dict[tuple[str, ...], tuple[int, MemberToWarm]]] = {}
    for digest, placement, release in served:
        for member in release.members:
            known = slots.setdefault(f"{function_prefix}{placement[member.id]}", {})
            same = (
                member.id,
                member.version,
                member.runtime,
                member.artifact.digest,
                member.signature or "",
                str(member.trusted),
            )
            known.setdefault(same, (member.timeout, _describe(digest, release, member)))
    return tuple(
        # A slot loads its members one after the other, so it may take the sum of their timeouts.
        SlotToWarm(function, sum(timeout for timeout, _ in known.values()), tuple(one for _, one in known.values()))
        for function, known in slots.items()
    )


def _describe(digest: str, release: Release, member: ReleasedMember) -> MemberToWarm:
    return MemberToWarm(
        runtime=member.runtime,
        artifact=member.artifact,
        signature=member.signature,
        inputs=dict(zip(member.inputs, list_inputs(Servable(release, member)).values(), strict=True)),
        output=member.output.name,
        trusted=member.trusted,
        id=member.id,
        version=member.version,
        role=member.role,
        release=digest,
    )


class WarmedMember(Struct, frozen=True):
    """A member's load result.

    Attributes:
        release: its digest; the current one where the canary has the same member.
        function: the slot's.
        cold: whether the model had to be loaded; None, like `duration_ms`, where that failed.
        duration_ms: the time to load it, or to find it in memory, and to predict one row of zeros.
    """

    id: str
    version: str
    role: Literal["voter", "shadow"]
    release: str
    function: str
    cold: bool | None = None
    duration_ms: float | None = None
    error: MemberFailure | None = None


class WarmUp(Struct, frozen=True, kw_only=True):
    """The output of a warm-up: the releases that are served, and each member's load result, slot by slot."""

    warmup: Literal[True] = True
    release: str
    canary: str | None
    members: tuple[WarmedMember, ...]


def read_warm_up(event: Mapping[str, Any]) -> WarmUp:
    """Combine what Normalize returned (`warmup`, `slots`) with the slots' results (`results`, one a slot)."""
    served = msgspec.convert(event["warmup"], Serving)
    slots = msgspec.convert(event["slots"], tuple[SlotToWarm, ...])
    members = tuple(
        warmed for slot, result in zip(slots, event["results"], strict=True) for warmed in _read_slot(slot, result)
    )
    return WarmUp(release=served.release, canary=served.canary, members=members)


def _read_slot(slot: SlotToWarm, result: Mapping[str, Any]) -> Iterator[WarmedMember]:
    if "error" in result:
        failure = name_failure(str(result["error"]["Error"]), result["error"].get("Cause", ""))
        yield from (_report(slot, member, error=failure) for member in slot.members)
        return
    results: Sequence[Mapping[str, Any]] = result["members"]
    for member, one in zip(slot.members, results, strict=True):
        if "error" in one:
            yield _report(slot, member, error=msgspec.convert(one["error"], MemberFailure))
        else:
            yield _report(slot, member, cold=one["cold"], duration_ms=one["duration_ms"])


def _report(slot: SlotToWarm, member: MemberToWarm, **more: Any) -> WarmedMember:
    return WarmedMember(member.id, member.version, member.role, member.release, slot.function, **more)
