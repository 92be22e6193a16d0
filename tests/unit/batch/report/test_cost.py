from __future__ import annotations

import pytest

from builders import REGRESSION, release, released
from stepensemble.batch.report.cost import FunctionUse, MemberInvocations, count_transitions, sum_cost


def test_cost_is_the_sum_of_all_functions_by_hand() -> None:
    used = [FunctionUse("score", 1024, 3, 2.0), FunctionUse("plan", 512, 1, 4.0), FunctionUse("score", 1024, 1, 0.5)]
    cost = sum_cost(used, 1000)
    assert cost.functions == (FunctionUse("score", 1024, 4, 2.5), FunctionUse("plan", 512, 1, 4.0))
    assert cost.gb_seconds == 2.5 + 0.5 * 4
    assert cost.requests == 5
    # 4.5 GB-seconds for 75 millionths of a dollar, 5 requests for one millionth, 1,000 transitions for 2.5 cents.
    assert cost.dollars == pytest.approx(4.5 * 0.0000166667 + 0.000001 + 0.025)


def test_a_run_without_shards_has_only_the_transitions_of_the_run() -> None:
    assert sum_cost([], 0).dollars == 0
    assert count_transitions(release(REGRESSION, released("a")), 0, 0, [MemberInvocations(0, 0)]) == 5


def test_a_shard_passes_its_states_and_invokes_every_member() -> None:
    two = release(REGRESSION, released("a"), released("b"))
    # The run's 6; the child's start, Normalize, Any rows?, Score members, a, b, Aggregate, Next tier?, Shard ended.
    assert count_transitions(two, 1, 0, [MemberInvocations(1, 0), MemberInvocations(1, 0)]) == 6 + 9
    assert count_transitions(two, 5, 0, [MemberInvocations(5, 0), MemberInvocations(5, 0)]) == 6 + 5 * 9
    # A failed member passes one more state.
    assert count_transitions(two, 5, 0, [MemberInvocations(5, 0), MemberInvocations(5, 2)]) == 6 + 5 * 9 + 2
    # Without accepted rows: the start, Normalize, Any rows?, Aggregate, Next tier?, Shard ended.
    assert count_transitions(two, 5, 1, [MemberInvocations(4, 0), MemberInvocations(4, 0)]) == 6 + 4 * 9 + 6


def test_shadows_and_later_tiers_have_further_states() -> None:
    members = released("a"), released("b", tier=2), released("s", role="shadow")
    invoked = [MemberInvocations(10, 0), MemberInvocations(3, 0), MemberInvocations(10, 0)]
    first = 4 + 1 + 2 + 2 + 2  # the shard's; Parallel; two Maps; a and s; Aggregate, Next tier?
    second = 1 + 1 + 2  # Score members; b; Aggregate, Next tier?
    assert count_transitions(release(REGRESSION, *members), 10, 0, invoked) == 6 + 10 * first + 3 * second
