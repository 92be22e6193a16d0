"""What a run took of what AWS charges for: Lambda's memory by time, its requests, and state transitions.

Times are measured inside the functions, so Lambda's own, a start's or the last millisecond's rounding, are not in them.
A state that is tried again is another transition and another request; those are not known here. Left out, as far less,
are what S3 and logs cost and the one call each of Plan and Summarize.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from stepensemble.core.releases.release import Release

GB_SECOND, REQUEST, TRANSITION = 0.0000166667, 0.20 / 1e6, 0.025 / 1e3
"""Dollars, as listed for us-east-1 and x86 at https://aws.amazon.com/lambda/pricing/ and
https://aws.amazon.com/step-functions/pricing/ in 2026; free tiers are not counted."""

FRAME_TRANSITIONS = 6
"""Of a run: Plan, Planned?, Run shards, Summarize, Summarized?, Succeed or Fail."""

RESUMED_TRANSITIONS = 5
"""The same where no shard is left to do."""

SHARD_TRANSITIONS = 4
"""Of a shard: its start, which Distributed Map is charged for, Normalize shard, Any rows?, Shard ended."""

ROUND_TRANSITIONS = 3
"""Of a tier of a shard: Score members, Aggregate shard, Next tier?; with the members that are asked one each."""

SHADOWS_TRANSITIONS = 2
"""Of a tier with shadows more: the Parallel has two Maps in it."""

UNASKED_TRANSITIONS = 2
"""Of a shard without accepted rows: Aggregate shard, Next tier?."""


class FunctionUse(Struct, frozen=True):
    """Invocations of one function, or of several with as much memory (MB)."""

    function: str
    memory: int
    requests: int
    seconds: float

    @property
    def gb_seconds(self) -> float:
        """What Lambda charges for."""
        return self.memory / 1024 * self.seconds


class MemberInvocations(Struct, frozen=True):
    """In how many shards a member was asked, and in how many of these it did not answer."""

    shards: int
    failures: int


class Cost(Struct, frozen=True):
    """What a run took; `dollars` by list prices."""

    used: tuple[FunctionUse, ...]
    gb_seconds: float
    requests: int
    state_transitions: int
    dollars: float


def add_up(used: Iterable[FunctionUse], state_transitions: int) -> Cost:
    """Add up what a run took; invocations of the same function, with the same memory, become one entry."""
    by_function: dict[tuple[str, int], FunctionUse] = {}
    for one in used:
        key = (one.function, one.memory)
        before = by_function.get(key, FunctionUse(*key, 0, 0.0))
        by_function[key] = FunctionUse(*key, before.requests + one.requests, before.seconds + one.seconds)
    whole = tuple(by_function.values())
    gb_seconds = sum(one.gb_seconds for one in whole)
    requests = sum(one.requests for one in whole)
    dollars = gb_seconds * GB_SECOND + requests * REQUEST + state_transitions * TRANSITION
    return Cost(whole, gb_seconds, requests, state_transitions, dollars)


def count_transitions(release: Release, shards: int, unasked: int, asked: Sequence[MemberInvocations]) -> int:
    """Return the state transitions of a run whose shards were all done at once, none of them tried again.

    `statemachine/batch.asl.json` says what they are; a test holds that the two agree.

    Args:
        release: whose members were asked.
        shards: how many were done.
        unasked: how many of these had no accepted rows.
        asked: of each member, in the release's order.
    """
    if not shards:
        return RESUMED_TRANSITIONS
    transitions = FRAME_TRANSITIONS + SHARD_TRANSITIONS * shards + UNASKED_TRANSITIONS * unasked
    transitions += sum(one.shards + one.failures for one in asked)
    roles: dict[tuple[int, str], int] = {}
    for member, one in zip(release.members, asked, strict=True):
        key = (member.tier, member.role)
        roles[key] = max(roles.get(key, 0), one.shards)
    for tier in range(1, release.tiers + 1):
        transitions += ROUND_TRANSITIONS * roles.get((tier, "voter"), 0)
        transitions += SHADOWS_TRANSITIONS * roles.get((tier, "shadow"), 0)
    return transitions
