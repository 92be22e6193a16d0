"""Laws that every method obeys, whatever the task, the number of voters and what they say."""

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
from strategies import METHODS, SEEDS, Question, questions, shadows, speak

law = settings(max_examples=60)

REVIEW = Confidence(min_agreement=0.6, max_spread=0.2, min_margin=0.1)


def answer(question: Question, *, extra: list[ShadowOutput] | None = None) -> RowPredictions:
    """Answer a question; a warning of NumPy's is an error."""
    policy = Policy(question.aggregation, review=REVIEW)
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        return predict_rows(question.task, policy, question.votes, extra or [])


def classes(answers: RowPredictions) -> ClassPredictions:
    assert answers.classes is not None
    return answers.classes


def flatten(answers: Any, name: str = "") -> dict[str, Any]:
    """Return every array of a structure by its path."""
    if isinstance(answers, np.ndarray):
        return {name: answers}
    if is_dataclass(answers):
        parts = {field.name: getattr(answers, field.name) for field in fields(answers)}
    else:
        parts = answers or {}
    return {path: array for key, part in parts.items() for path, array in flatten(part, f"{name}.{key}").items()}


def assert_near(one: RowPredictions, other: RowPredictions) -> None:
    """Demand the same labels and flags, and numbers that differ by rounding alone."""
    first, second = flatten(one), flatten(other)
    assert first.keys() == second.keys()
    for name, array in first.items():
        if array.dtype.kind == "f":
            scale = max(1.0, np.abs(np.nan_to_num(array)).max())
            assert_allclose(second[name], array, rtol=1e-9, atol=1e-9 * scale, err_msg=name)
        else:
            assert_array_equal(second[name], array, err_msg=name)


@law
@given(questions(), st.randoms(use_true_random=False))
def test_the_order_of_members_does_not_matter(question: Question, random: Any) -> None:
    order = random.sample(range(len(question.votes)), len(question.votes))
    one, other = answer(question), answer(replace(question, votes=tuple(question.votes[place] for place in order)))
    if one.classes is not None:
        one = replace(one, classes=replace(one.classes, pivotal=one.classes.pivotal[:, order]))
    assert_near(one, other)


@law
@given(questions(), st.floats(0.01, 100))
def test_the_scale_of_weights_does_not_matter(question: Question, factor: float) -> None:
    scaled = tuple(replace(vote, weight=vote.weight * factor) for vote in question.votes)
    assert_near(answer(question), answer(replace(question, votes=scaled)))


@law
@given(questions(methods=METHODS - {"stack"}), st.integers(2, 8))
def test_equal_members_give_that_member(question: Question, times: int) -> None:
    (first, *_) = question.votes
    alone = replace(question, votes=(Vote("one", 1.0, first.output),))
    together = replace(question, votes=tuple(Vote(str(number), 1.0, first.output) for number in range(times)))
    one, many = answer(alone), answer(together)
    if many.classes is not None and one.classes is not None:
        assert not many.classes.pivotal.any()
        assert_array_equal(many.classes.mean_entropy, many.classes.entropy)
        many = replace(many, classes=replace(many.classes, pivotal=one.classes.pivotal))
    assert_near(one, many)
    assert not many.spread.std.any()
    assert not many.spread.range.any()
    if name_method(question.aggregation) not in VOTES:
        assert_allclose(pool(question.task, question.aggregation, together.votes), first.output, rtol=1e-9, atol=1e-9)


@law
@given(questions(methods=METHODS - VOTES - {"stack"}))
def test_an_answer_lies_within_what_the_voters_say(question: Question) -> None:
    method = name_method(question.aggregation)
    if isinstance(question.task, MulticlassTask) and method not in {"mean", "weighted_mean", "soft_vote"}:
        return  # normalized: the greatest of each class sum to more than 1
    pooled = pool(question.task, question.aggregation, question.votes)
    counted = [vote.output for vote in question.votes if method not in WEIGHTED_METHODS or vote.weight > 0]
    # Exactly, but for geometric means, which go through logarithms, and for a first class, which is 1 less the second.
    slack = 0.0 if isinstance(question.task, RegressionTask) else 1e-12
    assert (np.minimum.reduce(counted) - slack <= pooled).all()
    assert (pooled <= np.maximum.reduce(counted) + slack).all()


@law
@given(questions(methods=WEIGHTED_METHODS), st.data())
def test_a_member_without_weight_changes_neither_numbers_nor_label(question: Question, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(question.votes)))
    mute = Vote("mute", 0.0, speak(data.draw(SEEDS), question.task, question.rows))
    more = replace(question, votes=(*question.votes[:place], mute, *question.votes[place:]))
    one, other = answer(question), answer(more)
    assert_allclose(
        pool(question.task, question.aggregation, more.votes),
        pool(question.task, question.aggregation, question.votes),
        rtol=1e-12,
        atol=1e-12,
    )
    if one.classes is not None:
        assert_array_equal(classes(other).label, one.classes.label)
        assert_array_equal(classes(other).tie, one.classes.tie)
        assert not classes(other).pivotal[:, place].any()


