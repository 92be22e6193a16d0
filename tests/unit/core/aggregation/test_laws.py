"""Laws that every method obeys, whatever the task, the number of voters and their outputs."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from stepensemble.core.aggregation.classification import ABSTAINED, own_labels
from stepensemble.core.aggregation.pooling import Vote, effective_weights, pool
from stepensemble.core.aggregation.row_predictions import ClassPredictions, RowPredictions, ShadowOutput, predict_rows
from stepensemble.core.schema.outputs import Label
from stepensemble.core.schema.policy import VOTES, WEIGHTED_METHODS, Confidence, Mean, Policy, Stacking, name_method
from stepensemble.core.schema.task import BinaryTask, MulticlassTask, RegressionTask
from strategies import METHODS, SEEDS, Case, cases, draw_output, shadows

law = settings(max_examples=60)

REVIEW = Confidence(min_agreement=0.6, max_spread=0.2, min_margin=0.1)


def predict(case: Case, *, extra: list[ShadowOutput] | None = None) -> RowPredictions:
    """Predict a case; NumPy's warnings are errors."""
    policy = Policy(case.aggregation, review=REVIEW)
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        return predict_rows(case.task, policy, case.votes, extra or [])


def classes(predictions: RowPredictions) -> ClassPredictions:
    assert predictions.classes is not None
    return predictions.classes


def flatten(predictions: Any, name: str = "") -> dict[str, Any]:
    """Return every array of a structure by its path."""
    if isinstance(predictions, np.ndarray):
        return {name: predictions}
    if is_dataclass(predictions):
        parts = {field.name: getattr(predictions, field.name) for field in fields(predictions)}
    else:
        parts = predictions or {}
    return {path: array for key, part in parts.items() for path, array in flatten(part, f"{name}.{key}").items()}


def assert_near(one: RowPredictions, other: RowPredictions) -> None:
    """Assert equal labels and flags, and numbers that differ only by rounding."""
    first, second = flatten(one), flatten(other)
    assert first.keys() == second.keys()
    for name, array in first.items():
        if array.dtype.kind == "f":
            scale = max(1.0, np.abs(np.nan_to_num(array)).max())
            assert_allclose(second[name], array, rtol=1e-9, atol=1e-9 * scale, err_msg=name)
        else:
            assert_array_equal(second[name], array, err_msg=name)


@law
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_members_does_not_matter(case: Case, random: Any) -> None:
    order = random.sample(range(len(case.votes)), len(case.votes))
    one, other = predict(case), predict(replace(case, votes=tuple(case.votes[place] for place in order)))
    if one.classes is not None:
        one = replace(one, classes=replace(one.classes, pivotal=one.classes.pivotal[:, order]))
    assert_near(one, other)


@law
@given(cases(), st.floats(0.01, 100))
def test_the_scale_of_weights_does_not_matter(case: Case, factor: float) -> None:
    scaled = tuple(replace(vote, weight=vote.weight * factor) for vote in case.votes)
    assert_near(predict(case), predict(replace(case, votes=scaled)))


@law
@given(cases(methods=METHODS - {"stack"}), st.integers(2, 8))
def test_equal_members_give_that_member(case: Case, times: int) -> None:
    (first, *_) = case.votes
    alone = replace(case, votes=(Vote("one", 1.0, first.output),))
    together = replace(case, votes=tuple(Vote(str(number), 1.0, first.output) for number in range(times)))
    one, many = predict(alone), predict(together)
    if many.classes is not None and one.classes is not None:
        assert not many.classes.pivotal.any()
        assert_array_equal(many.classes.mean_entropy, many.classes.entropy)
        many = replace(many, classes=replace(many.classes, pivotal=one.classes.pivotal))
    assert_near(one, many)
    assert not many.spread.std.any()
    assert not many.spread.range.any()
    if name_method(case.aggregation) not in VOTES:
        assert_allclose(pool(case.task, case.aggregation, together.votes), first.output, rtol=1e-9, atol=1e-9)


@law
@given(cases(methods=METHODS - VOTES - {"stack"}))
def test_a_prediction_is_within_the_range_of_the_voters(case: Case) -> None:
    method = name_method(case.aggregation)
    if isinstance(case.task, MulticlassTask) and method not in {"mean", "weighted_mean", "soft_vote"}:
        return  # normalized: the greatest of each class sum to more than 1
    pooled = pool(case.task, case.aggregation, case.votes)
    counted = [vote.output for vote in case.votes if method not in WEIGHTED_METHODS or vote.weight > 0]
    # Exactly, except for geometric means, which use logarithms, and for a first class, which is 1 less the second.
    slack = 0.0 if isinstance(case.task, RegressionTask) else 1e-12
    assert (np.minimum.reduce(counted) - slack <= pooled).all()
    assert (pooled <= np.maximum.reduce(counted) + slack).all()


