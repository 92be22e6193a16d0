from __future__ import annotations

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.ensemble import VotingClassifier, VotingRegressor

from builders import BINARY, REGRESSION, THREE
from stepensemble.core.aggregation import Combined, combine, effective_weights, own_labels
from stepensemble.core.manifest import BinaryTask, Method, MulticlassTask

ROWS = 500
WEIGHTS = [0.5, 3.0, 1.25]


class FixedClassifier(ClassifierMixin, BaseEstimator):
    """Answers fixed probabilities, whatever it is asked."""

    def __init__(self, probabilities: Any = None) -> None:
        self.probabilities = probabilities

    def fit(self, _x: Any, y: Any) -> FixedClassifier:
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, _x: Any) -> Any:
        return self.probabilities

    def predict(self, _x: Any) -> Any:
        return self.classes_[self.probabilities.argmax(axis=1)]


class FixedRegressor(RegressorMixin, BaseEstimator):
    """Answers fixed values, whatever it is asked."""

    def __init__(self, values: Any = None) -> None:
        self.values = values

    def fit(self, _x: Any, _y: Any) -> FixedRegressor:
        self.fitted_ = True
        return self

    def predict(self, _x: Any) -> Any:
        return self.values


def random_probabilities(classes: int, voters: int = 3) -> list[Any]:
    generator = np.random.default_rng(classes)
    return [generator.dirichlet(np.ones(classes), ROWS) for _ in range(voters)]


def scikit_learn_votes(outputs: list[Any], voting: str, weights: list[float] | None) -> VotingClassifier:
    classes = outputs[0].shape[1]
    estimators = [(str(number), FixedClassifier(output)) for number, output in enumerate(outputs)]
    oracle = VotingClassifier(estimators, voting=voting, weights=weights)
    return oracle.fit(np.zeros((classes, 1)), np.arange(classes))


TASKS = {2: BINARY, 3: THREE, 5: MulticlassTask(classes=("a", "b", "c", "d", "e"))}


@pytest.mark.parametrize("classes", TASKS)
@pytest.mark.parametrize(
    ("method", "weights"),
    [("mean", None), ("weighted_mean", WEIGHTS), ("soft_vote", WEIGHTS), ("soft_vote", None)],
)
def test_averaged_probabilities_are_scikit_learns_soft_vote(
    classes: int, method: Method, weights: list[float] | None
) -> None:
    outputs = random_probabilities(classes)
    oracle = scikit_learn_votes(outputs, "soft", weights)
    got = combine(TASKS[classes], method, outputs, weights or [1.0] * 3)
    assert_allclose(got.probabilities, oracle.predict_proba(np.zeros((ROWS, 1))), rtol=1e-12)
    assert_array_equal(got.label, oracle.predict(np.zeros((ROWS, 1))))


@pytest.mark.parametrize("classes", TASKS)
@pytest.mark.parametrize("voters", [1, 2, 3, 4, 6])
def test_a_hard_vote_is_scikit_learns_ties_included(classes: int, voters: int) -> None:
    outputs = random_probabilities(classes, voters)
    got = combine(TASKS[classes], "hard_vote", outputs, [1.0] * voters)
    assert_array_equal(got.label, scikit_learn_votes(outputs, "hard", None).predict(np.zeros((ROWS, 1))))
    ballots = np.stack([output.argmax(axis=1) for output in outputs], axis=1)
    counts = np.stack([np.bincount(row, minlength=classes) for row in ballots])
    assert_allclose(got.probabilities, counts / voters, rtol=1e-12)
    assert_array_equal(got.tie, (counts == counts.max(axis=1, keepdims=True)).sum(axis=1) > 1)


@pytest.mark.parametrize(("method", "weights"), [("mean", None), ("weighted_mean", WEIGHTS)])
def test_a_regression_is_scikit_learns_voting_regressor(method: Method, weights: list[float] | None) -> None:
    values = list(np.random.default_rng(5).normal(0, 100, (3, ROWS)))
    estimators = [(str(number), FixedRegressor(one)) for number, one in enumerate(values)]
    oracle = VotingRegressor(estimators, weights=weights).fit(np.zeros((ROWS, 1)), np.zeros(ROWS))
    got = combine(REGRESSION, method, values, weights or [1.0] * 3)
    assert_allclose(got.value, oracle.predict(np.zeros((ROWS, 1))), rtol=1e-12, atol=1e-12)
    assert_allclose(got.spread, np.std(values, axis=0), rtol=1e-12)
    assert (got.label, got.probabilities, got.agreement, got.tie) == (None, None, None, None)


def binary(*seconds: float) -> list[Any]:
    """Return one row from each voter, by its probability of the second class."""
    return [np.array([[1 - second, second]]) for second in seconds]


def test_a_binary_answer_by_hand() -> None:
    got = combine(BINARY, "mean", binary(0.25, 0.75, 1.0), [1.0] * 3)
    assert got.value.tolist() == pytest.approx([2 / 3])
    assert got.spread.tolist() == pytest.approx([0.31180478])  # sqrt of the mean of (5/12)**2, (1/12)**2, (4/12)**2
    assert got.label is not None
    assert got.label.tolist() == [1]
    assert got.agreement is not None
    assert got.agreement.tolist() == pytest.approx([2 / 3])


