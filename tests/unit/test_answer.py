from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from jsonschema import Draft202012Validator

from builders import BINARY, REGRESSION, THREE, release, released
from stepensemble.core.answer import (
    Answer,
    MemberFailure,
    MemberReport,
    MemberResult,
    Output,
    decide,
    name_failure,
    output_schema,
)
from stepensemble.core.manifest import Task
from stepensemble.core.payload import Pointer

SCHEMA = Draft202012Validator(output_schema())
TIMEOUT = MemberFailure("Sandbox.Timedout", "Task timed out after 1.00 seconds")


def ok(id_: str, *outputs: Any, pointer: Pointer | None = None) -> MemberResult:
    return MemberResult(id_, np.array(outputs), 1.5, cold=False, pointer=pointer)


def failed(id_: str) -> MemberResult:
    return MemberResult(id_, failure=TIMEOUT)


def results(*entries: MemberResult) -> dict[str, MemberResult]:
    return {entry.id: entry for entry in entries}


def reports(answer: Answer) -> dict[str, MemberReport]:
    return {report.id: report for report in answer.members}


WEIGHTED = release(
    BINARY,
    released("a", "probability", weight=1.0),
    released("b", "probability", weight=3.0),
    released("c", "probability", weight=4.0),
    released("shadow", "probability", weight=100.0, role="shadow"),
    method="weighted_mean",
    min_members=2,
)


def test_all_voters_together_are_complete() -> None:
    answer = decide(WEIGHTED, 1, results(ok("a", 0.0), ok("b", 1.0), ok("c", 0.5), ok("shadow", 0.9)))
    assert (answer.status, answer.cause) == ("COMPLETE", None)
    assert answer.predictions[0].value == (0 * 1 + 1 * 3 + 0.5 * 4) / 8
    assert [report.weight for report in answer.members] == [0.125, 0.375, 0.5, 0.0]


def test_a_missing_voter_is_named_and_drops_its_weight() -> None:
    answer = decide(WEIGHTED, 1, results(ok("a", 0.0), ok("b", 1.0), failed("c"), ok("shadow", 0.9)))
    assert answer.status == "DEGRADED"
    assert answer.predictions[0].value == 0.75  # 3 of the remaining 4
    assert [report.weight for report in answer.members] == [0.25, 0.75, 0.0, 0.0]
    assert (reports(answer)["c"].status, reports(answer)["c"].error) == ("failed", TIMEOUT)


def test_below_the_quorum_there_is_no_answer_but_every_report() -> None:
    answer = decide(WEIGHTED, 1, results(failed("a"), failed("b"), ok("c", 0.5), ok("shadow", 0.9)))
    assert (answer.status, answer.predictions) == ("FAILED", [])
    assert answer.cause == "1 of 3 voters answered, and the quorum is 2; missing: a, b"
    assert [report.weight for report in answer.members] == [0.0] * 4
    assert reports(answer)["c"].outputs == [0.5]


@pytest.mark.parametrize("shadow", [ok("shadow", 0.9), failed("shadow")])
def test_a_shadow_is_reported_and_never_counts(shadow: MemberResult) -> None:
    voters = (ok("a", 0.0), ok("b", 1.0), ok("c", 0.5))
    with_shadow, without = decide(WEIGHTED, 1, results(*voters, shadow)), decide(WEIGHTED, 1, results(*voters))
    assert with_shadow.status == without.status == "COMPLETE"
    assert with_shadow.predictions == without.predictions
    report = reports(with_shadow)["shadow"]
    assert (report.role, report.weight, report.error) == ("shadow", 0.0, shadow.failure)


def test_a_shadow_does_not_make_a_quorum() -> None:
    assert decide(WEIGHTED, 1, results(ok("c", 0.5), ok("shadow", 0.5))).status == "FAILED"


