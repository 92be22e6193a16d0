"""Each method against an independent oracle: scikit-learn, SciPy, NumPy, or by hand. Laws are in `test_laws`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from scipy.special import expit, logit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.ensemble import StackingClassifier, StackingRegressor, VotingClassifier, VotingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

from builders import BINARY, REGRESSION, THREE
from stepensemble.core.aggregation.classification import elect
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

ROWS = 500
X = np.zeros((ROWS, 1))
WEIGHTS = [0.5, 3.0, 1.25]
EQUAL = [1.0] * 3
FIVE = MulticlassTask(classes=("a", "b", "c", "d", "e"))
TASKS: dict[int, BinaryTask | MulticlassTask] = {2: BINARY, 3: THREE, 5: FIVE}
VALUES = list(np.random.default_rng(5).normal(0, 100, (7, ROWS)))


class FixedClassifier(ClassifierMixin, BaseEstimator):
    """Predicts fixed probabilities for any input."""

    def __init__(self, probabilities: Any = None) -> None:
        self.probabilities = probabilities

    def fit(self, _x: Any, _y: Any) -> FixedClassifier:
        self.classes_ = np.arange(self.probabilities.shape[1])
        return self

    def predict_proba(self, _x: Any) -> Any:
        return self.probabilities

    def predict(self, _x: Any) -> Any:
        return self.probabilities.argmax(axis=1)


class FixedRegressor(RegressorMixin, BaseEstimator):
    """Predicts fixed values for any input."""

    def __init__(self, values: Any = None) -> None:
        self.values = values

    def fit(self, _x: Any, _y: Any) -> FixedRegressor:
        self.fitted_ = True
        return self

    def predict(self, _x: Any) -> Any:
        return self.values


def random_probabilities(classes: int, voters: int = 3) -> list[Any]:
    generator = np.random.default_rng(classes)
    drawn = [generator.dirichlet(np.ones(classes), ROWS) for _ in range(voters)]
    return [np.stack([1 - one[:, 1], one[:, 1]], axis=1) for one in drawn] if classes == 2 else drawn


def votes(outputs: Sequence[Any], weights: Sequence[float] | None = None) -> list[Vote]:
    """Return voters named "0", "1" and so on."""
    numbered = enumerate(zip(weights or [1.0] * len(outputs), outputs, strict=True))
    return [Vote(str(number), weight, np.asarray(output, dtype=float)) for number, (weight, output) in numbered]


def estimators(fixed: type, outputs: Sequence[Any]) -> list[Any]:
    """Return scikit-learn's members, fitted already."""
    return [(str(number), fixed(output).fit(None, None)) for number, output in enumerate(outputs)]


def voting(outputs: list[Any], kind: str, weights: list[float] | None) -> VotingClassifier:
    classes = outputs[0].shape[1]
    oracle = VotingClassifier(estimators(FixedClassifier, outputs), voting=kind, weights=weights)
    return oracle.fit(np.zeros((classes, 1)), np.arange(classes))


def label(task: BinaryTask | MulticlassTask, method: Aggregation, given: list[Vote]) -> Any:
    shares = effective_weights(method, given)
    return elect(task, method, pool(task, method, given), [vote.output for vote in given], shares).label


@pytest.mark.parametrize("classes", TASKS)
@pytest.mark.parametrize(
    ("method", "weights", "theirs"),
    [
        (Mean(), WEIGHTS, None),
        (WeightedMean(), WEIGHTS, WEIGHTS),
        (SoftVote(), WEIGHTS, WEIGHTS),
        (SoftVote(), EQUAL, None),
    ],
)
def test_averaged_probabilities_are_scikit_learns_soft_vote(
    classes: int, method: Aggregation, weights: list[float], theirs: list[float] | None
) -> None:
    outputs = random_probabilities(classes)
    oracle = voting(outputs, "soft", theirs)
    assert_allclose(pool(TASKS[classes], method, votes(outputs, weights)), oracle.predict_proba(X), rtol=1e-12)
    assert_array_equal(label(TASKS[classes], method, votes(outputs, weights)), oracle.predict(X))


