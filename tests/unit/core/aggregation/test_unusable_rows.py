"""A member's unusable output for a row is its failure in that row, and no other row's prediction depends on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings

import strategies
from builders import BINARY, REGRESSION, THREE, Supply, member, release, released, sources
from stepensemble import Ensemble
from stepensemble.batch.output.result_table import ShardPredictions, predict_shard
from stepensemble.core.aggregation.decision import Undecided
from stepensemble.core.aggregation.execution import ExecutionResult, decide
from stepensemble.core.aggregation.output import Prediction
from stepensemble.core.aggregation.output_source import CollectedResults, MemberResult, Results
from stepensemble.core.aggregation.single_row import prepare_fast_path
from stepensemble.core.errors import QuorumNotMet
from stepensemble.core.preprocessing.columns import select_rows
from stepensemble.core.preprocessing.encoding import normalize
from stepensemble.core.releases.release import Release
from stepensemble.core.schema.outputs import Label, Value
from stepensemble.core.schema.policy import Confidence, Quorum
from stepensemble.ensemble import _LoadedMembers


def predict(compiled: Release, results: Results, rows: int) -> ExecutionResult:
    decided = decide(compiled, compiled.policy, rows, CollectedResults([results]))
    assert not isinstance(decided, Undecided)
    return decided


def select(results: Results, rows: Any) -> dict[str, MemberResult]:
    return {id_: MemberResult(id_, one.outputs[rows]) for id_, one in results.items() if one.outputs is not None}


def shard(compiled: Release, results: Results, numbers: Any) -> ShardPredictions:
    lines = pl.DataFrame({"file": ["a.csv"] * len(numbers), "row": np.asarray(numbers) + 1})
    predictions = predict_shard(compiled, compiled.policy, lines, CollectedResults([select(results, numbers)]))
    assert isinstance(predictions, ShardPredictions)
    return predictions


@st.composite
def poisoned(draw: st.DrawFn) -> tuple[Release, dict[str, MemberResult], int]:
    """Draw a release, and its members' outputs for some rows, some of them unusable."""
    case = draw(strategies.cases())
    kind = "value" if not hasattr(case.task, "classes") else "probabilities"
    members = [released(vote.id, kind, weight=vote.weight) for vote in case.votes]
    outputs = {vote.id: vote.output.copy() for vote in case.votes}
    for shadow, output in draw(strategies.shadows(case.task, case.rows)):
        if not isinstance(shadow.output, Label):
            members.append(shadow)
            outputs[shadow.id] = output.copy()
    generator = draw(strategies.SEEDS)
    for output in outputs.values():
        gone = generator.random(case.rows) < draw(st.sampled_from([0.0, 0.2, 0.7]))
        output[gone] = generator.choice([np.nan, np.inf] if kind == "value" else [np.nan, -np.inf, 7.0])
    quorum = Quorum(min_members=draw(st.sampled_from([None, 1, len(case.votes)])))
    review = draw(st.sampled_from([None, Confidence(max_spread=0.1)]))
    compiled = release(case.task, *members, aggregation=case.aggregation, quorum=quorum, review=review)
    return compiled, {id_: MemberResult(id_, output) for id_, output in outputs.items()}, case.rows


@settings(max_examples=60, deadline=None)
@given(poisoned())
def test_law_a_row_is_predicted_among_others_as_it_is_alone(drawn: Any) -> None:
    compiled, results, rows = drawn
    together = predict(compiled, results, rows)
    fast_path = prepare_fast_path(compiled)
    statuses = []
    for row in range(rows):
        one = select(results, np.array([row]))
        alone = predict(compiled, one, 1)
        statuses.append(alone.status)
        if alone.cause is not None:
            assert together.status == "FAILED" or together.predictions[row].failure == alone.cause
            continue
        assert msgspec.to_builtins(together.predictions[row]) == msgspec.to_builtins(alone.predictions[0])
        fast = None if fast_path is None else fast_path(one)
        assert fast is None or fast.predictions == alone.predictions
    assert (together.status == "FAILED") is (set(statuses) == {"FAILED"})
    assert (together.status == "COMPLETE") is (set(statuses) == {"COMPLETE"})


@settings(max_examples=40, deadline=None)
@given(poisoned(), st.data())
def test_law_results_are_the_same_at_any_shard_size(drawn: Any, data: st.DataObject) -> None:
    compiled, results, rows = drawn
    whole = shard(compiled, results, np.arange(rows))
    size = data.draw(st.integers(1, rows))
    cut = [shard(compiled, results, np.arange(first, min(first + size, rows))) for first in range(0, rows, size)]
    assert pl.concat([part.frame for part in cut]).equals(whole.frame)
    assert pl.concat([part.predictions.cast(whole.frame.schema) for part in cut]).height == whole.predictions.height
    assert [why for part in cut for why in part.failed.values()] == list(whole.failed.values())


POISONED = 617
"""The row of a thousand whose logarithm is NaN; x = -1 there."""