def test_a_member_that_nothing_came_back_from_has_failed() -> None:
    report = reports(decide(WEIGHTED, 1, {}))["a"]
    assert (report.status, report.error) == ("failed", MemberFailure("NoResult", "no result came back"))


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([0.5, 0.5], "the output has shape [2] for 1 rows"),
        ([np.nan], "the output of row 0 is not finite (1 of 1 rows)"),
        ([1.5], "the output of row 0, 1.5, is no probability: outside [0, 1] (1 of 1 rows)"),
        ([[0.5, 0.5]], 'the output has 2 numbers a row, and "probability" means 1'),
    ],
)
def test_an_invalid_output_is_that_members_failure(outputs: Any, message: str) -> None:
    answer = decide(WEIGHTED, 1, results(ok("a", *outputs), ok("b", 1.0), ok("c", 0.5)))
    assert answer.status == "DEGRADED"
    assert reports(answer)["a"].error == MemberFailure("InvalidOutput", message)


def test_outputs_stay_in_the_answer_even_where_they_travelled_by_pointer() -> None:
    pointer = Pointer("s3://data/executions/run/outputs/a.npy")
    answer = decide(WEIGHTED, 1, results(ok("a", 0.0, pointer=pointer), ok("b", 1.0), ok("c", 0.5)))
    assert reports(answer)["a"].outputs == [0.0]  # the pointer expires, and the answer is recorded


def test_a_binary_prediction_has_a_label_its_score_and_both_probabilities() -> None:
    answer = decide(WEIGHTED, 2, results(ok("a", 0.0, 1.0), ok("b", 0.0, 1.0), ok("c", 0.5, 1.0)))
    first, second = (msgspec.to_builtins(prediction) for prediction in answer.predictions)
    assert first == {
        "value": 0.25,
        "spread": pytest.approx(np.std([0, 0, 0.5])),
        "label": "no",
        "score": 0.75,
        "probabilities": [0.75, 0.25],
        "agreement": pytest.approx(2 / 3),  # "c" alone would say yes
        "tie": False,
    }
    assert (second["label"], second["score"], second["agreement"]) == ("yes", 1.0, 1.0)


def test_a_multiclass_prediction_has_the_winners_index_as_value() -> None:
    three = release(THREE, released("a", "probabilities"), released("b", "label"), method="hard_vote")
    answer = decide(three, 1, results(ok("a", [0.1, 0.2, 0.7]), ok("b", 2)))
    (prediction,) = answer.predictions
    assert (prediction.value, prediction.label, prediction.score) == (2.0, "blue", 1.0)
    assert prediction.probabilities == [0.0, 0.0, 1.0]


def test_a_regressions_prediction_is_a_value_and_its_spread() -> None:
    answer = decide(release(REGRESSION, released("a"), released("b")), 1, results(ok("a", 1.0), ok("b", 3.0)))
    assert msgspec.to_builtins(answer.predictions) == [{"value": 2.0, "spread": 1.0}]


@pytest.mark.parametrize("task", [BINARY, THREE, REGRESSION])
@pytest.mark.parametrize("broken", [False, True])
def test_an_output_is_as_its_schema_says(task: Task, broken: bool) -> None:
    kind: Any = {BINARY: "probability", THREE: "probabilities", REGRESSION: "value"}[task]
    outputs = [[0.2, 0.3, 0.5]] if task is THREE else [0.5]
    asked = release(task, released("a", kind), released("b", kind))
    answer = decide(asked, 1, results(ok("a", *outputs), failed("b") if broken else ok("b", *outputs)))
    output = Output("p", "0" * 64, answer.status, answer.predictions, answer.members)
    SCHEMA.validate(json.loads(msgspec.json.encode(output)))
    pointed = Output("p", "0" * 64, answer.status, Pointer("s3://b/k"), answer.members)
    SCHEMA.validate(json.loads(msgspec.json.encode(pointed)))


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (json.dumps({"errorMessage": "no such file", "errorType": "X", "stackTrace": ["…"]}), "no such file"),
        ("plain words", "plain words"),
        ("", "no cause was given"),
        ("[1]", "[1]"),
        ('{"other": 1}', '{"other": 1}'),
    ],
)
def test_what_a_state_machine_caught_is_read(cause: str, message: str) -> None:
    assert name_failure("ArtifactMissing", cause) == MemberFailure("ArtifactMissing", message)
