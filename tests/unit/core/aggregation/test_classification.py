"""Ties and thresholds, each case by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from builders import BINARY, THREE
from stepensemble.core.aggregation.classification import ABSTAINED, Election, divide_by_thresholds, elect, own_labels
from stepensemble.core.aggregation.pooling import Vote, effective_weights, pool
from stepensemble.core.schema.policy import (
    Aggregation,
    GeometricMean,
    HardVote,
    Max,
    Mean,
    Median,
    Min,
    SoftVote,
    Stacking,
    TrimmedMean,
    WeightedMean,
    WeightedVote,
)
from stepensemble.core.schema.task import BinaryTask, MulticlassTask

RED, GREEN, BLUE = range(3)


def binary(*seconds: float) -> list[Vote]:
    """Return one row from each voter, by its probability of the second class."""
    return [Vote(str(number), 1.0, np.array([[1 - p, p]])) for number, p in enumerate(seconds)]


def list_votes(*rows: Any) -> list[Vote]:
    """Return one row from each voter."""
    return [Vote(str(number), 1.0, np.array([row])) for number, row in enumerate(rows)]


def weighted(votes: list[Vote], *weights: float) -> list[Vote]:
    return [replace(vote, weight=weight) for vote, weight in zip(votes, weights, strict=True)]


def elected(task: BinaryTask | MulticlassTask, method: Aggregation, votes: list[Vote]) -> Election:
    shares = effective_weights(method, votes)
    return elect(task, method, pool(task, method, votes), [vote.output for vote in votes], shares)


def outcome(election: Election) -> tuple[int, bool]:
    """Return the one row's label and whether there was a tie."""
    return int(election.label[0]), bool(election.tie[0])


def test_an_even_binary_vote_is_a_tie_that_goes_to_the_first_class() -> None:
    assert outcome(elected(BINARY, HardVote(), binary(0.9, 0.8, 0.1, 0.2))) == (0, True)


@pytest.mark.parametrize(("seconds", "label"), [((0.9, 0.8, 0.1), 1), ((0.9, 0.2, 0.1), 0), ((0.5, 0.5), 1)])
def test_a_majority_is_no_tie(seconds: tuple[float, ...], label: int) -> None:
    assert outcome(elected(BINARY, HardVote(), binary(*seconds))) == (label, False)


@pytest.mark.parametrize(
    "method",
    [
        Mean(),
        WeightedMean(),
        Median(),
        TrimmedMean(),
        SoftVote(),
        GeometricMean(),
        Stacking(coefficients={"0": 1.0, "1": 1.0}, intercept=-1.0, missing="refuse"),
    ],
)
def test_a_probability_at_the_threshold_is_a_tie_that_goes_to_the_second_class(method: Aggregation) -> None:
    assert outcome(elected(BINARY, method, binary(0.25, 0.75))) == (1, True)  # exactly one half


@pytest.mark.parametrize(("method", "second"), [(Min(), 0.3), (Max(), 0.9)])
def test_min_and_max_are_compared_with_the_threshold(method: Aggregation, second: float) -> None:
    votes = binary(0.3, 0.9)
    for threshold, expected in [(second - 0.01, (1, False)), (second, (1, True)), (second + 0.01, (0, False))]:
        assert outcome(elected(BinaryTask(classes=("no", "yes"), threshold=threshold), method, votes)) == expected


def test_rounding_does_not_decide_at_the_threshold() -> None:
    votes = binary(0.1, 0.5, 0.6)  # their mean is 0.4, and is computed as 0.39999999999999997
    assert pool(BINARY, Mean(), votes)[0, 1] < 0.4
    assert outcome(elected(BinaryTask(classes=("no", "yes"), threshold=0.4), Mean(), votes)) == (1, True)
    for second in (0.5 - 1e-15, 0.5 + 1e-15):
        assert outcome(elected(BINARY, Mean(), binary(second))) == (1, True)
        assert own_labels(BINARY, np.array([[1 - second, second]])).tolist() == [1]


def test_a_difference_larger_than_rounding_is_no_tie() -> None:
    assert outcome(elected(BINARY, Mean(), binary(0.5 - 1e-9))) == (0, False)
    assert outcome(elected(BINARY, Mean(), binary(0.5 + 1e-9))) == (1, False)


@pytest.mark.parametrize("method", [HardVote(), Mean(), Median(), GeometricMean(), Max(), Min()])
def test_a_tie_of_several_classes_goes_to_the_one_that_comes_first(method: Aggregation) -> None:
    assert outcome(elected(THREE, method, list_votes([0, 0.75, 0.25], [0, 0.25, 0.75]))) == (GREEN, True)


@pytest.mark.parametrize(("first", "second"), [((0.1, 0.2), (0.3,)), ((0.3,), (0.1, 0.2))])
def test_weights_with_equal_sums_tie_despite_rounding(first: tuple[float, ...], second: tuple[float, ...]) -> None:
    votes = list_votes(*[[0, 1, 0]] * len(first), *[[0, 0, 1]] * len(second))  # and 0.1 + 0.2 > 0.3
    for method in (WeightedVote(), WeightedMean()):
        assert outcome(elected(THREE, method, weighted(votes, *first, *second))) == (GREEN, True)


@pytest.mark.parametrize("method", [HardVote(), Mean(), Stacking(coefficients={"0": 1.0, "1": -1.0}, missing="refuse")])
def test_abstaining_at_a_tie_gives_no_label_and_reports_the_first_class(method: Aggregation) -> None:
    votes = binary(0.0, 1.0) if not isinstance(method, Stacking) else binary(0.5, 0.5)
    election = elected(BINARY, structs.replace(method, tie="abstain"), votes)
    assert outcome(election) == (ABSTAINED, True)
    # The votes' first class; at the threshold the second.
    assert election.best.tolist() == [0 if isinstance(method, HardVote) else 1]


