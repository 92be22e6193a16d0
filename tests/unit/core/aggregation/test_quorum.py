from __future__ import annotations

from itertools import chain, combinations
from typing import Any

import pytest

from builders import released
from stepensemble.core.aggregation.quorum import Status, explain_failure, least_members, quorum_status, weight_share
from stepensemble.core.schema.policy import (
    Aggregation,
    GeometricMean,
    HardVote,
    Mean,
    Median,
    Policy,
    Quorum,
    SoftVote,
    Stacking,
    WeightedMean,
    WeightedVote,
    override_quorum,
)

VOTERS = [released("a", weight=3.0), released("b", weight=1.0), released("c", weight=0.0)]
STACK = {"a": 1.0, "b": 1.0, "c": 1.0}
ONE = Quorum(min_members=1)


def policy(quorum: Quorum = ONE, aggregation: Aggregation = Mean()) -> Policy:  # noqa: B008 # frozen
    return Policy(aggregation, quorum)


@pytest.mark.parametrize(
    ("quorum", "responded", "status"),
    [
        (Quorum(min_members=2), "abc", "COMPLETE"),
        (Quorum(min_members=3), "abc", "COMPLETE"),
        (Quorum(min_members=2), "ab", "DEGRADED"),
        (Quorum(min_members=2), "ac", "DEGRADED"),
        (Quorum(min_members=2), "a", "FAILED"),
        (Quorum(min_members=3), "ab", "FAILED"),
        (Quorum(min_members=1), "", "FAILED"),
        (Quorum(), "ab", "DEGRADED"),  # more than half of three
        (Quorum(), "a", "FAILED"),
        (Quorum(min_members=3), "abcz", "COMPLETE"),  # a member that is no voter does not count
        (Quorum(min_members=2), "az", "FAILED"),
        (Quorum(min_members=1, min_weight=0.75), "a", "DEGRADED"),  # 3 of 4
        (Quorum(min_members=1, min_weight=0.76), "a", "FAILED"),
        (Quorum(min_members=1, min_weight=0.25), "bc", "DEGRADED"),
        (Quorum(min_members=1, min_weight=0.26), "bc", "FAILED"),
        (Quorum(min_members=1, min_weight=1.0), "ab", "DEGRADED"),  # c has no weight
        (Quorum(min_members=1, required=("b",)), "bc", "DEGRADED"),
        (Quorum(min_members=1, required=("b",)), "ac", "FAILED"),
        (Quorum(min_members=1, required=("a", "b")), "ab", "DEGRADED"),
        (Quorum(min_members=1, required=("a", "b")), "ac", "FAILED"),
        (Quorum(min_members=2, min_weight=0.75, required=("c",)), "ac", "DEGRADED"),
        (Quorum(min_members=2, min_weight=0.75, required=("c",)), "bc", "FAILED"),
        (Quorum(min_members=2, min_weight=0.75, required=("c",)), "ab", "FAILED"),
        (Quorum(min_members=3, min_weight=0.75, required=("c",)), "ac", "FAILED"),
    ],
)
def test_the_status_depends_on_the_voters_that_responded(quorum: Quorum, responded: str, status: Status) -> None:
    assert quorum_status(policy(quorum), VOTERS, set(responded)) == status


@pytest.mark.parametrize("min_members", [None, 1, 2, 3])
@pytest.mark.parametrize("min_weight", [None, 0.25, 0.75, 1.0])
@pytest.mark.parametrize("required", [(), ("b",), ("a", "c")])
@pytest.mark.parametrize("aggregation", [Mean(), WeightedMean(), Stacking(coefficients=STACK, missing="refuse")])
def test_every_part_must_hold(min_members: Any, min_weight: Any, required: Any, aggregation: Aggregation) -> None:
    quorum = Quorum(min_members=min_members, min_weight=min_weight, required=required)
    weights = {"a": 3, "b": 1, "c": 0}
    for responded in chain.from_iterable(combinations("abc", count) for count in range(4)):
        weight = sum(weights[id_] for id_ in responded)
        holds = (
            len(responded) >= (min_members or 2)
            and weight / 4 >= (min_weight or 0)
            and set(required) <= set(responded)
            and (weight > 0 or not isinstance(aggregation, WeightedMean))
            and (len(responded) == 3 or not isinstance(aggregation, Stacking))
        )
        expected = "FAILED" if not holds else "COMPLETE" if len(responded) == 3 else "DEGRADED"
        assert quorum_status(policy(quorum, aggregation), VOTERS, responded) == expected, responded