@pytest.mark.parametrize("classes", TASKS)
@pytest.mark.parametrize("voters", [1, 2, 3, 4, 6])
def test_a_hard_vote_is_scikit_learns_ties_included(classes: int, voters: int) -> None:
    outputs = random_probabilities(classes, voters)
    given = votes(outputs, np.arange(1.0, voters + 1).tolist())  # weights do not matter
    assert_array_equal(label(TASKS[classes], HardVote(), given), voting(outputs, "hard", None).predict(X))
    ballots = np.stack([output.argmax(axis=1) for output in outputs], axis=1)
    counts = np.stack([np.bincount(row, minlength=classes) for row in ballots])
    assert_allclose(pool(TASKS[classes], HardVote(), given), counts / voters, atol=1e-15)


@pytest.mark.parametrize("classes", TASKS)
@pytest.mark.parametrize("weights", [WEIGHTS, [1.0, 1.0, 2.0]])
def test_a_weighted_vote_is_scikit_learns_ties_included(classes: int, weights: list[float]) -> None:
    outputs = random_probabilities(classes)
    given = votes(outputs, weights)
    assert_array_equal(label(TASKS[classes], WeightedVote(), given), voting(outputs, "hard", weights).predict(X))
    ballots = np.stack([output.argmax(axis=1) for output in outputs], axis=1)
    counts = np.stack([np.bincount(row, weights, minlength=classes) for row in ballots])
    assert_allclose(pool(TASKS[classes], WeightedVote(), given), counts / sum(weights), atol=1e-15)


