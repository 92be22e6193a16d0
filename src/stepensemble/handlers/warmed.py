"""What a warm-up came to: the output of its execution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from stepensemble.core.answer import MemberFailure
from stepensemble.handlers.results import name_failure
from stepensemble.handlers.warming import MemberToWarm, Serving, SlotToWarm


class WarmedMember(Struct, frozen=True):
    """What became of a member.

    Attributes:
        release: its digest; the current one where the canary has the same member.
        function: the slot's.
        cold: whether the model had to be loaded; None where that failed, as is `duration_ms`.
        duration_ms: what loading it took, or finding it there, and asking it one row of zeros.
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
    """The output: which releases answer, and what became of each member of theirs, slot by slot."""

    warmup: Literal[True] = True
    release: str
    canary: str | None
    members: tuple[WarmedMember, ...]


def read_warm_up(event: Mapping[str, Any]) -> WarmUp:
    """Put together what Normalize has said (`warmup`, `slots`) and what came back (`results`, one a slot)."""
    served = msgspec.convert(event["warmup"], Serving)
    slots = msgspec.convert(event["slots"], tuple[SlotToWarm, ...])
    members = tuple(
        warmed for slot, result in zip(slots, event["results"], strict=True) for warmed in _read_slot(slot, result)
    )
    return WarmUp(release=served.release, canary=served.canary, members=members)


def _read_slot(slot: SlotToWarm, result: Mapping[str, Any]) -> Iterator[WarmedMember]:
    if "error" in result:
        failure = name_failure(str(result["error"]["Error"]), result["error"].get("Cause", ""))
        yield from (_note(slot, member, error=failure) for member in slot.members)
        return
    told: Sequence[Mapping[str, Any]] = result["members"]
    for member, one in zip(slot.members, told, strict=True):
        if "error" in one:
            yield _note(slot, member, error=msgspec.convert(one["error"], MemberFailure))
        else:
            yield _note(slot, member, cold=one["cold"], duration_ms=one["duration_ms"])


def _note(slot: SlotToWarm, member: MemberToWarm, **more: Any) -> WarmedMember:
    return WarmedMember(member.id, member.version, member.role, member.release, slot.function, **more)