@pytest.mark.parametrize(("invoked", "least"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (8, 5)])
def test_more_than_half_of_the_invoked_must_respond_by_default(invoked: int, least: int) -> None:
    assert least_members(Quorum(), invoked) == least
    assert least_members(Quorum(min_members=1), invoked) == 1


def test_only_the_invoked_voters_count() -> None:
    first_tier = VOTERS[:2]
    assert quorum_status(policy(Quorum()), first_tier, {"a", "b"}) == "COMPLETE"
    assert quorum_status(policy(Quorum(min_weight=0.75)), [VOTERS[0]], {"a"}) == "COMPLETE"
    assert quorum_status(policy(Quorum(required=("c",))), first_tier, {"a", "b"}) == "COMPLETE"
    assert quorum_status(policy(Quorum(min_members=3)), first_tier, {"a", "b"}) == "FAILED"
    assert quorum_status(policy(Quorum()), [], set()) == "FAILED"


@pytest.mark.parametrize("aggregation", [WeightedMean(), GeometricMean(), SoftVote(), WeightedVote()])
def test_a_method_that_weights_needs_a_weight(aggregation: Aggregation) -> None:
    assert quorum_status(policy(aggregation=aggregation), VOTERS, {"c"}) == "FAILED"
    assert quorum_status(policy(aggregation=aggregation), VOTERS, {"b"}) == "DEGRADED"


@pytest.mark.parametrize("aggregation", [Mean(), Median(), HardVote(), Stacking(coefficients=STACK, missing="mean")])
def test_other_methods_do_not(aggregation: Aggregation) -> None:
    assert quorum_status(policy(aggregation=aggregation), VOTERS, {"c"}) == "DEGRADED"


def test_rounding_does_not_miss_the_share_of_the_weight() -> None:
    # 0.1 + 0.2 + 0.3 is 0.6000000000000001, of which 0.3 is less than half by 1e-16.
    voters = [released(id_, weight=weight) for id_, weight in [("a", 0.1), ("b", 0.2), ("c", 0.3)]]
    assert weight_share(voters, {"c"}) < 0.5
    assert quorum_status(policy(Quorum(min_members=1, min_weight=0.5)), voters, {"c"}) == "DEGRADED"


def test_where_no_voter_has_a_weight_voters_are_counted() -> None:
    weightless = [released(id_, weight=0.0) for id_ in "abcd"]
    assert weight_share(weightless, {"a", "b", "c"}) == 0.75
    assert weight_share(VOTERS, {"a"}) == 0.75
    assert weight_share([], set()) == 0


@pytest.mark.parametrize(
    ("quorum", "aggregation", "responded", "sentence"),
    [
        (Quorum(), Mean(), "a", "1 of 3 voters responded, and the quorum is 2; missing: b, c"),
        (
            Quorum(min_members=1, min_weight=0.5),
            Mean(),
            "bc",
            "2 of 3 voters responded, and their share of the weight is 0.25, below 0.5; missing: a",
        ),
        (
            Quorum(min_members=1, required=("b",)),
            Mean(),
            "ac",
            "2 of 3 voters responded, and b is required; missing: b",
        ),
        (
            Quorum(min_weight=0.5, required=("a", "b")),
            Mean(),
            "c",
            "1 of 3 voters responded, and the quorum is 2; their share of the weight is 0, below 0.5; "
            "a, b are required; missing: a, b",
        ),
        (
            ONE,
            Stacking(coefficients=STACK, missing="refuse"),
            "ab",
            "2 of 3 voters responded, and the stack needs every voter; missing: c",
        ),
        (
            ONE,
            WeightedMean(),
            "c",
            "1 of 3 voters responded, and none of them has a weight above 0; missing: a, b",
        ),
        # Where no voter responded there are no further reasons.
        (
            Quorum(min_weight=0.5, required=("a",)),
            WeightedMean(),
            "",
            "0 of 3 voters responded, and the quorum is 2; missing: a, b, c",
        ),
    ],
)
def test_a_failure_names_what_is_missing(
    quorum: Quorum, aggregation: Aggregation, responded: str, sentence: str
) -> None:
    assert explain_failure(policy(quorum, aggregation), VOTERS, set(responded)) == sentence


def test_an_execution_may_have_a_quorum_of_its_own() -> None:
    declared = policy(Quorum(min_members=2, min_weight=0.5))
    eased = override_quorum(declared, {"min_members": 1})
    assert eased == policy(Quorum(min_members=1, min_weight=0.5))
    assert (quorum_status(declared, VOTERS, {"a"}), quorum_status(eased, VOTERS, {"a"})) == ("FAILED", "DEGRADED")