@pytest.mark.parametrize(("method", "theirs"), [(Mean(), None), (WeightedMean(), WEIGHTS)])
def test_a_regressions_mean_is_scikit_learns_voting_regressor(method: Aggregation, theirs: list[float] | None) -> None:
    oracle = VotingRegressor(estimators(FixedRegressor, VALUES[:3]), weights=theirs).fit(X, np.zeros(ROWS))
    assert_allclose(pool(REGRESSION, method, votes(VALUES[:3], WEIGHTS)), oracle.predict(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("voters", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize(
    ("method", "oracle"),
    [
        (Median(), lambda values: np.median(values, axis=0)),
        (TrimmedMean(trim=0.0), lambda values: stats.trim_mean(values, 0.0, axis=0)),
        (TrimmedMean(trim=0.2), lambda values: stats.trim_mean(values, 0.2, axis=0)),
        (TrimmedMean(trim=0.25), lambda values: stats.trim_mean(values, 0.25, axis=0)),
        (TrimmedMean(trim=0.49), lambda values: stats.trim_mean(values, 0.49, axis=0)),
        (Min(), lambda values: np.min(values, axis=0)),
        (Max(), lambda values: np.max(values, axis=0)),
    ],
)
def test_an_order_statistic_is_numpys_or_scipys(voters: int, method: Aggregation, oracle: Any) -> None:
    assert_allclose(pool(REGRESSION, method, votes(VALUES[:voters])), oracle(VALUES[:voters]), rtol=1e-12)
    for classes, task in TASKS.items():
        outputs = random_probabilities(classes, voters)
        if classes == 2:
            second = oracle([output[:, 1] for output in outputs])
            expected = np.stack([1 - second, second], axis=1)
        else:
            by_class = oracle(outputs)
            expected = by_class / by_class.sum(axis=1, keepdims=True)
        assert_allclose(pool(task, method, votes(outputs)), expected, rtol=1e-12)


@pytest.mark.parametrize("classes", TASKS)
def test_a_geometric_mean_is_scipys_normalized(classes: int) -> None:
    outputs = random_probabilities(classes)
    means = stats.gmean(outputs, axis=0, weights=np.broadcast_to(np.reshape(WEIGHTS, (3, 1, 1)), np.shape(outputs)))
    expected = means / means.sum(axis=1, keepdims=True)
    assert_allclose(pool(TASKS[classes], GeometricMean(), votes(outputs, WEIGHTS)), expected, rtol=1e-10)


def test_a_geometric_mean_of_two_classes_is_the_mean_of_the_log_odds() -> None:
    outputs = random_probabilities(2)
    log_odds = np.average([logit(output[:, 1]) for output in outputs], axis=0, weights=WEIGHTS)
    got = pool(BINARY, GeometricMean(), votes(outputs, WEIGHTS))
    assert_allclose(got[:, 1], expit(log_odds), rtol=1e-10)


def test_in_a_geometric_mean_a_zero_is_a_veto() -> None:
    given = votes([[[0.0, 0.5, 0.5], [0.0, 0.5, 0.5]], [[0.8, 0.1, 0.1], [1.0, 0.0, 0.0]]])
    # Row 0: 0, sqrt(0.05), sqrt(0.05). In row 1 each class is vetoed by some voter.
    assert_allclose(pool(THREE, GeometricMean(), given), [[0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    # A voter without weight has no veto: 0.8, 0.1, 0.1 and 1, 0, 0 are left.
    muted = [Vote("0", 0.0, given[0].output), given[1]]
    assert_allclose(pool(THREE, GeometricMean(), muted), given[1].output)


@pytest.mark.parametrize("classes", TASKS)
def test_a_stack_is_scikit_learns_with_a_logistic_regression(classes: int) -> None:
    outputs = random_probabilities(classes)
    y = np.random.default_rng(1).integers(0, classes, ROWS)
    oracle = StackingClassifier(estimators(FixedClassifier, outputs), LogisticRegression(C=100), cv="prefit").fit(X, y)
    found, intercept = oracle.final_estimator_.coef_, oracle.final_estimator_.intercept_
    if classes == 2:
        model = Stacking(coefficients=name(found[0].tolist()), intercept=float(intercept[0]), missing="refuse")
    else:  # (classes, voters * classes): a matrix a voter, one beside the other
        matrices = [part.tolist() for part in np.split(found, 3, axis=1)]
        model = Stacking(coefficients=name(matrices), intercept=tuple(intercept.tolist()), missing="refuse")
    assert_allclose(pool(TASKS[classes], model, votes(outputs)), oracle.predict_proba(X), rtol=1e-10)
    assert_array_equal(label(TASKS[classes], model, votes(outputs)), oracle.predict(X))


def name(coefficients: Sequence[Any]) -> dict[str, Any]:
    return {str(number): coefficient for number, coefficient in enumerate(coefficients)}


def test_a_stack_of_values_is_scikit_learns_with_a_linear_regression() -> None:
    y = np.random.default_rng(1).normal(0, 100, ROWS)
    oracle = StackingRegressor(estimators(FixedRegressor, VALUES[:3]), LinearRegression(), cv="prefit").fit(X, y)
    found = oracle.final_estimator_
    model = Stacking(coefficients=name(found.coef_.tolist()), intercept=float(found.intercept_), missing="refuse")
    assert_allclose(pool(REGRESSION, model, votes(VALUES[:3])), oracle.predict(X), rtol=1e-10)


def test_in_a_stack_the_mean_of_the_others_stands_in_for_who_is_missing() -> None:
    linear = Stacking(coefficients={"0": 1.0, "1": 10.0, "2": 100.0}, intercept=0.5, missing="mean")
    assert pool(REGRESSION, linear, votes([[1.0], [3.0]])).tolist() == [0.5 + 1 * 1 + 3 * 10 + 2 * 100]
    logistic = Stacking(coefficients={"0": 1.0, "1": 2.0, "2": 4.0}, intercept=-3.0, missing="mean")
    given = votes([[[0.5, 0.5]], [[0.0, 1.0]]])
    assert_allclose(pool(BINARY, logistic, given)[:, 1], expit(-3 + 0.5 * 1 + 1 * 2 + 0.75 * 4))
    identity, nought = np.eye(3).tolist(), np.zeros((3, 3)).tolist()
    three = Stacking(coefficients={"0": nought, "1": nought, "2": identity}, intercept=(0.0, 1.0, 0.0), missing="mean")
    only_mean = votes([[[1.0, 0.0, 0.0]], [[0.5, 0.5, 0.0]]])
    assert_allclose(pool(THREE, three, only_mean), softmax([[0.75, 0.25 + 1, 0]], axis=1))


def test_a_stack_of_classes_is_a_matrix_of_class_by_probability() -> None:
    # The only coefficient leads from the third class's probability to the first class.
    matrix = [[0.0, 0.0, 8.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    model = Stacking(coefficients={"0": matrix}, missing="refuse")
    assert_allclose(pool(THREE, model, votes([[[0.25, 0.25, 0.5]]])), softmax([[4.0, 0, 0]], axis=1))


def test_min_predicts_the_second_class_if_all_voters_do_and_max_if_any_does() -> None:
    given = votes([[[0.1, 0.9], [0.4, 0.6]], [[0.7, 0.3], [0.2, 0.8]]])
    assert label(BINARY, Min(), given).tolist() == [0, 1]
    assert label(BINARY, Max(), given).tolist() == [1, 1]


def test_each_voter_votes_for_its_own_label_by_the_thresholds() -> None:
    given = votes([[[0.5, 0.5]], [[0.2, 0.8]], [[0.6, 0.4]]])
    assert_allclose(pool(BinaryTask(classes=("no", "yes"), threshold=0.75), HardVote(), given), [[2 / 3, 1 / 3]])
    rare_blue = MulticlassTask(classes=THREE.classes, thresholds={"red": 0.9, "green": 0.9, "blue": 0.1})
    assert pool(rare_blue, HardVote(), votes([[[0.8, 0.1, 0.1]]])).tolist() == [[0, 0, 1]]


def test_a_unanimous_vote_is_exactly_one() -> None:
    given = votes([[[0.1, 0.9]]] * 6)  # 6 times 1/6 rounds to 0.9999999999999999
    assert pool(BINARY, HardVote(), given).tolist() == [[0, 1]]


def test_rounding_does_not_leave_the_members_range() -> None:
    # 0.7 added up a tenth at a time is 0.6999999999999998.
    assert pool(REGRESSION, Mean(), votes([[0.7]] * 10)).tolist() == [0.7]
    # A voter without weight does not widen the range.
    assert pool(REGRESSION, WeightedMean(), votes([[0.7]] * 10 + [[0.0]], [1.0] * 10 + [0.0])).tolist() == [0.7]


def test_a_row_in_which_every_class_has_a_zero_is_uniform() -> None:
    given = votes([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]])
    assert pool(THREE, Min(), given).tolist() == [[1 / 3, 1 / 3, 1 / 3]]


def test_a_regression_has_no_votes() -> None:
    with pytest.raises(TypeError, match="no labels"):
        pool(REGRESSION, HardVote(), votes([[1.0]]))


@pytest.mark.parametrize("method", [WeightedMean(), SoftVote(), GeometricMean(), WeightedVote()])
def test_shares_are_the_weights_where_the_method_uses_them(method: Aggregation) -> None:
    assert effective_weights(method, votes([[0.0], [0.0]], [1, 3])).tolist() == [0.25, 0.75]


@pytest.mark.parametrize("method", [Mean(), Median(), TrimmedMean(), Min(), Max(), HardVote()])
def test_shares_are_equal_where_the_method_does_not_use_weights(method: Aggregation) -> None:
    assert effective_weights(method, votes([[0.0], [0.0]], [1, 3])).tolist() == [0.5, 0.5]


def test_a_stacks_shares_are_those_of_its_absolute_coefficients() -> None:
    given = votes([[0.0], [0.0]])
    assert effective_weights(Stacking(coefficients={"0": -1.0, "1": 3.0}, missing="refuse"), given).tolist() == [
        0.25,
        0.75,
    ]
    matrices = {"0": ((1.0, -1.0), (0.0, 0.0)), "1": ((-3.0, 0.0), (0.0, 3.0))}
    assert effective_weights(Stacking(coefficients=matrices, missing="refuse"), given).tolist() == [0.25, 0.75]
    nothing = Stacking(coefficients={"0": 0.0, "1": 0.0}, missing="refuse")
    assert effective_weights(nothing, given).tolist() == [0.5, 0.5]