@pytest.mark.parametrize("voters", [2, 3])
def test_one_of_a_thousand_rows_misses_a_member_at_any_shard_size(tmp_path: Path, voters: int) -> None:
    members = [member("half"), member("log", "logarithm"), member("other")][:voters]
    ensemble = Ensemble.load(sources(tmp_path, *members).path)
    xs = np.arange(1, 1001)
    xs[POISONED] = -1
    instances = [{"x": x} for x in xs.tolist()]
    columns = normalize(ensemble.release.features, instances)
    frames = []
    # One row at a time only near the poisoned one: each shard takes a few milliseconds.
    near = slice(POISONED - 17, POISONED + 18)
    for size, rows in ((1, range(1000)[near]), (7, range(1000)), (1000, range(1000))):
        parts = []
        for first in rows[::size]:
            numbers = np.arange(first, min(first + size, 1000))
            lines = pl.DataFrame({"row": numbers + 1})
            source = _LoadedMembers(ensemble, select_rows(columns, numbers))
            predictions = predict_shard(ensemble.release, ensemble.release.policy, lines, source)
            assert isinstance(predictions, ShardPredictions)
            parts.append(predictions.frame)
        frames.append(pl.concat(parts))
    assert frames[0].equals(frames[2][near])
    assert frames[1].equals(frames[2])
    table = ensemble.predict_table({"x": xs})
    assert table.equals(frames[2].drop("row"))
    output = ensemble.predict({"instances": instances})
    for line, prediction in zip(table.to_dicts(), output["predictions"], strict=True):
        assert (line["value"], line["decision"]) == (prediction["value"], prediction["decision"])
    poisoned = table.row(POISONED, named=True)
    kept = output["predictions"][POISONED]
    assert (poisoned["log_status"], poisoned["log_output"], kept["missing"]) == ("failed", None, ["log"])
    others = table.filter(np.arange(1000) != POISONED)
    assert set(others["status"]) == {"COMPLETE"}
    # half_plus_two(x) = x / 2 + 2; the mean is of all the voters that have an output.
    halves = voters - 1
    expected = (halves * (2 + xs / 2) + np.log(np.maximum(xs, 1))) / voters
    np.testing.assert_allclose(others["value"], np.delete(expected, POISONED), rtol=1e-5)
    if voters == 3:
        assert (poisoned["value"], poisoned["status"], output["rows_failed"]) == (1.5, "DEGRADED", 0)
    else:
        assert (poisoned["value"], poisoned["status"], output["rows_failed"]) == (None, "FAILED", 1)
        assert kept["decision"] == "failed"
        assert kept["failure"] == (
            "1 of 2 voters responded, and the quorum is 2; missing: log; log: its output is not finite"
        )
        with pytest.raises(QuorumNotMet, match="log: its output is not finite"):
            ensemble.predict({"features": {"x": -1}})
        with pytest.raises(QuorumNotMet, match="log: its output is not finite"):
            ensemble.predict_table({"x": [-1, -2]})
    json.dumps(output, allow_nan=False)
    half, log = output["members"][:2]
    assert (half["status"], log["status"], log["outputs"][POISONED]) == ("ok", "partial", None)
    assert log["error"]["message"] == f"the output of row {POISONED} is not finite (1 of 1000 rows)"
    assert half["weight"] == log["weight"] == pytest.approx(1 / voters)
    assert output["participation"]["voter"] == {"invoked": voters, "responded": voters, "weight": 1.0}


def test_unusable_outputs_are_explained_row_by_row() -> None:
    members = released("a", "probability"), released("b", "probability"), released("c", Label(one_hot=True))
    compiled = release(BINARY, *members, quorum=Quorum(min_members=3))
    outputs = {"a": [0.25, 1.5, np.nan, 0.5], "b": [0.75, -0.25, 0.5, 0.5], "c": [1, 0, 1, 2]}
    decided = predict(compiled, {id_: MemberResult(id_, np.array(one)) for id_, one in outputs.items()}, 4)
    assert [prediction.missing for prediction in decided.predictions] == [msgspec.UNSET, ["a", "b"], ["a"], ["c"]]
    assert [prediction.failure for prediction in decided.predictions[1:]] == [
        "1 of 3 voters responded, and the quorum is 3; missing: a, b; "
        "a: its output, 1.5, is outside [0, 1] by more than 0.001; "
        "b: its output, -0.25, is outside [0, 1] by more than 0.001",
        "2 of 3 voters responded, and the quorum is 3; missing: a; a: its output is not finite",
        "2 of 3 voters responded, and the quorum is 3; missing: c; c: its output, 2, is not one of the labels 0 … 1",
    ]
    output = decided.to_output("p", "r")
    assert (output.status, output.rows_failed, output.needs_review) == ("DEGRADED", 3, 0)
    assert [report.status for report in output.members] == ["partial"] * 3
    assert output.members[0].outputs == [0.25, 1.5, None, 0.5]
    assert output.members[0].error is not None
    assert output.members[0].error.message.endswith("outside [0, 1] by more than 0.001 (2 of 4 rows)")