@law
@given(questions(), st.data())
def test_many_rows_are_answered_as_each_alone_bit_for_bit(question: Question, data: st.DataObject) -> None:
    extra = data.draw(shadows(question.task, question.rows))
    together = flatten(answer(question, extra=extra))
    for row in range(question.rows):
        only = slice(row, row + 1)
        votes = tuple(replace(vote, output=vote.output[only]) for vote in question.votes)
        alone = answer(
            replace(question, votes=votes), extra=[ShadowOutput(member, output[only]) for member, output in extra]
        )
        for name, array in flatten(alone).items():
            assert array.tobytes() == together[name][only].tobytes(), name


@law
@given(questions(methods=METHODS - {"stack"}, regression=False))
def test_a_label_that_all_voters_have_is_the_answer(question: Question) -> None:
    assert not isinstance(question.task, RegressionTask)
    own = np.stack([own_labels(question.task, vote.output) for vote in question.votes])
    unanimous = (own == own[0]).all(axis=0)
    elected = classes(answer(question))
    tied = [classes(answer(replace(question, votes=(vote,)))).tie for vote in question.votes]
    sure = unanimous & ~np.logical_or.reduce(tied)  # nobody is of two minds
    assert_array_equal(elected.label[sure], own[0][sure])
    assert not elected.tie[sure].any()
    assert (elected.agreement[sure] == 1).all()


@law
@given(questions(regression=False))
def test_what_is_answered_of_classes_is_within_its_bounds(question: Question) -> None:
    answers = answer(question)
    found = classes(answers)
    assert ((found.probabilities >= 0) & (found.probabilities <= 1)).all()
    assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-12)
    if isinstance(question.task, BinaryTask):
        assert_array_equal(found.probabilities[:, 0], 1 - found.probabilities[:, 1])
        assert_array_equal(found.probabilities[:, 1], answers.value)
    assert ((found.label >= ABSTAINED) & (found.label < found.probabilities.shape[1])).all()
    assert ((found.agreement >= 0) & (found.agreement <= 1)).all()
    assert ((found.margin >= 0) & (found.margin <= 1)).all()
    assert_array_equal(found.tie, found.margin < 1e-9)
    most = np.log(found.probabilities.shape[1]) + 1e-12
    assert ((found.mean_entropy >= 0) & (found.mean_entropy <= found.entropy) & (found.entropy <= most)).all()
    assert ((found.label == ABSTAINED) == (found.tie & (question.aggregation.tie == "abstain"))).all()
    assert (answers.spread.std <= answers.spread.range).all()


@law
@given(questions(regression=False))
def test_a_voter_is_pivotal_where_the_label_is_another_without_it(question: Question) -> None:
    found = classes(answer(question))
    for place in range(len(question.votes)):
        others = question.votes[:place] + question.votes[place + 1 :]
        weighs = name_method(question.aggregation) in WEIGHTED_METHODS
        if not others or (weighs and not any(vote.weight for vote in others)):
            expected = np.zeros(question.rows, dtype=bool)  # without it nothing could be answered
        else:
            expected = classes(answer(replace(question, votes=others))).label != found.label
        assert_array_equal(found.pivotal[:, place], expected)


@law
@given(questions(), st.data())
def test_a_shadow_changes_nothing_of_the_answer(question: Question, data: st.DataObject) -> None:
    extra = data.draw(shadows(question.task, question.rows))
    without, beside = answer(question), answer(question, extra=extra)
    expected = flatten(without)
    assert beside.shadows.keys() == {member.id for member, _ in extra}
    for name, array in flatten(replace(beside, shadows={})).items():
        assert array.tobytes() == expected[name].tobytes(), name


@law
@given(questions(regression=False), st.data())
def test_a_shadow_agrees_and_flips_as_its_vote_would(question: Question, data: st.DataObject) -> None:
    extra = data.draw(shadows(question.task, question.rows))
    answers = answer(question, extra=extra)
    label = classes(answers).label
    for member, output in extra:
        vote = Vote(member.id, member.weight, output)
        own = classes(answer(replace(question, aggregation=Mean(), votes=(vote,)))).label
        view = answers.shadows[member.id]
        assert_array_equal(view.agrees, own == label)
        bare_label = isinstance(member.output, Label) and not member.output.one_hot
        if isinstance(question.aggregation, Stacking) or (
            bare_label and name_method(question.aggregation) not in VOTES
        ):
            assert view.flips is None
        else:
            counted = classes(answer(replace(question, votes=(*question.votes, vote)))).label
            assert_array_equal(view.flips, counted != label)


@law
@given(questions())
def test_shares_are_not_negative_and_sum_to_one(question: Question) -> None:
    shares = effective_weights(question.aggregation, question.votes)
    assert (shares >= 0).all()
    assert_allclose(shares.sum(), 1)
