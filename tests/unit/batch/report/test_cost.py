from __future__ import annotations

import pytest

from builders import REGRESSION, release, released
from stepensemble.batch.report.cost import FunctionUse, MemberInvocations, add_up, count_transitions


def test_it_adds_up_by_hand() -> None:
    used = [FunctionUse("score", 1024, 3, 2.0), FunctionUse("plan", 512, 1, 4.0), FunctionUse("score", 1024, 1, 0.5)]
    cost = add_up(used, 1000)
    assert cost.used == (FunctionUse("score", 1024, 4, 2.5), FunctionUse("plan", 512, 1, 4.0))
    assert cost.gb_seconds == 2.5 + 0.5 * 4
    assert cost.requests == 5
    # 4.5 GB-seconds for 75 millionths of a dollar, 5 requests for one millionth, 1,000 transitions for 2.5 cents.
    assert cost.dollars == pytest.approx(4.5 * 0.0000166667 + 0.000001 + 0.025)


def test_a_run_without_anything_costs_nothing_but_its_frame() -> None:
    assert add_up([], 0).dollars == 0
    assert count_transitions(release(REGRESSION, released("a")), 0, 0, [MemberInvocations(0, 0)]) == 5


def test_a_shard_goes_through_its_states_and_asks_every_member() -> None:
    two = release(REGRESSION, released("a"), released("b"))
    # The frame's 6; the child's start, Normalize, Any rows?, Score members, a, b, Aggregate, Next tier?, Shard ended.
    assert count_transitions(two, 1, 0, [MemberInvocations(1, 0), MemberInvocations(1, 0)]) == 6 + 9
    assert count_transitions(two, 5, 0, [MemberInvocations(5, 0), MemberInvocations(5, 0)]) == 6 + 5 * 9
    # A failure is carried by a state of its own.
    assert count_transitions(two, 5, 0, [MemberInvocations(5, 0), MemberInvocations(5, 2)]) == 6 + 5 * 9 + 2
    # Without accepted rows: the start, Normalize, Any rows?, Aggregate, Next tier?, Shard ended.
    assert count_transitions(two, 5, 1, [MemberInvocations(4, 0), MemberInvocations(4, 0)]) == 6 + 4 * 9 + 6


def test_shadows_and_later_tiers_are_asked_in_states_of_their_own() -> None:
    members = released("a"), released("b", tier=2), released("s", role="shadow")
    asked = [MemberInvocations(10, 0), MemberInvocations(3, 0), MemberInvocations(10, 0)]
    first = 4 + 1 + 2 + 2 + 2  # the shard's; Parallel; two Maps; a and s; Aggregate, Next tier?
    second = 1 + 1 + 2  # Score members; b; Aggregate, Next tier?
    assert count_transitions(release(REGRESSION, *members), 10, 0, asked) == 6 + 10 * first + 3 * second