def test_unknown_names_and_numbers_that_overflow_once_scaled_affect_only_their_row() -> None:
    outputs = {"a": np.array(["red", "mauve"]), "b": np.array(["blue", "blue"])}
    compiled = release(THREE, released("a", Label(one_hot=True)), released("b", Label(one_hot=True)), quorum=Quorum(1))
    decided = predict(compiled, {id_: MemberResult(id_, one) for id_, one in outputs.items()}, 2)
    assert [prediction.label for prediction in decided.predictions] == ["red", "blue"]
    assert decided.predictions[1].missing == ["a"]
    scaled = release(REGRESSION, released("a", Value(scale=10.0)), released("b", "value"), quorum=Quorum(1))
    numbers = {"a": np.array([1.0, 1.7e308]), "b": np.array([20.0, 4.0])}
    decided = predict(scaled, {id_: MemberResult(id_, one) for id_, one in numbers.items()}, 2)
    assert [prediction.value for prediction in decided.predictions] == [15.0, 4.0]


def test_text_that_is_not_utf_8_affects_only_its_row() -> None:
    compiled = release(BINARY, released("a", Label(one_hot=True)), released("b", "probability"), quorum=Quorum(1))
    outputs = {"a": np.array([b"yes", b"\xff"], dtype=object), "b": np.array([1.0, 1.0])}
    decided = predict(compiled, {id_: MemberResult(id_, one) for id_, one in outputs.items()}, 2)
    assert [prediction.missing for prediction in decided.predictions] == [msgspec.UNSET, ["a"]]


def test_a_shadow_without_an_output_for_a_row_is_left_out_of_that_row_only() -> None:
    compiled = release(BINARY, released("a", "probability"), released("s", "probability", role="shadow"))
    outputs = {"a": MemberResult("a", np.array([0.9, 0.9])), "s": MemberResult("s", np.array([0.8, np.nan]))}
    decided = predict(compiled, outputs, 2)
    assert decided.status == "COMPLETE"
    assert [set(prediction.shadows or {}) for prediction in decided.predictions] == [{"s"}, set()]
    assert [report.status for report in decided.members] == ["ok", "partial"]


def test_in_a_cascade_a_row_that_misses_a_voter_goes_to_the_next_tier() -> None:
    members = released("a", "probability"), released("b", "probability"), released("c", "probability", tier=2)
    compiled = release(BINARY, *members, cascade=Confidence(min_margin=0.5), quorum=Quorum(min_members=2))
    requests: list[tuple[int, list[int]]] = []
    outputs = {"a": np.array([0.9, 0.9, 0.6]), "b": np.array([0.9, np.nan, 0.6]), "c": np.array([0.1, 0.8, np.nan])}

    def get_results(tier: int, numbers: Any) -> Results:
        requests.append((tier, numbers.tolist()))
        return {one.id: MemberResult(one.id, outputs[one.id][numbers]) for one in compiled.in_tier(tier)}

    decided = decide(compiled, compiled.policy, 3, Supply(get_results))
    assert isinstance(decided, ExecutionResult)
    assert requests == [(1, [0, 1, 2]), (2, [1, 2])]
    found: list[tuple[Any, Any, Any]] = [(one.tier, one.decision, one.missing) for one in decided.predictions]
    assert found == [(1, "accept", msgspec.UNSET), (2, "accept", ["b"]), (2, "accept", ["c"])]
    assert decided.predictions[1].value == pytest.approx(0.85)


def test_a_cascade_without_any_prediction_has_failed() -> None:
    members = released("a", "probability"), released("b", "probability"), released("c", "probability", tier=2)
    compiled = release(
        BINARY, *members, cascade=Confidence(min_margin=0.5), quorum=Quorum(required=("c",), min_members=1)
    )
    outputs = {"a": [0.6, 0.6], "b": [0.6, 0.6], "c": [np.nan, np.nan]}
    results = {id_: MemberResult(id_, np.array(one)) for id_, one in outputs.items()}
    decided = decide(compiled, compiled.policy, 2, Supply(lambda _tier, numbers: select(results, numbers)))
    assert isinstance(decided, ExecutionResult)
    assert (decided.status, decided.predictions) == ("FAILED", [])
    assert decided.cause == "2 of 3 voters responded, and c is required; missing: c; c: its output is not finite"


def test_many_unusable_rows_are_explained_quickly() -> None:
    compiled = release(BINARY, released("a", "probability"), released("b", "probability"), quorum=Quorum(2))
    rows = 100_000
    results = {"a": MemberResult("a", np.full(rows, np.nan)), "b": MemberResult("b", np.full(rows, 0.5))}
    assert len(shard(compiled, results, np.arange(rows)).failed) == rows


def test_a_row_without_a_prediction_matches_the_schema() -> None:
    for task, kind in ((BINARY, "probability"), (REGRESSION, "value")):
        compiled = release(task, released("a", kind), quorum=Quorum(1))
        decided = predict(compiled, {"a": MemberResult("a", np.array([np.nan, 0.5]))}, 2)
        carried = msgspec.json.decode(msgspec.json.encode(decided.predictions))
        assert msgspec.convert(carried, list[Prediction]) == decided.predictions
        assert carried[0]["decision"] == "failed"
        assert {carried[0][name] for name in ("value", "spread", "range")} == {None}
