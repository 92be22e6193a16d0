"""Tiers, shadows and reviews, over canonical outputs. Laws of the prediction itself are in `test_laws`."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from numpy.testing import assert_equal

from builders import BINARY, REGRESSION, THREE, Supply, released
from stepensemble.core.aggregation.classification import ABSTAINED
from stepensemble.core.aggregation.decision import Decision, DecisionRules, Undecided, decide_rows
from stepensemble.core.aggregation.output_source import MemberResult, Results
from stepensemble.core.aggregation.pooling import Vote
from stepensemble.core.aggregation.row_predictions import RowPredictions, ShadowOutput, meets_confidence, predict_rows
from stepensemble.core.releases.release import ReleasedMember
from stepensemble.core.schema.outputs import Label
from stepensemble.core.schema.policy import (
    Aggregation,
    Confidence,
    HardVote,
    Mean,
    Policy,
    Quorum,
    SoftVote,
    Stacking,
    WeightedMean,
)
from strategies import METHODS, Case, cases, shadows

UNANIMOUS = Confidence(min_agreement=1.0)
ONE = Quorum(min_members=1)


def voter(id_: str, tier: int = 1, weight: float = 1.0) -> ReleasedMember:
    return released(id_, "probability", tier=tier, weight=weight)


def binary(*seconds: float) -> Any:
    """Return one member's output for several rows, by its probability of the second class."""
    return np.array([[1.0 - second, second] for second in seconds])


class Panel:
    """Members with canonical outputs for each row, an `OutputSource` that notes the requests.

    A member without outputs has failed.
    """

    def __init__(self, *members: ReleasedMember, **outputs: Any) -> None:
        self.members, self.outputs = members, outputs
        self.requests: list[tuple[int, list[int]]] = []

    def get_results(self, tier: int, rows: Any) -> Results:
        self.requests.append((tier, rows.tolist()))
        present = [member.id for member in self.members if member.tier == tier and member.id in self.outputs]
        return {id_: MemberResult(id_, canonical=self.outputs[id_][rows]) for id_ in present}

    def decide(self, policy: Policy, *, task: Any = BINARY, rows: int = 4) -> Decision:
        decision = decide_rows(DecisionRules(task, policy, self.members), rows, self)
        assert isinstance(decision, Decision)
        return decision


def where(decision: Decision) -> dict[int, tuple[int, int]]:
    """Return each row's tier and label."""
    found: dict[int, tuple[int, int]] = {}
    for part in decision.decided:
        assert part.predictions.classes is not None
        labels = part.predictions.classes.label.tolist()
        found |= {row: (part.tier, label) for row, label in zip(part.numbers.tolist(), labels, strict=True)}
    return found


TWO_TIERS = (voter("a"), voter("b"), voter("c", tier=2))
OUTPUTS = {"a": binary(0.9, 0.9, 0.1, 0.4), "b": binary(0.8, 0.2, 0.2, 0.6), "c": binary(0, 0, 1, 1)}


def test_without_a_cascade_one_tier_decides_every_row() -> None:
    panel = Panel(voter("a"), voter("b"), a=OUTPUTS["a"], b=OUTPUTS["b"])
    decision = panel.decide(Policy())
    assert panel.requests == [(1, [0, 1, 2, 3])]
    assert (decision.status, decision.cause) == ("COMPLETE", None)
    assert where(decision) == {0: (1, 1), 1: (1, 1), 2: (1, 0), 3: (1, 1)}
    assert (list(decision.reached), decision.weights) == ([1], {"a": 0.5, "b": 0.5})


def test_rows_of_which_the_first_tier_is_certain_do_not_reach_the_second() -> None:
    panel = Panel(*TWO_TIERS, **OUTPUTS)
    decision = panel.decide(Policy(cascade=UNANIMOUS))
    assert panel.requests == [(1, [0, 1, 2, 3]), (2, [1, 3])]
    # Rows 0 and 2 are unanimous; of 1 and 3 all three decide: means 1.1 / 3 and 2 / 3.
    assert where(decision) == {0: (1, 1), 2: (1, 0), 1: (2, 0), 3: (2, 1)}
    assert [part.voters for part in decision.decided] == [("a", "b"), ("a", "b", "c")]
    assert decision.weights == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})


def test_a_tier_that_no_row_needs_is_not_invoked() -> None:
    panel = Panel(*TWO_TIERS, a=OUTPUTS["a"], b=OUTPUTS["a"], c=OUTPUTS["c"])
    decision = panel.decide(Policy(cascade=UNANIMOUS))
    assert panel.requests == [(1, [0, 1, 2, 3])]
    assert (decision.status, list(decision.results), decision.weights) == ("COMPLETE", ["a", "b"], {"a": 0.5, "b": 0.5})


