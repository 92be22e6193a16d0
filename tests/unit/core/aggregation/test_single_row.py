from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from builders import BINARY, REGRESSION, THREE, release, released
from stepensemble.core.aggregation.execution import ExecutionResult, FastPath, decide
from stepensemble.core.aggregation.output import MemberFailure
from stepensemble.core.aggregation.output_source import CollectedResults, MemberResult
from stepensemble.core.aggregation.single_row import prepare_fast_path
from stepensemble.core.releases.release import Release
from stepensemble.core.schema.outputs import (
    Label,
    Logit,
    Logits,
    Output,
    Probabilities,
    Probability,
    Value,
)
from stepensemble.core.schema.policy import Confidence, GeometricMean, Mean, Quorum, Stacking, WeightedMean
from stepensemble.core.schema.task import BinaryTask, RegressionTask, Task, name_classes
from strategies import METHODS, Case, cases

REVIEWS = [
    None,
    Confidence(min_agreement=0.6, max_spread=0.2, min_margin=0.1),
    Confidence(max_spread=1.0),
    Confidence(min_margin=0.5),
]


def fast_path_of(compiled: Release) -> FastPath:
    fast_path = prepare_fast_path(compiled)
    assert fast_path is not None
    return fast_path


def predict_by_arrays(compiled: Release, results: dict[str, MemberResult]) -> ExecutionResult:
    result = decide(compiled, compiled.policy, 1, CollectedResults([results]))
    assert isinstance(result, ExecutionResult)
    return result


def declare(task: Task, output: Any, kind: int) -> tuple[Output, Any]:
    """Return one of the forms that a model's output for a row, `(1, …)`, may have, and the declared output."""
    if isinstance(task, RegressionTask):
        return [(Value(), output), (Value(scale=-2.5, offset=0.1), output)][kind % 2]
    classes = name_classes(task)
    forms: list[tuple[Output, Any]] = [
        (Probabilities(), output),
        (Probabilities(classes=classes[::-1], tolerance=0.1), output[:, ::-1]),
        (Probabilities(temperature=2.0), output),
        (Label(one_hot=True), output.argmax(axis=1)),
        (Logits(), output * 7),
    ]
    if isinstance(task, BinaryTask):
        forms += [
            (Probability(), output[:, 1]),
            (Probability(), output[:, 1].astype(np.float32)),
            (Probability(of=classes[0]), output[:, 0]),
            (Logit(), output[:, 1] * 3),
        ]
    return forms[kind % len(forms)]


@settings(max_examples=600)
@given(cases(methods=METHODS - {"stack", "geometric_mean"}), st.data())
@pytest.mark.slow
def test_law_the_fast_path_equals_the_arrays_bit_for_bit(case: Case, data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.integers(0, 8), min_size=len(case.votes), max_size=len(case.votes)))
    review = data.draw(st.sampled_from(REVIEWS))
    for row in range(case.rows):
        members, results = [], {}
        for vote, kind in zip(case.votes, kinds, strict=True):
            output, raw = declare(case.task, vote.output[row : row + 1], kind)
            members.append(released(vote.id, output, weight=vote.weight))
            results[vote.id] = MemberResult(vote.id, raw, 0.25, cold=False)
        compiled = release(case.task, *members, aggregation=case.aggregation, review=review)
        # Equal floats, not near ones: every operation is the same as with arrays.
        assert fast_path_of(compiled)(results) == predict_by_arrays(compiled, results)


@pytest.mark.parametrize(
    "compiled",
    [
        release(BINARY, released("a", "probability"), aggregation=GeometricMean()),
        release(REGRESSION, released("a"), aggregation=Stacking(coefficients={"a": 1.0}, missing="refuse")),
        release(BINARY, released("a", "probability"), released("b", "probability", role="shadow")),
        release(
            BINARY,
            released("a", "probability"),
            released("b", "probability", tier=2),
            cascade=Confidence(min_margin=0.5),
        ),
        release(BINARY, released("a", "probability"), quorum=Quorum(min_members=2)),
        release(BINARY, released("a", "probability", weight=0.0), aggregation=WeightedMean()),
    ],
    ids=["logarithms", "coefficients", "shadows", "cascade", "no quorum", "no weight"],
)
def test_other_releases_have_no_fast_path(compiled: Release) -> None:
    assert prepare_fast_path(compiled) is None


@pytest.mark.parametrize(
    ("task", "output", "raw"),
    [
        (BINARY, Probability(), np.array([1.5])),
        (BINARY, Probability(), np.array([np.nan])),
        (BINARY, Probability(), np.array([0.25, 0.5])),
        (BINARY, Probability(of="no"), np.array([-1.0])),
        (THREE, Probabilities(), np.array([[0.5, 0.5]])),
        (THREE, Label(), np.array([3])),
        (REGRESSION, Value(), np.array([np.inf])),
        (REGRESSION, Value(scale=1e300), np.array([1e300])),
        (REGRESSION, Value(), np.array(["red"])),
    ],
)
def test_an_output_that_is_not_what_was_declared_needs_the_arrays(task: Task, output: Output, raw: Any) -> None:
    compiled = release(task, released("a", output), aggregation=Mean())
    assert fast_path_of(compiled)({"a": MemberResult("a", raw)}) is None


def test_a_failed_or_missing_member_needs_the_arrays() -> None:
    compiled = release(REGRESSION, released("a"), released("b"))
    result = MemberResult("a", np.array([1.0]))
    failed = MemberResult("b", failure=MemberFailure("ModelRefused", "broken"))
    assert fast_path_of(compiled)({"a": result}) is None
    assert fast_path_of(compiled)({"a": result, "b": failed}) is None


def test_a_probability_a_little_beyond_1_counts_as_1() -> None:
    compiled = release(BINARY, released("a", "probability"))
    results = {"a": MemberResult("a", np.array([1.0005]))}
    result = fast_path_of(compiled)(results)
    assert result == predict_by_arrays(compiled, results)
    assert result is not None
    assert result.predictions[0].value == 1.0
