"""Estimates what AWS charges for a run: Lambda's memory by time, its requests, and state transitions.

Times are measured inside the functions, so the start of a function and the rounding to a millisecond are not included.
Retries are further transitions and requests, and are not counted, since they are not known here. S3, logs, and the
single invocations of Plan and Summarize cost far less and are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from stepensemble.core.releases.release import Release

GB_SECOND, REQUEST, TRANSITION = 0.0000166667, 0.20 / 1e6, 0.025 / 1e3
"""Dollars, as listed for us-east-1 and x86 at https://aws.amazon.com/lambda/pricing/ and
https://aws.amazon.com/step-functions/pricing/ in 2026; free tiers are not counted."""

RUN_TRANSITIONS = 6
"""Transitions of a run: Plan, Planned?, Run shards, Summarize, Summarized?, Succeed or Fail."""

RESUMED_TRANSITIONS = 5
"""Transitions of a run of which no shard is left to do."""

SHARD_TRANSITIONS = 4
"""Transitions of a shard: its start, which Distributed Map is charged for, Normalize shard, Any rows?, Shard ended."""

TIER_TRANSITIONS = 3
"""Transitions of a tier of a shard: Score members, Aggregate shard, Next tier?. Each invoked member is one more."""

SHADOWS_TRANSITIONS = 2
"""Further transitions of a tier with shadows: its Parallel has two Maps."""

EMPTY_SHARD_TRANSITIONS = 2
"""Transitions of a shard without accepted rows: Aggregate shard, Next tier?."""


class FunctionUse(Struct, frozen=True):
    """Invocations of one function, or of several with the same memory; `seconds` is their time together."""

    function: str
    memory_mb: int
    requests: int
    seconds: float

    @property
    def gb_seconds(self) -> float:
        """Memory in GB multiplied by seconds, which Lambda charges for."""
        return self.memory_mb / 1024 * self.seconds


class MemberInvocations(Struct, frozen=True):
    """In how many shards a member was invoked, and in how many of these it failed."""

    shards: int
    failures: int


class Cost(Struct, frozen=True):
    """The resources that a run used; `dollars` by list prices."""

    functions: tuple[FunctionUse, ...]
    gb_seconds: float
    requests: int
    state_transitions: int
    dollars: float


def sum_cost(used: Iterable[FunctionUse], state_transitions: int) -> Cost:
    """Sum the resources of a run; invocations of the same function with the same memory become one entry."""
    by_function: dict[tuple[str, int], FunctionUse] = {}
    for one in used:
        key = (one.function, one.memory_mb)
        before = by_function.get(key, FunctionUse(*key, 0, 0.0))
        by_function[key] = FunctionUse(*key, before.requests + one.requests, before.seconds + one.seconds)
    functions = tuple(by_function.values())
    gb_seconds = sum(one.gb_seconds for one in functions)
    requests = sum(one.requests for one in functions)
    dollars = gb_seconds * GB_SECOND + requests * REQUEST + state_transitions * TRANSITION
    return Cost(functions, gb_seconds, requests, state_transitions, dollars)


def count_transitions(release: Release, shards: int, empty: int, invoked: Sequence[MemberInvocations]) -> int:
    """Return the state transitions of a run that did all shards in one execution, without retries.

    The states are those of `statemachine/batch.asl.json`; a test compares the two.

    Args:
        release: whose members were invoked.
        shards: how many shards were done.
        empty: how many of these had no accepted rows.
        invoked: of each member, in the release's order.
    """
    if not shards:
        return RESUMED_TRANSITIONS
    transitions = RUN_TRANSITIONS + SHARD_TRANSITIONS * shards + EMPTY_SHARD_TRANSITIONS * empty
    transitions += sum(one.shards + one.failures for one in invoked)
    roles: dict[tuple[int, str], int] = {}
    for member, one in zip(release.members, invoked, strict=True):
        key = (member.tier, member.role)
        roles[key] = max(roles.get(key, 0), one.shards)
    for tier in range(1, release.tiers + 1):
        transitions += TIER_TRANSITIONS * roles.get((tier, "voter"), 0)
        transitions += SHADOWS_TRANSITIONS * roles.get((tier, "shadow"), 0)
    return transitions