def test_the_threshold_decides_the_label_and_each_voters_own() -> None:
    task = BinaryTask(classes=("no", "yes"), threshold=0.7)
    got = combine(task, "mean", binary(0.6, 0.9, 0.65), [1.0] * 3)  # mean 0.7167
    assert (labels(got), agreements(got)) == ([1], pytest.approx([1 / 3]))
    assert own_labels(task, binary(0.7)[0]).tolist() == [1]


def labels(combined: Combined) -> list[int]:
    assert combined.label is not None
    return combined.label.tolist()


def agreements(combined: Combined) -> list[float]:
    assert combined.agreement is not None
    return combined.agreement.tolist()


def ties(combined: Combined) -> list[bool]:
    assert combined.tie is not None
    return combined.tie.tolist()


def test_an_even_binary_vote_goes_to_the_first_class_and_is_flagged() -> None:
    got = combine(BINARY, "hard_vote", binary(0.9, 0.8, 0.1, 0.2), [1.0] * 4)
    assert (labels(got), ties(got), got.value.tolist()) == ([0], [True], [0.5])


@pytest.mark.parametrize(("seconds", "label"), [((0.9, 0.8, 0.1), 1), ((0.9, 0.2, 0.1), 0)])
def test_a_majority_is_no_tie(seconds: tuple[float, ...], label: int) -> None:
    got = combine(BINARY, "hard_vote", binary(*seconds), [1.0] * 3)
    assert (labels(got), ties(got)) == ([label], [False])


@pytest.mark.parametrize("method", ["mean", "soft_vote", "weighted_mean"])
def test_a_probability_at_the_threshold_is_the_second_class_and_flagged(method: Method) -> None:
    got = combine(BINARY, method, binary(0.25, 0.75), [1.0, 1.0])  # exactly one half
    assert (labels(got), ties(got)) == ([1], [True])


def test_a_hard_vote_knows_no_threshold_for_the_votes() -> None:
    task = BinaryTask(classes=("no", "yes"), threshold=0.9)
    got = combine(task, "hard_vote", binary(0.95, 0.95, 0.1), [1.0] * 3)
    assert (labels(got), got.value.tolist()) == ([1], pytest.approx([2 / 3]))


def test_a_multiclass_tie_goes_to_the_class_that_comes_first() -> None:
    outputs = [np.array([[0.0, 1.0, 0.0]]), np.array([[0.0, 0.0, 1.0]])]
    for method in ("hard_vote", "mean"):
        got = combine(THREE, method, outputs, [1.0, 1.0])
        assert (labels(got), ties(got)) == ([1], [True])
        assert (got.value.tolist(), got.spread.tolist(), agreements(got)) == ([1.0], [0.5], [0.5])


def test_a_unanimous_vote_is_exactly_one() -> None:
    got = combine(BINARY, "hard_vote", binary(*[0.9] * 6), [1.0] * 6)  # 6 times 1/6 rounds to 0.9999999999999999
    assert (got.value.tolist(), got.spread.tolist(), agreements(got)) == ([1.0], [0.0], [1.0])


def test_rounding_does_not_lead_out_of_the_members_range() -> None:
    # 0.7 a tenth at a time comes to 0.6999999999999998, and below a threshold of 0.7 without being meant to.
    task = BinaryTask(classes=("no", "yes"), threshold=0.7)
    got = combine(task, "mean", binary(*[0.7] * 10), [1.0] * 10)
    assert (got.value.tolist(), labels(got)) == ([0.7], [1])
    # Who has no weight does not widen the range.
    outputs = [*binary(*[0.7] * 10), *binary(0.0, 1.0)]
    assert combine(task, "weighted_mean", outputs, [1.0] * 10 + [0.0, 0.0]).value.tolist() == [0.7]


def test_weights_count_only_where_the_method_weights() -> None:
    assert effective_weights("weighted_mean", [1, 3]).tolist() == [0.25, 0.75]
    assert effective_weights("soft_vote", [1, 3]).tolist() == [0.25, 0.75]
    assert effective_weights("mean", [1, 3]).tolist() == [0.5, 0.5]
    assert effective_weights("hard_vote", [1, 3]).tolist() == [0.5, 0.5]


METHODS: list[Method] = ["mean", "weighted_mean", "soft_vote", "hard_vote"]
UNIT = st.floats(0, 1, allow_subnormal=False)