def test_the_rule_abstain_does_not_apply_without_a_tie() -> None:
    election = elected(BINARY, HardVote(tie="abstain"), binary(0.9, 0.8, 0.1))
    assert (outcome(election), election.best.tolist()) == ((1, False), [1])


def test_the_highest_mean_decides_only_between_the_tied() -> None:
    # One vote each; means: red 0.3, green 0.3, blue 0.4. No voter votes for blue in the second case.
    method = HardVote(tie="highest_mean")
    assert outcome(elected(THREE, method, list_votes([0.6, 0.2, 0.2], [0.3, 0.4, 0.3], [0, 0.3, 0.7]))) == (BLUE, True)
    # Tied are red and green, with means 0.26 and 0.28; blue's is 0.46 and it has no vote.
    assert outcome(elected(THREE, method, list_votes([0.48, 0.05, 0.47], [0.04, 0.51, 0.45]))) == (GREEN, True)


def test_the_highest_mean_is_weighted_where_the_votes_are() -> None:
    # Two votes to one and one. Red and green have means of 0.4 and 0.35; unweighted they would be 0.33 and 0.43.
    votes = weighted(list_votes([0.6, 0.1, 0.3], [0.2, 0.6, 0.2], [0.2, 0.6, 0.2]), 2, 1, 1)
    assert outcome(elected(THREE, WeightedVote(tie="highest_mean"), votes)) == (RED, True)


def test_where_the_means_are_tied_too_the_first_class_is_predicted() -> None:
    votes = list_votes([0, 0.75, 0.25], [0, 0.25, 0.75])
    for method in (HardVote(tie="highest_mean"), Mean(tie="highest_mean")):
        assert outcome(elected(THREE, method, votes)) == (GREEN, True)
    # At a threshold that is the second class.
    assert outcome(elected(BINARY, Mean(tie="highest_mean"), binary(0.25, 0.75))) == (1, True)


def test_each_row_has_a_tie_of_its_own() -> None:
    votes = [Vote("a", 1, np.array([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]])), Vote("b", 1, np.array([[0.3, 0.7]] * 3))]
    election = elected(BINARY, HardVote(tie="highest_mean"), votes)
    assert election.tie.tolist() == [False, True, True]
    assert election.label.tolist() == [1, 1, 0]  # means of the second class: 0.75, 0.55, 0.4


def test_thresholds_predict_the_greatest_multiple() -> None:
    task = MulticlassTask(classes=THREE.classes, thresholds={"red": 0.6, "green": 0.3, "blue": 0.1})
    rows = np.array([[0.8, 0.15, 0.05], [0.5, 0.3, 0.2], [0.59, 0.4, 0.01]])
    # The multiples: 1.33, 0.5, 0.5; 0.83, 1, 2; 0.98, 1.33, 0.1
    assert own_labels(task, rows).tolist() == [RED, BLUE, GREEN]
    multiples = np.array([[0.8 / 0.6, 0.15 / 0.3, 0.05 / 0.1]])
    assert divide_by_thresholds(task, rows[:1]) == pytest.approx(multiples / multiples.sum())


def test_classes_at_equal_multiples_of_their_thresholds_are_a_tie() -> None:
    task = MulticlassTask(classes=THREE.classes, thresholds={"red": 0.6, "green": 0.3, "blue": 0.3})
    assert outcome(elected(task, Mean(), list_votes([0.6, 0.3, 0.1]))) == (RED, True)
    assert outcome(elected(task, Mean(tie="abstain"), list_votes([0.6, 0.3, 0.1]))) == (ABSTAINED, True)
    # Of the tied ones the highest mean is red's 0.6, though both are one threshold.
    assert outcome(elected(task, Mean(tie="highest_mean"), list_votes([0.2, 0.4, 0.4]))) == (GREEN, True)


def test_tiny_thresholds_do_not_let_rounding_decide() -> None:
    # 0.1 + 0.2 and 0.3 differ by 6e-17, and by 6e-7 once divided by 1e-10.
    task = MulticlassTask(classes=THREE.classes, thresholds={"red": 0.5, "green": 1e-10, "blue": 1e-10})
    votes = weighted(list_votes([0, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]), 0.1, 0.2, 0.3, 0.4)
    assert outcome(elected(task, WeightedMean(), votes)) == (GREEN, True)


def test_equal_thresholds_are_none() -> None:
    task = MulticlassTask(classes=THREE.classes, thresholds=dict.fromkeys(THREE.classes, 0.2))
    rows = np.array([[0.2, 0.5, 0.3]])
    assert divide_by_thresholds(task, rows) is rows
    assert own_labels(task, rows).tolist() == [GREEN]


def test_thresholds_do_not_apply_to_votes() -> None:
    task = BinaryTask(classes=("no", "yes"), threshold=0.9)
    assert outcome(elected(task, HardVote(), binary(0.95, 0.95, 0.1))) == (1, False)  # two thirds of the votes
    assert outcome(elected(task, HardVote(), binary(0.95, 0.1))) == (0, True)
    rare_blue = MulticlassTask(classes=THREE.classes, thresholds={"red": 0.5, "green": 0.5, "blue": 0.01})
    assert outcome(elected(rare_blue, HardVote(), list_votes([0.99, 0.01, 0], [1, 0, 0], [0.5, 0, 0.5]))) == (
        RED,
        False,
    )
