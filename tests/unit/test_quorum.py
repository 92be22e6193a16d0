from __future__ import annotations

import pytest

from builders import released
from stepensemble.core.quorum import Status, explain_failure, judge

VOTERS = [released("a"), released("b"), released("c", weight=0.0)]


@pytest.mark.parametrize(
    ("answered", "min_members", "status"),
    [
        ("abc", 2, "COMPLETE"),
        ("abc", 3, "COMPLETE"),
        ("ab", 2, "DEGRADED"),
        ("ac", 2, "DEGRADED"),
        ("a", 2, "FAILED"),
        ("", 1, "FAILED"),
        ("ab", 3, "FAILED"),
        ("c", 1, "FAILED"),  # it answered, and has no weight
        ("abcz", 3, "COMPLETE"),  # who is no voter does not count
        ("az", 2, "FAILED"),
    ],
)
def test_an_execution_is_judged_by_its_voters(answered: str, min_members: int, status: Status) -> None:
    assert judge(VOTERS, set(answered), min_members) == status


def test_a_failure_says_how_many_answered_and_who_is_missing() -> None:
    assert explain_failure(VOTERS, {"a"}, 2) == "1 of 3 voters answered, and the quorum is 2; missing: b, c"


def test_a_failure_for_want_of_weight_says_so() -> None:
    expected = "1 of 3 voters answered, and none of them has a weight above 0; missing: a, b"
    assert explain_failure(VOTERS, {"c"}, 1) == expected