def test_each_of_three_tiers_gets_the_rows_that_are_left() -> None:
    members = [voter("a"), voter("b", tier=2), voter("c", tier=3)]
    outputs = {"a": binary(0.95, 0.7, 0.6, 0.5), "b": binary(1, 1, 0.6, 0.5), "c": binary(1, 1, 1, 0)}
    panel = Panel(*members, **outputs)
    decision = panel.decide(Policy(cascade=Confidence(min_margin=0.6)))
    # Margins: 0.9 and less; then of the means 0.85 and less; the last tier decides the rest.
    assert panel.requests == [(1, [0, 1, 2, 3]), (2, [1, 2, 3]), (3, [2, 3])]
    assert where(decision) == {0: (1, 1), 1: (2, 1), 2: (3, 1), 3: (3, 0)}


def test_a_tier_without_a_quorum_decides_nothing() -> None:
    panel = Panel(*TWO_TIERS, a=OUTPUTS["a"], c=OUTPUTS["c"])  # b has failed, and one of two is not more than half
    decision = panel.decide(Policy(cascade=UNANIMOUS))
    assert panel.requests == [(1, [0, 1, 2, 3]), (2, [0, 1, 2, 3])]
    assert decision.status == "DEGRADED"
    assert where(decision) == {0: (2, 0), 1: (2, 0), 2: (2, 1), 3: (2, 1)}  # means 0.45, 0.45, 0.55, 0.7


def test_if_no_member_of_a_tier_responds_the_tiers_before_decide() -> None:
    decision = Panel(*TWO_TIERS, a=OUTPUTS["a"], b=OUTPUTS["b"]).decide(Policy(cascade=UNANIMOUS))
    assert decision.status == "DEGRADED"  # c was invoked
    assert where(decision) == {0: (1, 1), 2: (1, 0), 1: (2, 1), 3: (2, 1)}
    assert decision.weights == {"a": 0.5, "b": 0.5}


def test_without_a_quorum_at_the_last_tier_nothing_is_decided() -> None:
    policy = Policy(quorum=Quorum(required=("c",)), cascade=UNANIMOUS)
    decision = Panel(*TWO_TIERS, a=OUTPUTS["a"], b=OUTPUTS["b"]).decide(policy)
    assert (decision.status, decision.decided, decision.weights) == ("FAILED", (), {})
    assert decision.cause == "2 of 3 voters responded, and c is required; missing: c"
    assert list(decision.results) == ["a", "b", "c"]


def test_one_tier_without_a_quorum_fails() -> None:
    decision = Panel(voter("a"), voter("b"), a=OUTPUTS["a"]).decide(Policy())
    assert (decision.status, decision.cause) == ("FAILED", "1 of 2 voters responded, and the quorum is 2; missing: b")


@pytest.mark.parametrize(("computed", "tier", "rows"), [(0, 1, [0, 1, 2, 3]), (1, 2, [1, 2, 3]), (2, 3, [2, 3])])
def test_undecided_names_the_next_tier_and_its_rows(computed: int, tier: int, rows: list[int]) -> None:
    members = [voter("a"), voter("b", tier=2), voter("c", tier=3)]
    panel = Panel(*members, a=binary(0.95, 0.7, 0.6, 0.5), b=binary(1, 1, 0.6, 0.5))

    source = Supply(lambda tier, numbers: panel.get_results(tier, numbers) if tier <= computed else None)
    undecided = decide_rows(DecisionRules(BINARY, Policy(cascade=Confidence(min_margin=0.6)), members), 4, source)
    assert isinstance(undecided, Undecided)
    assert (undecided.tier, undecided.numbers.tolist()) == (tier, rows)


def test_a_regression_goes_to_the_next_tier_where_its_spread_is_large() -> None:
    outputs = {"a": np.array([1.0, 1.0]), "b": np.array([1.2, 4.0]), "c": np.array([9.0, 10.0])}
    panel = Panel(*TWO_TIERS, **outputs)
    decision = panel.decide(Policy(cascade=Confidence(max_spread=0.5)), task=REGRESSION, rows=2)
    assert panel.requests == [(1, [0, 1]), (2, [1])]
    assert [part.predictions.value.tolist() for part in decision.decided] == [[1.1], [5.0]]