@st.composite
def ensembles(draw: st.DrawFn) -> tuple[Any, Method, list[Any], list[float]]:
    """Draw a task, a method, outputs of one to six voters for some rows, and weights that are not all nought."""
    task = draw(st.sampled_from([BINARY, THREE, REGRESSION]))
    voters, rows = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    weights = draw(st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.5, 7.0]), min_size=voters, max_size=voters))
    if not any(weights):
        weights[0] = 1.0
    if task is REGRESSION:
        value = st.floats(-1e6, 1e6, allow_subnormal=False)
        return (
            task,
            draw(st.sampled_from(METHODS[:2])),
            [draw(arrays(float, rows, elements=value)) for _ in weights],
            weights,
        )
    if task is BINARY:
        seconds = [draw(arrays(float, rows, elements=UNIT)) for _ in weights]
        outputs = [np.stack([1 - second, second], axis=1) for second in seconds]
    else:
        raw = [draw(arrays(float, (rows, 3), elements=st.floats(0.01, 1))) for _ in weights]
        outputs = [one / one.sum(axis=1, keepdims=True) for one in raw]
    return task, draw(st.sampled_from(METHODS)), outputs, weights


def near(first: Combined, second: Combined) -> None:
    """Compare the numbers; a label may flip where rounding moves a tie, so it is not compared."""
    scale = max(1.0, float(np.abs(first.value).max()))
    if first.probabilities is None or second.probabilities is None:
        assert_allclose(first.value, second.value, atol=1e-12 * scale, rtol=1e-9)
    else:
        assert_allclose(first.probabilities, second.probabilities, atol=1e-12, rtol=1e-9)


def identical(first: Combined, second: Combined) -> None:
    for name in ("value", "spread", "label", "probabilities", "agreement", "tie"):
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None)
        assert one is None or one.tobytes() == other.tobytes()


@given(ensembles(), st.randoms())
def test_law_the_order_of_members_does_not_matter(ensemble: Any, random: Any) -> None:
    task, method, outputs, weights = ensemble
    order = random.sample(range(len(outputs)), len(outputs))
    near(
        combine(task, method, outputs, weights),
        combine(task, method, [outputs[i] for i in order], [weights[i] for i in order]),
    )


@given(ensembles(), st.floats(0.01, 100))
def test_law_the_scale_of_weights_does_not_matter(ensemble: Any, factor: float) -> None:
    task, method, outputs, weights = ensemble
    near(
        combine(task, method, outputs, weights),
        combine(task, method, outputs, [weight * factor for weight in weights]),
    )


@given(ensembles())
def test_law_doubling_weights_changes_no_bit(ensemble: Any) -> None:
    task, method, outputs, weights = ensemble
    identical(combine(task, method, outputs, weights), combine(task, method, outputs, [2 * w for w in weights]))


@given(ensembles(), st.integers(1, 8))
def test_law_equal_members_give_that_member(ensemble: Any, times: int) -> None:
    task, method, outputs, _ = ensemble
    alone, together = (combine(task, method, [outputs[0]] * n, [1.0] * n) for n in (1, times))
    exact = np.zeros_like(alone.spread)  # a deviation is rounded: it has its own line below
    identical(replace(alone, spread=exact), replace(together, spread=exact))
    assert_allclose(together.spread, 0, atol=1e-9 * max(1.0, float(np.abs(alone.value).max())))


@given(ensembles())
def test_law_a_mean_lies_within_its_members(ensemble: Any) -> None:
    task, method, outputs, weights = ensemble
    got = combine(task, method, outputs, weights)
    if got.probabilities is not None:
        assert ((got.probabilities >= 0) & (got.probabilities <= 1)).all()
        assert_allclose(got.probabilities.sum(axis=1), 1, atol=1e-9)
    if method != "hard_vote":
        mine = got.value if task is REGRESSION else got.probabilities
        counted = [one for one, weight in zip(outputs, weights, strict=True) if weight or method == "mean"]
        slack = 0.0 if task is not BINARY else 1e-15  # a first class is one minus the second
        assert (np.minimum.reduce(counted) <= mine + slack).all()
        assert (mine <= np.maximum.reduce(counted) + slack).all()


@given(ensembles(), st.integers(0, 6))
def test_law_a_member_without_weight_changes_no_bit_of_the_answer(ensemble: Any, place: int) -> None:
    task, method, outputs, weights = ensemble
    if method not in {"weighted_mean", "soft_vote"}:
        return
    more, heavier = [*outputs], [*weights]
    more.insert(place, np.roll(outputs[0], 1, axis=-1))
    heavier.insert(place, 0.0)
    first, second = combine(task, method, outputs, weights), combine(task, method, more, heavier)
    assert first.value.tobytes() == second.value.tobytes()
    if first.probabilities is not None and second.probabilities is not None:
        assert first.probabilities.tobytes() == second.probabilities.tobytes()


@given(ensembles())
def test_law_many_rows_are_combined_as_each_alone_bit_for_bit(ensemble: Any) -> None:
    task, method, outputs, weights = ensemble
    together = combine(task, method, outputs, weights)
    for row in range(len(outputs[0])):
        alone = combine(task, method, [output[row : row + 1] for output in outputs], weights)
        for name in ("value", "spread", "label", "probabilities", "agreement", "tie"):
            whole, one = getattr(together, name), getattr(alone, name)
            assert whole is None or whole[row : row + 1].tobytes() == one.tobytes()
