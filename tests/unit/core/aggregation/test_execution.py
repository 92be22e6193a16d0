"""The published form of an execution's result, and how members' raw outputs are reported."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from msgspec import structs
from scipy.stats import entropy

from builders import BINARY, REGRESSION, THREE, release, released
from stepensemble.core.aggregation.decision import Undecided
from stepensemble.core.aggregation.execution import ExecutionResult, decide
from stepensemble.core.aggregation.output import MemberFailure, MemberReport, Participation, output_schema
from stepensemble.core.aggregation.output_source import CollectedResults, MemberResult
from stepensemble.core.payload import Pointer
from stepensemble.core.releases.release import Release
from stepensemble.core.schema.outputs import Label
from stepensemble.core.schema.policy import Confidence, HardVote, Quorum, WeightedMean, override_quorum
from stepensemble.core.schema.task import Task
from stepensemble.handlers.prediction.member_results import name_failure

SCHEMA = Draft202012Validator(output_schema())
TIMEOUT = MemberFailure("Sandbox.Timedout", "Task timed out after 1.00 seconds")


def ok(id_: str, *outputs: Any, pointer: Pointer | None = None) -> MemberResult:
    return MemberResult(id_, np.array(outputs), 1.5, cold=False, pointer=pointer)


def failed(id_: str) -> MemberResult:
    return MemberResult(id_, failure=TIMEOUT)


def predict(compiled: Release, rows: int, *results: MemberResult) -> ExecutionResult:
    """Decide from the results of one tier."""
    decided = decide(compiled, compiled.policy, rows, CollectedResults([{result.id: result for result in results}]))
    assert isinstance(decided, ExecutionResult)
    return decided


def reports(result: ExecutionResult) -> dict[str, MemberReport]:
    return {report.id: report for report in result.members}


def published(result: ExecutionResult) -> Any:
    """Return a result as JSON data, checked against its schema."""
    output = json.loads(msgspec.json.encode(result.to_output("p", "0" * 64)))
    SCHEMA.validate(output)
    return output


WEIGHTED = release(
    BINARY,
    released("a", "probability", weight=1.0),
    released("b", "probability", weight=3.0),
    released("c", "probability", weight=4.0),
    released("shadow", "probability", weight=100.0, role="shadow"),
    aggregation=WeightedMean(),
    quorum=Quorum(min_members=2),
)
ALL = (ok("a", 0.0), ok("b", 1.0), ok("c", 0.5), ok("shadow", 0.9))
TWO_ROWS = (ok("a", 0.0, 1.0), ok("b", 0.0, 1.0), ok("c", 0.5, 1.0))


def test_all_voters_together_are_complete() -> None:
    complete = predict(WEIGHTED, 1, *ALL)
    assert (complete.status, complete.cause) == ("COMPLETE", None)
    assert complete.predictions[0].value == (0 * 1 + 1 * 3 + 0.5 * 4) / 8
    assert [report.weight for report in complete.members] == [0.125, 0.375, 0.5, 0.0]
    assert complete.participation == {"voter": Participation(3, 3, 1.0), "shadow": Participation(1, 1, 1.0)}


def test_a_missing_voter_is_named_and_drops_its_weight() -> None:
    degraded = predict(WEIGHTED, 1, ok("a", 0.0), ok("b", 1.0), failed("c"), ok("shadow", 0.9))
    assert degraded.status == "DEGRADED"
    assert degraded.predictions[0].value == 0.75  # 3 of the remaining 4
    assert [report.weight for report in degraded.members] == [0.25, 0.75, 0.0, 0.0]
    assert (reports(degraded)["c"].status, reports(degraded)["c"].error) == ("failed", TIMEOUT)
    assert degraded.participation["voter"] == Participation(invoked=3, responded=2, weight=0.5)


def test_below_the_quorum_there_is_no_prediction_but_every_report() -> None:
    none = predict(WEIGHTED, 1, failed("a"), failed("b"), ok("c", 0.5), ok("shadow", 0.9))
    assert (none.status, none.predictions, none.needs_review) == ("FAILED", [], 0)
    assert none.cause == "1 of 3 voters responded, and the quorum is 2; missing: a, b"
    assert [report.weight for report in none.members] == [0.0] * 4
    assert reports(none)["c"].outputs == [0.5]
    assert none.participation["voter"] == Participation(invoked=3, responded=1, weight=0.5)
    assert published(none)["status"] == "FAILED"


@pytest.mark.parametrize("shadow", [ok("shadow", 0.9), failed("shadow")])
def test_a_shadow_is_reported_and_never_counts(shadow: MemberResult) -> None:
    alone = structs.replace(WEIGHTED, members=WEIGHTED.voters)
    with_shadow, without = predict(WEIGHTED, 1, *ALL[:3], shadow), predict(alone, 1, *ALL[:3])
    assert with_shadow.status == without.status == "COMPLETE"
    assert [structs.replace(p, shadows=msgspec.UNSET) for p in with_shadow.predictions] == without.predictions
    report = reports(with_shadow)["shadow"]
    assert (report.role, report.weight, report.error) == ("shadow", 0.0, shadow.failure)
    assert with_shadow.participation["shadow"].responded == (shadow.failure is None)
    assert without.participation["shadow"] == Participation(0, 0, 0.0)


def test_a_shadow_does_not_make_a_quorum() -> None:
    assert predict(WEIGHTED, 1, ok("c", 0.5), ok("shadow", 0.5)).status == "FAILED"


def test_a_member_without_a_result_has_failed() -> None:
    report = reports(predict(WEIGHTED, 1))["a"]
    assert (report.status, report.error) == ("failed", MemberFailure("NoResult", "the member returned no result"))


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([0.5, 0.5], "the output has shape [2] for 1 rows"),
        ([np.nan], "the output of row 0 is not finite (1 of 1 rows)"),
        ([1.5], "the output of row 0, 1.5, is outside [0, 1] by more than 0.001 (1 of 1 rows)"),
        ([[0.5, 0.5]], 'the output has 2 numbers a row, and "probability" means 1'),
        (["yes"], 'the output is text, and "probability" means numbers'),
    ],
)
def test_an_invalid_output_is_that_members_failure(outputs: Any, message: str) -> None:
    degraded = predict(WEIGHTED, 1, ok("a", *outputs), *ALL[1:])
    assert degraded.status == "DEGRADED"
    assert reports(degraded)["a"].error == MemberFailure("InvalidOutput", message)


def test_outputs_are_in_the_result_even_where_they_travelled_by_pointer() -> None:
    pointer = Pointer("s3://data/executions/run/outputs/a.npy")
    complete = predict(WEIGHTED, 1, ok("a", 0.0, pointer=pointer), *ALL[1:])
    assert reports(complete)["a"].outputs == [0.0]  # the pointer expires, and the result is recorded


def test_a_binary_prediction_by_hand() -> None:
    first, second = published(predict(structs.replace(WEIGHTED, members=WEIGHTED.voters), 2, *TWO_ROWS))["predictions"]
    assert first == {
        "value": 0.25,
        "spread": pytest.approx(np.std([0, 0, 0.5])),
        "range": 0.5,
        "decision": "accept",
        "label": "no",
        "score": 0.75,
        "probabilities": [0.75, 0.25],
        "agreement": pytest.approx(2 / 3),  # "c" alone would predict yes
        "tie": False,
        "margin": 0.5,
        "entropy": pytest.approx(entropy([0.75, 0.25])),
        "mean_entropy": pytest.approx(np.log(2) / 2),  # c, with half of the weight, has 0.5 and 0.5
        "mutual_information": pytest.approx(entropy([0.75, 0.25]) - np.log(2) / 2),
        "pivotal": [],  # without a 2 / 7, without b 2 / 5, without c 0
    }
    assert (second["label"], second["score"], second["agreement"]) == ("yes", 1.0, 1.0)
    assert (second["entropy"], second["mutual_information"], second["margin"]) == (0.0, 0.0, 1.0)


def test_pivotal_voters_are_named() -> None:
    (prediction,) = predict(WEIGHTED, 1, ok("a", 0.0), ok("b", 1.0), ok("c", 0.5), failed("shadow")).predictions
    # 5 / 8; without a 5 / 7, without b 2 / 5, without c 3 / 4
    assert prediction.pivotal == ["b"]


def test_a_prediction_reports_whether_a_shadow_agrees_and_flips() -> None:
    (prediction,) = published(predict(WEIGHTED, 1, *ALL[:3], ok("shadow", 0.1)))["predictions"]
    assert prediction["shadows"] == {"shadow": {"agrees": False, "flips": True}}  # 100 of 108 parts of the weight
    averaged = structs.replace(WEIGHTED.members[3], output=Label())
    members = structs.replace(WEIGHTED, members=(*WEIGHTED.voters, averaged))
    (prediction,) = published(predict(members, 1, *ALL[:3], ok("shadow", "yes")))["predictions"]
    assert prediction["shadows"] == {"shadow": {"agrees": True, "flips": None}}


def test_without_a_responding_shadow_a_prediction_has_no_shadows() -> None:
    (prediction,) = published(predict(WEIGHTED, 1, *ALL[:3], failed("shadow")))["predictions"]
    assert {"shadows", "tier"}.isdisjoint(prediction)


VOTERS = released("a", "probabilities"), released("b", "label")


def test_a_multiclass_prediction_has_the_winners_index_as_value() -> None:
    three = release(THREE, *VOTERS, aggregation=HardVote())
    (prediction,) = predict(three, 1, ok("a", [0.1, 0.2, 0.7]), ok("b", 2)).predictions
    assert (prediction.value, prediction.label, prediction.score) == (2.0, "blue", 1.0)
    assert prediction.probabilities == [0.0, 0.0, 1.0]


def test_a_name_is_a_label() -> None:
    three = release(THREE, *VOTERS, aggregation=HardVote())
    named = predict(three, 2, ok("a", [0.1, 0.2, 0.7], [0.8, 0.1, 0.1]), ok("b", "blue", "red"))
    assert [prediction.label for prediction in named.predictions] == ["blue", "red"]
    assert published(named)["members"][1]["outputs"] == ["blue", "red"]
    wrong = reports(predict(three, 1, ok("a", [0.1, 0.2, 0.7]), ok("b", "bleu")))["b"]
    assert wrong.error is not None
    assert '"bleu", is not one of the labels' in wrong.error.message


@pytest.mark.parametrize(("review", "decision"), [(None, "abstain"), (Confidence(max_spread=1.0), "review")])
def test_where_a_tie_is_left_unbroken_there_is_no_label(review: Confidence | None, decision: str) -> None:
    three = release(THREE, *VOTERS, aggregation=HardVote(tie="abstain"), review=review)
    output = published(predict(three, 2, ok("a", [0.1, 0.2, 0.7], [0.8, 0.1, 0.1]), ok("b", "red", "red")))
    first, second = output["predictions"]
    assert (first["value"], first["label"], first["score"], first["tie"]) == (None, None, None, True)
    assert (first["probabilities"], first["pivotal"]) == ([0.5, 0.0, 0.5], ["a", "b"])
    assert (first["decision"], second["decision"]) == (decision, "accept")
    assert (second["label"], second["tie"]) == ("red", False)
    assert output["needs_review"] == (decision == "review")


def test_a_binary_value_stays_where_there_is_no_label() -> None:
    two = release(BINARY, released("a", "label"), released("b", "label"), aggregation=HardVote(tie="abstain"))
    (prediction,) = predict(two, 1, ok("a", 0), ok("b", 1)).predictions
    assert (prediction.value, prediction.label, prediction.score) == (0.5, None, None)


def test_rows_for_review_are_counted() -> None:
    compiled = structs.replace(WEIGHTED, policy=structs.replace(WEIGHTED.policy, review=Confidence(min_margin=0.6)))
    output = published(predict(compiled, 2, *TWO_ROWS, failed("shadow")))
    assert [prediction["decision"] for prediction in output["predictions"]] == ["review", "accept"]
    assert output["needs_review"] == 1
    assert output["policy"]["review"]["min_margin"] == 0.6


def test_a_regressions_prediction_is_a_value_and_its_spread() -> None:
    two = release(REGRESSION, released("a"), released("b"))
    (prediction,) = published(predict(two, 1, ok("a", 1.0), ok("b", 3.0)))["predictions"]
    assert prediction == {"value": 2.0, "spread": 1.0, "range": 2.0, "decision": "accept"}


def test_the_applied_policy_is_stated() -> None:
    three = structs.replace(WEIGHTED, policy=structs.replace(WEIGHTED.policy, quorum=Quorum()))
    policy = published(predict(three, 1, *ALL))["policy"]
    assert policy["quorum"] == {"min_members": 2, "min_weight": None, "required": []}  # more than half of three
    assert policy["aggregation"] == {"method": "weighted_mean", "tie": "first"}
    assert (policy["review"], policy["cascade"]) == (None, None)
    eased = override_quorum(three.policy, {"min_members": 1, "required": ("a",)})
    alone = decide(three, eased, 1, CollectedResults([{"a": ok("a", 1.0)}]))
    assert isinstance(alone, ExecutionResult)
    assert (alone.status, alone.policy.quorum) == ("DEGRADED", Quorum(min_members=1, required=("a",)))


TIERS = release(
    REGRESSION,
    released("a"),
    released("b"),
    released("c", tier=2),
    released("shadow", role="shadow", tier=2),
    quorum=Quorum(),
    cascade=Confidence(max_spread=0.5),
)
FIRST = {"a": ok("a", 1.0, 2.0, 3.0, 4.0), "b": ok("b", 9.0, 2.0, 3.0, 6.0)}


def test_rows_keep_their_order_after_a_cascade() -> None:
    # In rows 0 and 3 "a" and "b" are too far apart; these go to "c" and the shadow.
    second = {"c": ok("c", 2.0, 2.0), "shadow": ok("shadow", 0.0, 5.0)}
    decided = decide(TIERS, TIERS.policy, 4, CollectedResults([FIRST, second]))
    assert isinstance(decided, ExecutionResult)
    output = published(decided)
    predictions = output["predictions"]
    assert [prediction["value"] for prediction in predictions] == pytest.approx([4, 2, 3, 4])
    assert [prediction["tier"] for prediction in predictions] == [2, 1, 1, 2]
    assert [prediction.get("shadows") for prediction in predictions] == [
        {"shadow": {"agrees": False, "flips": None}},
        None,
        None,
        {"shadow": {"agrees": True, "flips": None}},
    ]
    assert [member["outputs"] for member in output["members"]] == [[1, 2, 3, 4], [9, 2, 3, 6], [2, 2], [0, 5]]
    assert [member["weight"] for member in output["members"]] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    assert output["policy"]["quorum"]["min_members"] == 2
    assert output["participation"]["voter"] == {"invoked": 3, "responded": 3, "weight": 1.0}


def test_members_of_a_tier_that_was_not_reached_are_skipped() -> None:
    sure = {"a": ok("a", 1.0, 2.0), "b": ok("b", 1.0, 2.0)}
    decided = decide(TIERS, TIERS.policy, 2, CollectedResults([sure]))
    assert isinstance(decided, ExecutionResult)
    output = published(decided)
    assert (output["status"], [member["status"] for member in output["members"]]) == (
        "COMPLETE",
        ["ok", "ok", "skipped", "skipped"],
    )
    assert output["participation"] == {
        "voter": {"invoked": 2, "responded": 2, "weight": 1.0},
        "shadow": {"invoked": 0, "responded": 0, "weight": 0.0},
    }
    skipped = output["members"][2]
    assert (skipped["outputs"], skipped["error"], skipped["weight"]) == (None, None, 0.0)
    assert [prediction["tier"] for prediction in output["predictions"]] == [1, 1]


def test_a_tiers_outputs_are_checked_against_the_rows_that_it_was_sent() -> None:
    for_all_rows = {"c": ok("c", 2.0, 2.0, 2.0, 2.0), "shadow": failed("shadow")}
    decided = decide(TIERS, TIERS.policy, 4, CollectedResults([FIRST, for_all_rows]))
    assert isinstance(decided, ExecutionResult)
    assert decided.status == "DEGRADED"
    assert reports(decided)["c"].error == MemberFailure("InvalidOutput", "the output has shape [4] for 2 rows")


def test_a_tier_that_was_not_invoked_yet_leaves_rows_undecided() -> None:
    undecided = decide(TIERS, TIERS.policy, 4, CollectedResults([FIRST]))
    assert isinstance(undecided, Undecided)
    assert (undecided.tier, undecided.numbers.tolist()) == (2, [0, 3])


@pytest.mark.parametrize("task", [BINARY, THREE, REGRESSION])
@pytest.mark.parametrize("broken", [False, True])
def test_an_output_matches_its_schema(task: Task, broken: bool) -> None:
    kind: Any = {BINARY: "probability", THREE: "probabilities", REGRESSION: "value"}[task]
    outputs = [[0.2, 0.3, 0.5]] if task is THREE else [0.5]
    compiled = release(task, released("a", kind), released("b", kind))
    decided = predict(compiled, 1, ok("a", *outputs), failed("b") if broken else ok("b", *outputs))
    published(decided)
    pointed = structs.replace(decided.to_output("p", "0" * 64), predictions=Pointer("s3://b/k"))
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
def test_an_error_that_a_state_machine_caught_is_read(cause: str, message: str) -> None:
    assert name_failure("ArtifactMissing", cause) == MemberFailure("ArtifactMissing", message)
