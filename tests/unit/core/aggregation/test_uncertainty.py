"""Each measure against NumPy, SciPy or a calculation by hand. Laws are in `test_laws`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import entr

from builders import BINARY, THREE
from stepensemble.core.aggregation.classification import elect
from stepensemble.core.aggregation.pooling import Vote, effective_weights, pool
from stepensemble.core.aggregation.uncertainty import (
    find_pivotal,
    measure_agreement,
    measure_entropies,
    measure_margin,
    measure_spread,
    select_class,
)
from stepensemble.core.schema.policy import (
    Aggregation,
    HardVote,
    Max,
    Mean,
    SoftVote,
    Stacking,
    WeightedMean,
    WeightedVote,
)
from stepensemble.core.schema.task import BinaryTask, MulticlassTask

RED, GREEN, BLUE = range(3)
SHARES = np.array([0.2, 0.5, 0.3])


def distributions(classes: int = 3, voters: int = 3, rows: int = 50) -> list[Any]:
    generator = np.random.default_rng(classes)
    return [generator.dirichlet(np.ones(classes), rows) for _ in range(voters)]


def binary(*seconds: float) -> list[Any]:
    """Return one row from each voter, by its probability of the second class."""
    return [np.array([[1 - second, second]]) for second in seconds]


@pytest.mark.parametrize("voters", [1, 2, 5, 8, 20])
def test_a_spread_is_numpys(voters: int) -> None:
    values = list(np.random.default_rng(voters).normal(1e3, 2, (voters, 50)))
    got = measure_spread(values)
    assert_allclose(got.std, np.std(values, axis=0), rtol=1e-12)
    assert_allclose(got.range, np.ptp(values, axis=0), rtol=1e-12)


def test_a_spread_by_hand() -> None:
    got = measure_spread([np.array([0.25]), np.array([0.75]), np.array([1.0])])
    assert got.std == pytest.approx(0.31180478)  # the root of the mean of (5/12)**2, (1/12)**2, (4/12)**2
    assert got.range.tolist() == [0.75]


def test_voters_with_equal_outputs_have_no_spread_at_all() -> None:
    got = measure_spread([np.array([0.1])] * 7)  # 7 times a seventh of 0.1 is not 0.1
    assert (got.std.tolist(), got.range.tolist()) == ([0.0], [0.0])


def test_a_row_is_measured_by_its_own_class() -> None:
    outputs = [np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]), np.array([[0.5, 0.4, 0.1], [0.2, 0.2, 0.6]])]
    first, second = select_class(outputs, np.array([RED, GREEN]))
    assert (first.tolist(), second.tolist()) == ([0.7, 0.3], [0.5, 0.2])


def test_agreement_counts_the_voters_whose_own_label_it_is() -> None:
    labels = np.array([1])
    assert measure_agreement(BINARY, binary(0.9, 0.6, 0.4), labels) == pytest.approx(2 / 3)
    strict = BinaryTask(classes=("no", "yes"), threshold=0.7)
    assert measure_agreement(strict, binary(0.9, 0.6, 0.4), labels) == pytest.approx(1 / 3)
    assert measure_agreement(strict, binary(0.7), labels) == 1  # at the threshold
    rare_blue = MulticlassTask(classes=THREE.classes, thresholds={"red": 0.6, "green": 0.6, "blue": 0.1})
    rows = [np.array([[0.7, 0.1, 0.2]]), np.array([[0.9, 0.1, 0.0]])]
    assert measure_agreement(rare_blue, rows, np.array([BLUE])).tolist() == [0.5]


def test_entropies_are_scipys() -> None:
    outputs = distributions()
    of_mean, mean = measure_entropies(outputs, SHARES)
    assert_allclose(of_mean, stats.entropy(np.average(outputs, axis=0, weights=SHARES), axis=1), rtol=1e-12)
    assert_allclose(mean, np.average(entr(outputs).sum(axis=2), axis=0, weights=SHARES), rtol=1e-12)


def test_mutual_information_is_the_mean_divergence_from_the_mean() -> None:
    outputs = distributions()
    of_mean, mean = measure_entropies(outputs, SHARES)
    centre = np.average(outputs, axis=0, weights=SHARES)
    divergences = [stats.entropy(output, centre, axis=1) for output in outputs]
    assert_allclose(of_mean - mean, np.average(divergences, axis=0, weights=SHARES), rtol=1e-9)


@pytest.mark.parametrize(
    ("seconds", "of_mean", "mean"),
    [
        ((0.0, 1.0), np.log(2), 0.0),  # each is certain of the opposite: only disagreement
        ((0.5, 0.5), np.log(2), np.log(2)),  # neither is certain, and they agree: no disagreement
        ((1.0, 1.0), 0.0, 0.0),
    ],
)
def test_entropies_distinguish_disagreement_from_uncertainty(
    seconds: tuple[float, ...], of_mean: float, mean: float
) -> None:
    got = measure_entropies(binary(*seconds), np.array([0.5, 0.5]))
    assert [float(one[0]) for one in got] == pytest.approx([of_mean, mean])


def test_no_entropy_is_negative_zero() -> None:
    of_mean, mean = measure_entropies([np.eye(3)] * 2, np.array([0.5, 0.5]))
    assert not np.signbit([of_mean, mean]).any()


def test_mutual_information_is_not_negative_where_voters_differ_only_by_rounding() -> None:
    (output,) = distributions(voters=1, rows=10_000)
    of_mean, mean = measure_entropies([output, np.nextafter(output, 0)], np.array([0.5, 0.5]))
    assert (of_mean - mean >= 0).all()


def test_voters_with_equal_outputs_have_no_mutual_information_at_all() -> None:
    of_mean, mean = measure_entropies([np.array([[0.1, 0.2, 0.7]])] * 7, np.full(7, 1 / 7))
    assert (of_mean - mean).tolist() == [0.0]


def margin(task: BinaryTask | MulticlassTask, *pooled: float, voted: bool = False) -> float:
    return float(measure_margin(task, np.array([pooled]), voted=voted)[0])


def test_a_margin_is_the_lead_of_the_best_class_over_the_next() -> None:
    assert margin(BINARY, 0.25, 0.75) == 0.5
    assert margin(THREE, 0.5, 0.125, 0.375) == 0.125
    assert margin(THREE, 0, 1, 0) == 1
    outputs = distributions(5)
    five = MulticlassTask(classes=("a", "b", "c", "d", "e"))
    ordered = np.sort(outputs[0], axis=1)
    assert_allclose(measure_margin(five, outputs[0], voted=False), ordered[:, -1] - ordered[:, -2])


def test_a_margin_is_zero_where_the_label_changes() -> None:
    strict = BinaryTask(classes=("no", "yes"), threshold=0.75)
    assert margin(strict, 0.25, 0.75) == 0
    assert margin(strict, 0.5, 0.5) == pytest.approx(0.5)  # multiples 2 and 2/3, of 8/3
    assert margin(strict, 0, 1) == margin(strict, 1, 0) == 1
    rare_blue = MulticlassTask(classes=THREE.classes, thresholds={"red": 0.6, "green": 0.3, "blue": 0.1})
    assert margin(rare_blue, 0.6, 0.3, 0.1) == pytest.approx(0, abs=1e-15)
    assert margin(rare_blue, 0.9, 0.05, 0.05) == pytest.approx((1.5 - 0.5) / (1.5 + 1 / 6 + 0.5))


def test_the_margin_of_votes_ignores_thresholds() -> None:
    strict = BinaryTask(classes=("no", "yes"), threshold=0.75)
    assert margin(strict, 0.25, 0.75, voted=True) == 0.5


def pivotal(
    method: Aggregation, *rows: Any, weights: Sequence[float] | None = None, task: Any = THREE
) -> list[list[bool]]:
    """Return which of the voters, with one row each, are pivotal."""
    outputs = [np.array([row], dtype=float) for row in rows]
    numbered = enumerate(zip(weights or [1.0] * len(rows), outputs, strict=True))
    votes = [Vote(str(number), weight, output) for number, (weight, output) in numbered]
    pooled = pool(task, method, votes)
    label = elect(task, method, pooled, outputs, effective_weights(method, votes)).label
    found: list[list[bool]] = find_pivotal(task, method, votes, label).tolist()
    return found


NO, YES = [1.0, 0.0], [0.0, 1.0]


def test_in_a_close_vote_each_of_the_majority_is_pivotal() -> None:
    # Without one of the two the vote is even, and goes to "no".
    assert pivotal(HardVote(), YES, YES, NO, task=BINARY) == [[True, True, False]]
    assert pivotal(HardVote(), YES, YES, YES, NO, task=BINARY) == [[False] * 4]
    # At a tie "no" is predicted; without either of the two voters for "no" it would not be.
    assert pivotal(HardVote(), YES, NO, NO, YES, task=BINARY) == [[False, True, True, False]]


def test_a_voter_without_whom_a_tie_would_leave_no_label_is_pivotal() -> None:
    assert pivotal(HardVote(tie="abstain"), YES, YES, NO, task=BINARY) == [[True, True, False]]
    # And where there is a tie, every voter is: without any one there would be a label.
    assert pivotal(HardVote(tie="abstain"), YES, NO, task=BINARY) == [[True, True]]


def test_a_heavy_voter_is_pivotal_and_a_light_one_is_not() -> None:
    red, blue = [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]
    for method in (WeightedVote(), WeightedMean(), SoftVote()):
        assert pivotal(method, red, blue, blue, weights=[5, 1, 1]) == [[True, False, False]]


def test_a_voter_whose_certainty_decides_is_pivotal() -> None:
    # Means of "yes": 0.6; without the first 0.45; without either of the others 0.675.
    assert pivotal(Mean(), [0.1, 0.9], [0.55, 0.45], [0.55, 0.45], task=BINARY) == [[True, False, False]]
    assert pivotal(Max(), [0.1, 0.9], [0.55, 0.45], [0.55, 0.45], task=BINARY) == [[True, False, False]]


def test_the_only_voter_and_the_only_one_with_weight_are_not_pivotal() -> None:
    # Without it there would be no prediction.
    assert pivotal(HardVote(), [1, 0, 0]) == [[False]]
    assert pivotal(WeightedMean(), [1, 0, 0], [0, 1, 0], weights=[1, 0]) == [[False, False]]


def test_in_a_stack_even_a_unanimous_label_can_hang_on_one_voter() -> None:
    # 4 * 0.9 - 5 * 0.6 - 0.5 > 0; with the second in the first's place 4 * 0.6 - 5 * 0.6 - 0.5 < 0;
    # with the first in the second's place 4 * 0.9 - 5 * 0.9 - 0.5 < 0.
    stack = Stacking(coefficients={"0": 4.0, "1": -5.0}, intercept=-0.5, missing="refuse")
    assert pivotal(stack, [0.1, 0.9], [0.4, 0.6], task=BINARY) == [[True, True]]


def test_a_voter_with_a_tie_can_be_pivotal_though_all_have_the_same_label() -> None:
    # Each would predict red, the second only by the rule for ties.
    rows = [0.5, 0.3, 0.2], [0.5, 0.5, 0]
    assert pivotal(Mean(tie="abstain"), *rows) == [[True, False]]