@law
@given(cases(methods=WEIGHTED_METHODS), st.data())
def test_a_member_without_weight_changes_neither_numbers_nor_label(case: Case, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(case.votes)))
    weightless = Vote("mute", 0.0, draw_output(data.draw(SEEDS), case.task, case.rows))
    more = replace(case, votes=(*case.votes[:place], weightless, *case.votes[place:]))
    one, other = predict(case), predict(more)
    assert_allclose(
        pool(case.task, case.aggregation, more.votes),
        pool(case.task, case.aggregation, case.votes),
        rtol=1e-12,
        atol=1e-12,
    )
    if one.classes is not None:
        assert_array_equal(classes(other).label, one.classes.label)
        assert_array_equal(classes(other).tie, one.classes.tie)
        assert not classes(other).pivotal[:, place].any()


@law
@given(cases(), st.data())
def test_many_rows_are_predicted_as_each_alone_bit_for_bit(case: Case, data: st.DataObject) -> None:
    extra = data.draw(shadows(case.task, case.rows))
    together = flatten(predict(case, extra=extra))
    for row in range(case.rows):
        only = slice(row, row + 1)
        votes = tuple(replace(vote, output=vote.output[only]) for vote in case.votes)
        alone = predict(
            replace(case, votes=votes), extra=[ShadowOutput(member, output[only]) for member, output in extra]
        )
        for name, array in flatten(alone).items():
            assert array.tobytes() == together[name][only].tobytes(), name


@law
@given(cases(methods=METHODS - {"stack"}, regression=False))
def test_a_label_that_all_voters_have_is_predicted(case: Case) -> None:
    assert not isinstance(case.task, RegressionTask)
    own = np.stack([own_labels(case.task, vote.output) for vote in case.votes])
    unanimous = (own == own[0]).all(axis=0)
    elected = classes(predict(case))
    tied = [classes(predict(replace(case, votes=(vote,)))).tie for vote in case.votes]
    sure = unanimous & ~np.logical_or.reduce(tied)  # no voter has a tie
    assert_array_equal(elected.label[sure], own[0][sure])
    assert not elected.tie[sure].any()
    assert (elected.agreement[sure] == 1).all()


@law
@given(cases(regression=False))
def test_predictions_of_classes_are_within_their_bounds(case: Case) -> None:
    predictions = predict(case)
    found = classes(predictions)
    assert ((found.probabilities >= 0) & (found.probabilities <= 1)).all()
    assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-12)
    if isinstance(case.task, BinaryTask):
        assert_array_equal(found.probabilities[:, 0], 1 - found.probabilities[:, 1])
        assert_array_equal(found.probabilities[:, 1], predictions.value)
    assert ((found.label >= ABSTAINED) & (found.label < found.probabilities.shape[1])).all()
    assert ((found.agreement >= 0) & (found.agreement <= 1)).all()
    assert ((found.margin >= 0) & (found.margin <= 1)).all()
    assert_array_equal(found.tie, found.margin < 1e-9)
    most = np.log(found.probabilities.shape[1]) + 1e-12
    assert ((found.mean_entropy >= 0) & (found.mean_entropy <= found.entropy) & (found.entropy <= most)).all()
    assert ((found.label == ABSTAINED) == (found.tie & (case.aggregation.tie == "abstain"))).all()
    assert (predictions.spread.std <= predictions.spread.range).all()


@law
@given(cases(regression=False))
def test_a_voter_is_pivotal_where_the_label_is_another_without_it(case: Case) -> None:
    found = classes(predict(case))
    for place in range(len(case.votes)):
        others = case.votes[:place] + case.votes[place + 1 :]
        weighs = name_method(case.aggregation) in WEIGHTED_METHODS
        if not others or (weighs and not any(vote.weight for vote in others)):
            expected = np.zeros(case.rows, dtype=bool)  # without it there would be no prediction
        else:
            expected = classes(predict(replace(case, votes=others))).label != found.label
        assert_array_equal(found.pivotal[:, place], expected)


@law
@given(cases(), st.data())
def test_a_shadow_does_not_change_the_prediction(case: Case, data: st.DataObject) -> None:
    extra = data.draw(shadows(case.task, case.rows))
    without, beside = predict(case), predict(case, extra=extra)
    expected = flatten(without)
    assert beside.shadows.keys() == {member.id for member, _ in extra}
    for name, array in flatten(replace(beside, shadows={})).items():
        assert array.tobytes() == expected[name].tobytes(), name


@law
@given(cases(regression=False), st.data())
def test_a_shadow_agrees_and_flips_as_its_vote_would(case: Case, data: st.DataObject) -> None:
    extra = data.draw(shadows(case.task, case.rows))
    predictions = predict(case, extra=extra)
    label = classes(predictions).label
    for member, output in extra:
        vote = Vote(member.id, member.weight, output)
        own = classes(predict(replace(case, aggregation=Mean(), votes=(vote,)))).label
        view = predictions.shadows[member.id]
        assert_array_equal(view.agrees, own == label)
        bare_label = isinstance(member.output, Label) and not member.output.one_hot
        if isinstance(case.aggregation, Stacking) or (bare_label and name_method(case.aggregation) not in VOTES):
            assert view.flips is None
        else:
            counted = classes(predict(replace(case, votes=(*case.votes, vote)))).label
            assert_array_equal(view.flips, counted != label)


@law
@given(cases())
def test_shares_are_not_negative_and_sum_to_one(case: Case) -> None:
    shares = effective_weights(case.aggregation, case.votes)
    assert (shares >= 0).all()
    assert_allclose(shares.sum(), 1)