@st.composite
def cascades(draw: st.DrawFn) -> tuple[Case, Policy, Panel, Panel]:
    """Draw a case, its voters in up to three tiers, and the same with shadows among them; some have failed."""
    case = draw(cases(methods=METHODS - {"stack"}))
    count = len(case.votes)
    tiers = sorted(draw(st.lists(st.integers(1, 3), min_size=count, max_size=count)))
    tiers = [sorted(set(tiers)).index(tier) + 1 for tier in tiers]
    voters = [voter(vote.id, tier, vote.weight) for vote, tier in zip(case.votes, tiers, strict=True)]
    failed = draw(st.sets(st.sampled_from([vote.id for vote in case.votes])))
    outputs = {vote.id: vote.output for vote in case.votes if vote.id not in failed}
    extra = draw(shadows(case.task, case.rows))
    followers = [structs.replace(member, tier=draw(st.integers(1, max(tiers)))) for member, _ in extra]
    of_shadows = {member.id: output for member, output in extra if draw(st.booleans())}
    cascade = draw(st.sampled_from([Confidence(min_agreement=0.7), Confidence(max_spread=0.2), Confidence()]))
    policy = Policy(case.aggregation, ONE, Confidence(min_margin=0.3), cascade if max(tiers) > 1 else None)
    return case, policy, Panel(*voters, **outputs), Panel(*followers, *voters, **of_shadows, **outputs)


@given(cascades())
def test_law_every_row_is_predicted_once_by_the_voters_of_the_tiers_it_reached(drawn: Any) -> None:
    case, policy, panel, _ = drawn
    decision = panel.decide(policy, task=case.task, rows=case.rows)
    numbers = [row for part in decision.decided for row in part.numbers.tolist()]
    assert sorted(numbers) == (list(range(case.rows)) if decision.status != "FAILED" else [])
    last = max(member.tier for member in panel.members)
    for part in decision.decided:
        reached = [member for member in panel.members if member.tier <= part.tier and member.id in panel.outputs]
        votes = [Vote(member.id, member.weight, panel.outputs[member.id][part.numbers]) for member in reached]
        assert part.voters == tuple(vote.id for vote in votes)
        if len(part.numbers):
            assert_equal(asdict(part.predictions), asdict(predict_rows(case.task, policy, votes)))
        if part.tier < last:
            assert policy.cascade is not None
            assert meets_confidence(policy.cascade, part.predictions).all()


@given(cascades())
def test_law_shadows_do_not_change_status_labels_and_weights(drawn: Any) -> None:
    case, policy, panel, shadowed = drawn
    one = panel.decide(policy, task=case.task, rows=case.rows)
    other = shadowed.decide(policy, task=case.task, rows=case.rows)
    assert shadowed.requests == panel.requests
    assert (other.status, other.cause, other.weights) == (one.status, one.cause, one.weights)
    assert len(other.decided) == len(one.decided)
    for part, same in zip(other.decided, one.decided, strict=True):
        assert (part.tier, part.voters, part.numbers.tolist()) == (same.tier, same.voters, same.numbers.tolist())
        assert_equal(asdict(replace(part.predictions, shadows={})), asdict(same.predictions))


def predict_one(policy: Policy, *seconds: float, task: Any = BINARY) -> RowPredictions:
    """Predict one row from voters' probabilities of the second class."""
    votes = [Vote(str(number), 1.0, binary(second)) for number, second in enumerate(seconds)]
    return predict_rows(task, policy, votes)


@pytest.mark.parametrize(
    ("bounds", "review"),
    [
        # Voters 0.9, 0.7, 0.4: agreement 2 / 3, mean 2 / 3 and so margin 1 / 3, spread 0.2055.
        (Confidence(min_agreement=0.6), False),
        (Confidence(min_agreement=2 / 3), False),
        (Confidence(min_agreement=0.7), True),
        (Confidence(min_margin=0.33), False),
        (Confidence(min_margin=0.34), True),
        (Confidence(max_spread=0.206), False),
        (Confidence(max_spread=0.205), True),
        (Confidence(min_agreement=0.6, min_margin=0.33, max_spread=0.206), False),
        (Confidence(min_agreement=0.6, min_margin=0.33, max_spread=0.205), True),
        (Confidence(), False),
    ],
)
def test_a_row_that_misses_a_bound_is_for_review(bounds: Confidence, review: bool) -> None:
    assert predict_one(Policy(review=bounds), 0.9, 0.7, 0.4).review.tolist() == [review]


def test_rounding_does_not_miss_a_bound() -> None:
    assert 0.6 - (1 - 0.6) < 0.2
    assert not predict_one(Policy(review=Confidence(min_margin=0.2)), 0.6).review[0]
    predictions = predict_one(Policy(review=Confidence(max_spread=0.15)), 0.1, 0.4)
    assert predictions.spread.std[0] > 0.15
    assert not predictions.review[0]


def test_without_bounds_nothing_is_for_review() -> None:
    assert not predict_one(Policy(), 0.9, 0.1).review[0]


def test_a_row_without_a_label_is_for_review_whatever_the_bounds() -> None:
    policy = Policy(HardVote(tie="abstain"), review=Confidence(max_spread=1))
    predictions = predict_one(policy, 0.9, 0.1)
    assert predictions.classes is not None
    assert (predictions.classes.label.tolist(), predictions.review.tolist()) == ([ABSTAINED], [True])


def test_a_regression_is_reviewed_by_its_spread_alone() -> None:
    votes = [Vote("a", 1.0, np.array([1.0, 1.0])), Vote("b", 1.0, np.array([2.0, 4.0]))]
    policy = Policy(review=Confidence(max_spread=1, min_agreement=1, min_margin=1))
    assert predict_rows(REGRESSION, policy, votes).review.tolist() == [False, True]


def compare_shadow(aggregation: Aggregation, shadow: ReleasedMember, outputs: Any, *seconds: float) -> tuple[Any, Any]:
    """Return whether a shadow agrees and flips in one row."""
    votes = [Vote(str(number), 1.0, binary(second)) for number, second in enumerate(seconds)]
    found = predict_rows(BINARY, Policy(aggregation), votes, [ShadowOutput(shadow, outputs)]).shadows[shadow.id]
    return found.agrees.tolist(), None if found.flips is None else found.flips.tolist()


def test_a_shadow_flips_the_labels_that_its_vote_would_change() -> None:
    # Voters 0.6 and 0.6: a third at 0.3 leaves a mean of exactly 0.5, one at 0.2 less.
    shadow = released("shadow", "probability", role="shadow")
    assert compare_shadow(Mean(), shadow, binary(0.8), 0.6, 0.6) == ([True], [False])
    assert compare_shadow(Mean(), shadow, binary(0.3), 0.6, 0.6) == ([False], [False])
    assert compare_shadow(Mean(), shadow, binary(0.2), 0.6, 0.6) == ([False], [True])
    heavy = released("shadow", "probability", role="shadow", weight=2.0)
    assert compare_shadow(WeightedMean(), heavy, binary(0.3), 0.6, 0.6) == ([False], [True])


def test_a_shadow_that_cannot_be_counted_flips_nothing() -> None:
    label, certain = (released("s", Label(one_hot=one_hot), role="shadow") for one_hot in (False, True))
    for method in (Mean(), SoftVote()):
        assert compare_shadow(method, label, binary(0), 0.6) == ([False], None)
        assert compare_shadow(method, certain, binary(0), 0.6) == ([False], [True])
    assert compare_shadow(HardVote(), label, binary(0), 0.6) == ([False], [True])
    stack = Stacking(coefficients={"0": 1.0}, missing="mean")
    assert compare_shadow(stack, released("s", "probability", role="shadow"), binary(1), 0.6) == ([True], None)


def test_a_regressions_shadow_agrees_within_the_range_of_the_voters() -> None:
    votes = [Vote("a", 1.0, np.array([1.0, 1.0, 1.0, 1.0])), Vote("b", 1.0, np.array([2.0, 2.0, 2.0, 2.0]))]
    shadow = released("s", role="shadow")
    found = predict_rows(REGRESSION, Policy(), votes, [ShadowOutput(shadow, np.array([0.9, 1.0, 2.0, 2.1]))]).shadows[
        "s"
    ]
    assert (found.agrees.tolist(), found.flips) == ([False, True, True, False], None)


def test_without_a_label_agreement_is_with_the_first_class() -> None:
    # At the threshold that is the second class, though the first is the more probable one.
    task = structs.replace(BINARY, threshold=0.25)
    predictions = predict_one(Policy(Mean(tie="abstain")), 0.25, 0.25, task=task)
    assert predictions.classes is not None
    assert (predictions.classes.label.tolist(), predictions.classes.agreement.tolist()) == ([ABSTAINED], [1.0])


def test_without_a_label_the_value_is_nan() -> None:
    votes = [Vote("a", 1.0, np.eye(3)[[0, 1]]), Vote("b", 1.0, np.eye(3)[[2, 1]])]
    predictions = predict_rows(THREE, Policy(HardVote(tie="abstain")), votes)
    assert_equal(predictions.value, [np.nan, 1.0])
    # Spread and agreement are then those of the class that came first.
    assert (predictions.spread.std.tolist(), predictions.classes and predictions.classes.agreement.tolist()) == (
        [0.5, 0],
        [0.5, 1],
    )
