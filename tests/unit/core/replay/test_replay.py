from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, structs
from rich.console import Console

import asl
from builders import BINARY, REGRESSION, ROOT, THREE, Supply, manifest, member, release, released, sources
from memory import PREFIX, MemoryStack
from stepensemble.cli.tables.replay import render_replay
from stepensemble.cli.what_if import ReplayResult, read_what_if
from stepensemble.core.aggregation.execution import ExecutionResult, decide
from stepensemble.core.aggregation.output import MemberFailure
from stepensemble.core.aggregation.output_source import MemberResult
from stepensemble.core.arrays import Integers
from stepensemble.core.errors import InvalidManifest, ReplayRefused, StorageUnavailable
from stepensemble.core.payload import apply_quorum, parse_payload
from stepensemble.core.record import Record, decode_record, encode_record
from stepensemble.core.releases.release import Release, encode_release
from stepensemble.core.replay.replay import replay
from stepensemble.core.replay.report import (
    Change,
    ChangeCount,
    ChangedStatus,
    MissingOutputs,
    ReleaseMismatch,
    Replay,
    Shift,
)
from stepensemble.core.replay.what_if import METHODS, WhatIf
from stepensemble.core.schema.manifest import Manifest
from stepensemble.core.schema.outputs import Label
from stepensemble.core.schema.policy import (
    WEIGHTED_METHODS,
    Aggregation,
    Confidence,
    HardVote,
    Mean,
    Quorum,
    WeightedMean,
)
from stepensemble.core.schema.task import RegressionTask, Task
from stepensemble.core.validation.manifest import parse_manifest
from stepensemble.storage.record_table import ATTEMPTS

TIMEOUT = MemberFailure("Sandbox.Timedout", "Task timed out")
MemberOutputs = Mapping[str, Sequence[Any] | None]
"""A member's output for every row, by its id; None for one that fails."""


def execute(
    made: Release, outputs_by_member: MemberOutputs, quorum: Mapping[str, Any] | None = None
) -> ExecutionResult:
    """Decide as an execution does: each tier gets the rows that reach it."""
    rows = max(len(outputs) for outputs in outputs_by_member.values() if outputs is not None)
    policy = apply_quorum(parse_payload(payload(rows, quorum)), made.policy, made.members)

    def get_results(_tier: int, numbers: Integers) -> Mapping[str, MemberResult]:
        return {
            id_: MemberResult(id_, failure=TIMEOUT)
            if outputs is None
            else MemberResult(id_, np.asarray(outputs)[numbers])
            for id_, outputs in outputs_by_member.items()
        }

    decided = decide(made, policy, rows, Supply(get_results))
    assert isinstance(decided, ExecutionResult)
    return decided


def payload(rows: int, quorum: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"instances": [{"x": 0}] * rows} | ({} if quorum is None else {"quorum": quorum})


def record_execution(
    made: Release, outputs_by_member: MemberOutputs, id_: str = "p", quorum: Mapping[str, Any] | None = None
) -> Record:
    """Record an execution, and read the record back."""
    digest, _ = encode_release(made)
    decided = execute(made, outputs_by_member, quorum)
    rows = max(len(outputs) for outputs in outputs_by_member.values() if outputs is not None)
    record = Record(
        prediction_id=id_,
        release=digest,
        execution=f"arn:{id_}",
        started_at="",
        recorded_at="2026-03-01T12:00:00.000+00:00",
        rows=rows,
        input_digest="",
        input=payload(rows, quorum),
        output=decided.to_output(id_, digest),
        failure=decided.cause,
    )
    return decode_record(encode_record(record))


def replay_of(made: Release, *records: Record, **tried: Any) -> Replay:
    return replay(records, {encode_release(made)[0]: made}, WhatIf(**tried))


def parse(*members: Mapping[str, Any], **more: Any) -> Manifest:
    return parse_manifest(json.dumps(manifest(*members, **more)))


TWO = release(BINARY, released("a", "probability"), released("b", "probability"))
BINARY_TASK = {"type": "binary", "classes": ["no", "yes"]}


def probable(id_: str, **more: Any) -> dict[str, Any]:
    return member(id_, kind="probability", **more)


def test_max_flips_labels_of_the_mean() -> None:
    # Means 0.375 and 0.625 become maxima 0.5, which reaches the threshold, and 0.75.
    report = replay_of(TWO, record_execution(TWO, {"a": [0.25, 0.5], "b": [0.5, 0.75]}), method="max")
    assert (report.records, report.rows, report.compared) == (1, 2, 2)
    assert (report.labels_flipped, report.flips) == (1, (ChangeCount(Change("no", "yes"), 1),))
    assert report.shift == Shift(mean=0.125, mean_absolute=0.125, greatest=0.125)
    first, second = report.changed_rows
    assert (first.prediction_id, first.row, first.label) == ("p", 0, Change("no", "yes"))
    assert (first.value, first.shift, first.decision) == (Change(0.375, 0.5), 0.125, Change("accept", "accept"))
    assert (second.row, second.label) == (1, Change("yes", "yes"))
    assert (report.statuses_changed, report.decisions_changed, report.missing, report.mismatches) == (0, 0, (), ())


def test_rows_with_the_largest_shift_come_first_whatever_its_sign() -> None:
    records = [
        record_execution(TWO, {"a": [0.0, 0.5], "b": [0.25, 1.0]}, "p"),
        record_execution(TWO, {"a": [0.25], "b": [1.0]}, "q"),
    ]
    report = replay_of(TWO, *records, method="min")
    # The mean less the lower one is half their distance: 0.125, 0.25 and 0.375.
    assert [(row.prediction_id, row.row, row.shift) for row in report.changed_rows] == [
        ("q", 0, -0.375),
        ("p", 1, -0.25),
        ("p", 0, -0.125),
    ]
    assert report.shift == Shift(mean=-0.25, mean_absolute=0.25, greatest=-0.375)


def test_weights_are_tried_on_recorded_outputs() -> None:
    made = structs.replace(TWO, policy=structs.replace(TWO.policy, aggregation=WeightedMean()))
    report = replay_of(made, record_execution(made, {"a": [0.0], "b": [0.75]}), weights={"b": 3.0})
    (row,) = report.changed_rows
    assert (row.value, row.label) == (Change(0.375, 0.5625), Change("no", "yes"))  # (0 + 3 * 0.75) / 4


def test_a_stricter_quorum_changes_statuses_and_flips_nothing() -> None:
    records = [
        record_execution(TWO, {"a": [0.25], "b": None}, "degraded"),
        record_execution(TWO, {"a": [0.25], "b": [0.5]}, "complete"),
    ]
    strict = parse(probable("a"), probable("b"), task=BINARY_TASK, quorum={"min_members": 2})
    report = replay_of(TWO, *records, manifest=strict)
    assert report.changed_records == (ChangedStatus("degraded", Change("DEGRADED", "FAILED")),)
    assert report.statuses == (ChangeCount(Change("DEGRADED", "FAILED"), 1),)
    assert (report.rows, report.compared, report.labels_flipped, report.changed_rows) == (2, 1, 0, ())


def test_a_lower_quorum_predicts_what_had_failed() -> None:
    made = structs.replace(TWO, policy=structs.replace(TWO.policy, quorum=Quorum(min_members=2)))
    record = record_execution(made, {"a": [0.25], "b": None})
    assert record.failure is not None
    lax = parse(probable("a"), probable("b"), task=BINARY_TASK, quorum={"min_members": 1})
    report = replay_of(made, record, manifest=lax)
    assert report.changed_records == (ChangedStatus("p", Change("FAILED", "DEGRADED")),)
    assert (report.compared, report.shift, report.changed_rows) == (0, None, ())


def test_outputs_that_a_record_does_not_have_are_named() -> None:
    records = [
        record_execution(TWO, {"a": [0.25, 0.5], "b": None}, "p"),
        record_execution(TWO, {"a": [0.25], "b": [0.5]}, "q"),
        record_execution(TWO, {"a": [0.25, 0.5, 0.75], "b": None}, "r"),
    ]
    more = parse(probable("a"), probable("b"), probable("c"), task=BINARY_TASK, quorum={"min_members": 1})
    report = replay_of(TWO, *records, manifest=more)
    assert report.missing == (
        MissingOutputs("b", "failed", records=2, rows=5, example="Task timed out"),
        MissingOutputs("c", "not invoked", records=3, rows=6, example=None),
    )
    assert report.statuses == (ChangeCount(Change("COMPLETE", "DEGRADED"), 1),)


def test_a_shadow_that_becomes_a_voter_was_invoked() -> None:
    made = release(BINARY, released("a", "probability"), released("b", "probability", role="shadow"))
    voting = parse(probable("a"), probable("b"), task=BINARY_TASK)
    report = replay_of(made, record_execution(made, {"a": [0.25], "b": [1.0]}), manifest=voting)
    assert report.missing == ()
    assert [row.value for row in report.changed_rows] == [Change(0.25, 0.625)]


def test_models_that_are_not_the_manifests_are_named() -> None:
    record = record_execution(TWO, {"a": [0.25], "b": [0.5]})
    other = parse(probable("a") | {"version": "2"}, probable("b"), task=BINARY_TASK)
    recorded = TWO.members[1].artifact.digest
    report = replay_of(TWO, record, record, manifest=other, digests={"a": "0" * 64, "b": "1" * 64})
    assert report.mismatches == (
        ReleaseMismatch("a", "version", "1", "2", records=2),
        ReleaseMismatch("b", "artifact", recorded, "1" * 64, records=2),
    )
    assert replay_of(TWO, record, manifest=other, digests={"b": recorded}).mismatches == (
        ReleaseMismatch("a", "version", "1", "2", records=1),
    )
    assert report.changed_rows == ()


def test_outputs_that_are_not_what_the_manifest_declares_are_that_members_failure() -> None:
    made = release(BINARY, released("a", "probability"), released("b", "logit"))
    records = [
        record_execution(made, {"a": [0.25], "b": [3.0]}, "p"),
        record_execution(made, {"a": [0.25], "b": [0.5]}, "q"),
    ]
    declared = parse(probable("a"), probable("b"), task=BINARY_TASK, quorum={"min_members": 1})
    report = replay_of(made, *records, manifest=declared)
    reason = "the output of row 0, 3., is outside [0, 1] by more than 0.001 (1 of 1 rows)"
    assert report.missing == (MissingOutputs("b", "invalid", records=1, rows=1, example=reason),)
    assert report.changed_records == (ChangedStatus("p", Change("COMPLETE", "DEGRADED")),)
    # p: b's logit, 3, gave sigmoid(3), and counts no more; q: taken for a probability, 0.5 is just that.
    values = {row.prediction_id: row.value.after for row in report.changed_rows}
    assert values == {"p": 0.25, "q": 0.375}


def test_outputs_that_were_rejected_count_where_the_manifest_declares_them() -> None:
    record = record_execution(TWO, {"a": [0.5], "b": [0.0, 3.0][1:]})
    assert record.output.members[1].status == "failed"
    declared = parse(probable("a"), member("b", kind="logit"), task=BINARY_TASK, quorum={"min_members": 1})
    report = replay_of(TWO, record, manifest=declared)
    assert report.changed_records == (ChangedStatus("p", Change("DEGRADED", "COMPLETE")),)
    assert report.changed_rows[0].value.after == pytest.approx((0.5 + 1 / (1 + np.exp(-3))) / 2)


def test_outputs_of_too_many_rows_do_not_make_up_for_outputs_of_too_few() -> None:
    one, two = (
        record_execution(TWO, {"a": [0.25], "b": [0.5]}, "one"),
        record_execution(TWO, {"a": [0.25, 0.5], "b": [0.5, 0.75]}, "two"),
    )

    def exchange(record: Record, other: Record) -> Record:
        mine = [record.output.members[0], other.output.members[1]]
        return structs.replace(record, output=structs.replace(record.output, members=mine))

    report = replay_of(TWO, exchange(one, two), exchange(two, one))
    (missing,) = report.missing
    assert (missing.member, missing.reason, missing.records, missing.rows) == ("b", "invalid", 2, 3)
    assert missing.example == "the output has shape [2] for 1 rows"


def test_a_regression_shifts_and_has_no_labels() -> None:
    made = release(REGRESSION, *(released(id_) for id_ in "abc"))
    report = replay_of(made, record_execution(made, {"a": [1.0], "b": [2.0], "c": [9.0]}), method="median")
    (row,) = report.changed_rows
    assert (row.label, row.value, row.shift) == (UNSET, Change(4.0, 2.0), -2.0)
    assert (report.labels_flipped, report.flips) == (0, ())
    assert "label" not in msgspec.to_builtins(row)


def test_with_several_classes_the_shift_is_that_of_the_predicted_class() -> None:
    made = release(THREE, released("a", "probabilities"), released("b", "probabilities"), released("c", "label"))
    made = structs.replace(made, policy=structs.replace(made.policy, aggregation=HardVote()))
    outputs_by_member = {"a": [[0.5, 0.25, 0.25]], "b": [[0.125, 0.5, 0.375]], "c": ["red"]}
    one_hot = parse(
        member("a", kind="probabilities"),
        member("b", kind="probabilities"),
        member("c", output={"kind": "label", "one_hot": True}),
        task={"type": "multiclass", "classes": list(THREE.classes)},
        aggregation={"method": "min"},
    )
    report = replay_of(made, record_execution(made, outputs_by_member), manifest=one_hot)
    # Two of three votes for red; by the minima, 0.125 of red is all there is: 1 once normalized.
    (row,) = report.changed_rows
    assert (row.label, row.value) == (Change("red", "red"), Change(0.0, 0.0))
    assert row.shift == pytest.approx(1 - 2 / 3)


def test_a_row_with_an_unbroken_tie_has_no_label() -> None:
    made = structs.replace(TWO, policy=structs.replace(TWO.policy, aggregation=Mean(tie="abstain")))
    record = record_execution(made, {"a": [0.25, 0.0], "b": [0.75, 1.0]})
    first = parse(probable("a"), probable("b"), task=BINARY_TASK, aggregation={"method": "mean", "tie": "first"})
    report = replay_of(made, record, manifest=first)
    assert report.flips == (ChangeCount(Change(None, "yes"), 2),)
    assert report.decisions == (ChangeCount(Change("abstain", "accept"), 2),)
    assert report.shift == Shift(0.0, 0.0, 0.0)
    assert {row.row for row in report.changed_rows} == {0, 1}
    # The rule for ties outlives the method.
    assert replay_of(made, record, method="median").changed_rows == ()


def test_bounds_on_what_needs_review_change_decisions() -> None:
    careful = parse(probable("a"), probable("b"), task=BINARY_TASK, review={"max_spread": 0.2})
    report = replay_of(TWO, record_execution(TWO, {"a": [0.25, 0.5], "b": [0.5, 1.0]}), manifest=careful)
    assert (report.decisions_changed, report.decisions) == (1, (ChangeCount(Change("accept", "review"), 1),))
    assert [(row.row, row.shift) for row in report.changed_rows] == [(1, 0.0)]  # spreads: 0.125 and 0.25


def test_method_and_weights_apply_on_top_of_a_manifest() -> None:
    other = parse(probable("a"), probable("b"), task=BINARY_TASK, aggregation={"method": "max"})
    record = record_execution(TWO, {"a": [0.0], "b": [1.0]})
    report = replay_of(TWO, record, manifest=other, method="weighted_mean", weights={"a": 3.0})
    assert [row.value for row in report.changed_rows] == [Change(0.5, 0.25)]


def test_a_payloads_own_quorum_applies_until_a_manifest_replaces_it() -> None:
    record = record_execution(TWO, {"a": [0.25], "b": None}, quorum={"min_members": 2})
    assert record.output.status == "FAILED"
    assert replay_of(TWO, record, method="max").statuses_changed == 0
    same = parse(probable("a"), probable("b"), task=BINARY_TASK, quorum={"min_members": 1})
    assert replay_of(TWO, record, manifest=same).statuses == (ChangeCount(Change("FAILED", "DEGRADED"), 1),)


def test_without_records_nothing_changes() -> None:
    assert replay([], {}, WhatIf(method="max", weights={"unknown": 1.0})) == Replay()


def test_rows_are_those_of_their_records_though_decided_together() -> None:
    rng = np.random.default_rng(7)
    outputs_by_member = [{"a": rng.random(rows), "b": None if rows == 2 else rng.random(rows)} for rows in (3, 2, 1, 4)]
    report = replay_of(
        TWO, *(record_execution(TWO, one, f"p{n}") for n, one in enumerate(outputs_by_member)), method="max"
    )
    found = {(row.prediction_id, row.row): row.value.after for row in report.changed_rows}
    assert found == {
        (f"p{n}", row): max(one["a"][row], one["b"][row])
        for n, one in enumerate(outputs_by_member)
        if one["b"] is not None  # of one voter alone, mean and maximum are the same
        for row in range(len(one["a"]))
    }


CASCADED = release(
    BINARY,
    released("a", "probability"),
    released("b", "probability"),
    released("c", "probability", tier=2),
    cascade=Confidence(min_margin=0.5),
)
THREE_VOTERS = [probable("a"), probable("b"), probable("c")]


def test_later_tiers_have_no_outputs_for_rows_that_were_decided_before() -> None:
    # Means of a and b: 0.9 and 0.1 have a margin of 0.8; 0.5 goes on to c.
    record = record_execution(CASCADED, {"a": [0.9, 0.25, 0.1], "b": [0.9, 0.75, 0.1], "c": [0.5, 0.125, 0.5]})
    assert record.output.members[2].outputs == [0.125]
    report = replay_of(CASCADED, record, manifest=parse(*THREE_VOTERS, task=BINARY_TASK))
    assert report.missing == (MissingOutputs("c", "not invoked", records=1, rows=2, example=None),)
    assert report.statuses == (ChangeCount(Change("COMPLETE", "DEGRADED"), 1),)
    assert report.changed_rows == ()  # means of a and b only, and of all three, as before


def test_another_cascade_sends_other_rows_to_the_next_tier() -> None:
    record = record_execution(CASCADED, {"a": [0.9, 0.25], "b": [0.9, 0.5], "c": [0.0, 0.0]})
    tiers = [probable("a"), probable("b"), probable("c", tier=2)]
    lax = parse(*tiers, task=BINARY_TASK, cascade={"min_margin": 0.2})  # the margin of 0.375 is 0.25
    report = replay_of(CASCADED, record, manifest=lax)
    assert [row.value for row in report.changed_rows] == [Change(0.25, 0.375)]
    assert (report.missing, report.statuses) == ((), ())


def test_the_rows_that_reached_each_tier_of_a_failed_cascade_are_found_again() -> None:
    strict = structs.replace(CASCADED, policy=structs.replace(CASCADED.policy, quorum=Quorum(required=("b",))))
    # Without b the first tier has no quorum, and all rows go on.
    record = record_execution(strict, {"a": [0.9, 0.25], "b": None, "c": [0.0, 0.0]})
    assert (record.output.status, record.output.members[2].outputs) == ("FAILED", [0.0, 0.0])
    report = replay_of(strict, record, manifest=parse(*THREE_VOTERS, task=BINARY_TASK))
    assert report.statuses == (ChangeCount(Change("FAILED", "DEGRADED"), 1),)
    assert report.missing == (MissingOutputs("b", "failed", records=1, rows=2, example="Task timed out"),)

    made = structs.replace(CASCADED, members=(*CASCADED.members, *(released(d, "probability", tier=2) for d in "de")))
    made = structs.replace(made, policy=structs.replace(made.policy, quorum=Quorum(min_weight=0.7)))
    record = record_execution(made, {"a": [0.9, 0.25], "b": [0.9, 0.5], "c": [0.0, 0.0], "d": None, "e": None})
    assert (record.output.status, record.output.members[2].outputs) == ("FAILED", [0.0])  # 3 of 5; only one row went on
    report = replay_of(made, record, manifest=parse(*THREE_VOTERS, task=BINARY_TASK, quorum={"min_members": 2}))
    assert report.missing == (MissingOutputs("c", "not invoked", records=1, rows=1, example=None),)


def test_a_record_without_a_quorum_does_not_fail_those_that_are_decided_with_it() -> None:
    # All rows have the same voters. Those of the first record are certain; one of the second goes on to a tier in which
    # c, d and e have not responded.
    more = tuple(released(id_, "probability", tier=2) for id_ in "de")
    made = structs.replace(CASCADED, members=(*CASCADED.members, *more))
    made = structs.replace(made, policy=structs.replace(made.policy, quorum=Quorum()))
    failed = {"c": None, "d": None, "e": None}
    records = [
        record_execution(made, {"a": [0.9, 0.1], "b": [0.9, 0.1], **failed}, "sure"),
        record_execution(made, {"a": [0.9, 0.5], "b": [0.9, 0.5], **failed}, "unsure"),
    ]
    assert [record.output.status for record in records] == ["COMPLETE", "FAILED"]
    report = replay_of(made, *records, method="max")
    assert (report.changed_records, report.changed_rows, report.compared) == ((), (), 2)


@pytest.mark.parametrize(
    ("made", "tried", "complaint"),
    [
        (TWO, {"weights": {"bb": 1.0}}, r'--weights: "bb" is not a member; use one of "a", "b", did you mean "b"\?'),
        (TWO, {"weights": {"b": 2.0}}, r'\$.members\[1\].weight: 2.0 has no effect under the method "mean"'),
        (
            release(REGRESSION, released("a")),
            {"method": "hard_vote"},
            '"hard_vote" needs classes, and the task is a regression',
        ),
        (
            release(BINARY, released("a", "label"), aggregation=HardVote()),
            {"method": "mean"},
            '"label" is not a probability, and the method "mean" needs probabilities',
        ),
        (
            structs.replace(TWO, policy=structs.replace(TWO.policy, aggregation=WeightedMean())),
            {"weights": {"a": 0.0, "b": 0.0}},
            r"\$.members: has no voter with a weight above 0",
        ),
        (TWO, {"manifest": parse()}, 'a binary task of "no", "yes", and what is tried is a regression task'),
        (
            TWO,
            {"manifest": parse(probable("a"), task={"type": "binary", "classes": ["yes", "no"]})},
            'a binary task of "no", "yes", and what is tried is a binary task of "yes", "no"',
        ),
    ],
)
def test_what_does_not_fit_is_rejected(made: Release, tried: dict[str, Any], complaint: str) -> None:
    outputs_by_member = {one.id: ["yes"] if isinstance(one.output, Label) else [0.5] for one in made.members}
    with pytest.raises(ReplayRefused, match=complaint):
        replay_of(made, record_execution(made, outputs_by_member), **tried)


def test_records_of_two_tasks_are_rejected() -> None:
    other = release(REGRESSION, released("a"))
    releases = {encode_release(made)[0]: made for made in (TWO, other)}
    records = [record_execution(TWO, {"a": [0.5], "b": [0.5]}), record_execution(other, {"a": [0.5]}, "q")]
    with pytest.raises(ReplayRefused, match="give a manifest of theirs, or a later --since"):
        replay(records, releases)


# Laws

PROBABILITIES = st.sampled_from([0.0, 0.25, 0.5, 0.625, 1.0])
ROWS_OF_THREE = st.sampled_from([[1.0, 0.0, 0.0], [0.25, 0.5, 0.25], [0.5, 0.5, 0.0], [0.125, 0.25, 0.625]])
RAW_OUTPUTS: dict[str, st.SearchStrategy[Any]] = {
    "probability": PROBABILITIES,
    "logit": st.sampled_from([-3.0, 0.0, 0.3, 2.0]),
    "label": st.sampled_from([0, 1]),
    "probabilities": ROWS_OF_THREE,
    "value": st.sampled_from([-2.5, 0.1, 0.3, 7.0]),
}
KINDS = {"binary": ["probability", "logit"], "multiclass": ["probabilities"], "regression": ["value"]}
TASKS: list[Task] = [BINARY, THREE, REGRESSION]
OF_VALUES = ["mean", "weighted_mean", "median", "trimmed_mean", "min", "max"]


def methods_for(task: Task) -> list[str]:
    return OF_VALUES if isinstance(task, RegressionTask) else list(METHODS)


@st.composite
def aggregations(draw: st.DrawFn, task: Task) -> Aggregation:
    rules = ["first"] if isinstance(task, RegressionTask) else ["first", "abstain", "highest_mean"]
    return METHODS[draw(st.sampled_from(methods_for(task)))](tie=draw(st.sampled_from(rules)))


@st.composite
def histories(draw: st.DrawFn, cascades: bool = True) -> tuple[Release, list[Record]]:
    """Return a release and its records: failures, abstentions, quorums of the payload, tiers, a shadow."""
    task = draw(st.sampled_from(TASKS))
    tiers = draw(st.integers(1, 2)) if cascades else 1
    kinds = KINDS[str(task.__struct_config__.tag)]
    members = [
        released(
            id_,
            draw(st.sampled_from(kinds)),
            tier=1 + place % tiers,
            role="shadow" if id_ == "shadow" else "voter",
            weight=draw(st.sampled_from([0.5, 1.0, 3.0])),
        )
        for place, id_ in enumerate(draw(st.sampled_from([["a", "b"], ["a", "b", "c", "shadow"], list("abcde")])))
    ]
    made = release(
        task,
        *members,
        aggregation=draw(aggregations(task)),
        quorum=draw(
            st.sampled_from([Quorum(), Quorum(min_members=1), Quorum(min_weight=0.6), Quorum(required=("a",))])
        ),
        review=draw(st.sampled_from([None, Confidence(max_spread=0.3)])),
        cascade=Confidence(max_spread=0.2) if tiers > 1 else None,
    )
    records = []
    for number in range(draw(st.integers(1, 4))):
        rows = draw(st.integers(1, 4))
        outputs_by_member: dict[str, Any] = {}
        for one in members:
            outputs = st.lists(RAW_OUTPUTS[str(one.output.__struct_config__.tag)], min_size=rows, max_size=rows)
            outputs_by_member[one.id] = draw(st.one_of(outputs, outputs, outputs, st.none()))
        if not any(outputs is not None for outputs in outputs_by_member.values()):
            outputs_by_member["a"] = draw(
                st.lists(RAW_OUTPUTS[str(members[0].output.__struct_config__.tag)], min_size=rows, max_size=rows)
            )
        quorum = draw(st.sampled_from([None, None, {"min_members": 1}, {"min_members": 2}]))
        records.append(record_execution(made, outputs_by_member, f"p{number}", quorum))
    return made, records


@given(histories())
def test_by_its_own_policy_nothing_changes_to_the_last_bit(history: tuple[Release, list[Record]]) -> None:
    made, records = history
    report = replay_of(made, *records)
    assert (report.changed_records, report.changed_rows) == ((), ())
    assert report.shift in {None, Shift(0.0, 0.0, 0.0)}
    assert report.compared == sum(record.rows for record in records if record.output.status != "FAILED")


@given(histories(), st.data())
def test_a_replay_depends_only_on_the_records(history: tuple[Release, list[Record]], data: st.DataObject) -> None:
    made, records = history
    method = data.draw(st.sampled_from(methods_for(made.task)))
    together = replay_of(made, *records, method=method)
    assert together == replay_of(made, *records, method=method)
    alone = [replay_of(made, record, method=method) for record in records]
    assert list(together.changed_records) == [change for one in alone for change in one.changed_records]
    rows = [row for one in alone for row in one.changed_rows]
    assert list(together.changed_rows) == sorted(rows, key=lambda row: -abs(row.shift))


@given(histories(cascades=False), st.data())
def test_a_replay_equals_an_execution_of_the_other_policy(
    history: tuple[Release, list[Record]], data: st.DataObject
) -> None:
    made, records = history
    aggregation = METHODS[data.draw(st.sampled_from(methods_for(made.task)))](tie=made.policy.aggregation.tie)
    other = structs.replace(made, policy=structs.replace(made.policy, aggregation=aggregation))
    report = replay_of(made, *records, method=str(aggregation.__struct_config__.tag))
    found = {(row.prediction_id, row.row): row for row in report.changed_rows}
    for record in records:
        outputs_by_member = {one.id: one.outputs for one in record.output.members}
        expected = execute(other, outputs_by_member, record.input.get("quorum"))  # type: ignore[arg-type] # a record has no pointers
        changed = {change.prediction_id: change.status.after for change in report.changed_records}
        assert changed.get(record.prediction_id, record.output.status) == expected.status
        if "FAILED" in {expected.status, record.output.status}:
            continue
        for number, prediction in enumerate(expected.predictions):
            before = record.output.predictions[number]  # type: ignore[index] # likewise
            row = found.get((record.prediction_id, number))
            after = (before.label, before.value, before.decision)
            if row is not None:
                after = (UNSET if row.label is UNSET else row.label.after, row.value.after, row.decision.after)
            assert after == (prediction.label, prediction.value, prediction.decision)


# Records of the real handlers

ENSEMBLE = json.loads((ROOT / "statemachine" / "ensemble.asl.json").read_text())
FEATURES = [{"name": name, "type": "number"} for name in "xyz"]
CLASSES = {"binary": ["no", "yes"], "multiclass": ["red", "green", "blue"]}


def run(stack: MemoryStack, sent: Mapping[str, Any], name: str, broken: Sequence[str] = ()) -> None:
    """Run an execution on the real handlers, with the named slots broken."""
    functions: dict[str, Callable[[Any], Any]] = {**stack.slots}
    functions |= {f"{PREFIX}{slot}": crash for slot in broken}
    functions["${NormalizeFunctionArn}"] = stack.normalize
    functions["${AggregateFunctionArn}"] = stack.aggregate
    functions[asl.PUT_EVENTS] = stack.put_events
    with suppress(asl.Failed):  # the record has the outcome
        asl.run(ENSEMBLE, functions, sent, name)


def crash(_event: Any) -> Any:
    raise TimeoutError("Task timed out")


def model_of(task: str, id_: str, columns: str, **more: Any) -> dict[str, Any]:
    """Return a member whose own column makes it disagree with the others."""
    artifact, kind = {
        "binary": ("sigmoid", "probability"),
        "multiclass": ("softmax", "probabilities"),
        "regression": ("half_plus_two", "value"),
    }[task]
    return member(id_, artifact, kind, columns=list(columns), **more)


NUMBERS: dict[str, Any] = {"a": 2.5, "b": -1.0, "c": 0.3}
MATRICES = {id_: [[one, 0, 0], [0, 1, 0], [0.5, 0, one]] for id_, one in NUMBERS.items()}


def declare(task: str, method: str) -> dict[str, Any]:
    """Return a method as a manifest has it."""
    if method != "stack":
        return {"method": method}
    coefficients = MATRICES if task == "multiclass" else NUMBERS
    return {"method": method, "coefficients": coefficients, "missing": "mean"}


SETTINGS = [
    (task, method, tiers)
    for task in ("binary", "multiclass", "regression")
    for method in [*(OF_VALUES if task == "regression" else METHODS), "stack"]
    for tiers in ((1,) if method == "stack" else (1, 2))  # a stack has no tiers
]
ROWS = np.random.default_rng(1912).normal(0, 2, (8, 3)).tolist()
PAYLOADS = [
    {"instances": [dict(zip("xyz", row, strict=True)) for row in rows]} for rows in (ROWS[:1], ROWS[1:6], ROWS[6:])
]


@pytest.mark.parametrize(("task", "method", "tiers"), SETTINGS)
def test_records_of_the_handlers_are_replayed_to_the_last_bit(
    tmp_path: Path, task: str, method: str, tiers: int
) -> None:
    weights = {"weight": 2.5} if method in WEIGHTED_METHODS else {}
    cascade = {"cascade": {"max_spread": 1.0 if task == "regression" else 0.2}} if tiers > 1 else {}
    columns = ["xy", "yz", "zx"] if task == "multiclass" else ["x", "y", "z"]
    read = sources(
        tmp_path,
        model_of(task, "a", columns[0], **weights),
        model_of(task, "b", columns[1]),
        model_of(task, "c", columns[2], tier=tiers),
        model_of(task, "quiet", columns[0], role="shadow"),
        task={"type": task} | ({"classes": CLASSES[task]} if task in CLASSES else {}),
        features=FEATURES,
        aggregation=declare(task, method),
        review={"max_spread": 0.2},
        **cascade,
    )
    stack = MemoryStack()
    slots = stack.publish(read).slots
    for number, sent in enumerate(PAYLOADS):
        run(stack, sent, f"whole-{number}")
        run(stack, sent | {"quorum": {"min_members": 1}}, f"without-b-{number}", broken=[slots["b"]])
        run(stack, sent | {"quorum": {"min_members": 3}}, f"refused-{number}", broken=[slots["c"]])
    records = list(stack.records.read_all(list(stack.dynamo.items)))
    assert {record.output.status for record in records} == {"COMPLETE", "DEGRADED", "FAILED"}
    decided_in = {prediction.tier for record in records for prediction in record.output.predictions}
    assert decided_in == ({1, 2} if tiers > 1 else {UNSET})
    report = replay(records, {read.digest: read.release})
    assert (report.records, report.changed_records, report.changed_rows) == (9, (), ())
    assert report.shift == Shift(0.0, 0.0, 0.0)
    assert report.compared == sum(record.rows for record in records if record.failure is None)


# Reading many records


def numbered(number: int, recorded_at: datetime) -> Record:
    return structs.replace(
        record_execution(TWO, {"a": [0.5], "b": [0.5]}, f"p{number:03}"),
        recorded_at=recorded_at.isoformat(timespec="milliseconds"),
    )


NOW = datetime.now(UTC)


def test_records_are_listed_since_a_day_the_newest_first() -> None:
    stack = MemoryStack()
    for number, back in enumerate([0, 400, 1, 3]):
        stack.records.add(numbered(number, NOW - timedelta(days=back)))

    def listed(back: int, limit: int | None = None) -> list[str]:
        first: date = NOW.date() - timedelta(days=back)
        return [summary.prediction_id for summary in stack.records.since(first, limit)]

    assert listed(3) == ["p000", "p002", "p003"]
    assert listed(2) == ["p000", "p002"]
    assert listed(400, 3) == ["p000", "p002", "p003"]
    assert listed(400) == ["p000", "p002", "p003", "p001"]
    assert listed(-1) == []


def test_many_records_are_read_whole_in_the_requested_order() -> None:
    stack = MemoryStack()
    records = [numbered(number, NOW) for number in range(230)]  # more than two batches
    large = structs.replace(records[7], metadata={"why": "x" * 500_000})  # more than an item holds
    records[7] = large
    for record in records:
        stack.records.add(record)
    ids = [record.prediction_id for record in reversed(records)]
    assert list(stack.records.read_all([ids[0], "gone", *ids[1:]])) == records[::-1]


def test_keys_that_dynamodb_leaves_unprocessed_are_requested_again() -> None:
    stack = MemoryStack()
    stack.dynamo.at_once = 2
    records = [numbered(number, NOW) for number in range(5)]
    for record in records:
        stack.records.add(record)
    assert list(stack.records.read_all([record.prediction_id for record in records])) == records


def test_a_table_that_returns_nothing_for_long_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("stepensemble.storage.record_table.time.sleep", waits.append)
    stack = MemoryStack()
    stack.dynamo.at_once = 0
    with pytest.raises(StorageUnavailable, match="try again later"):
        list(stack.records.read_all(["p"]))
    assert waits == [0.1 * 2**n for n in range(ATTEMPTS - 1)]


def test_a_record_of_another_version_is_left_out() -> None:
    stack = MemoryStack()
    for number in range(2):
        stack.records.add(numbered(number, NOW))
    stack.dynamo.items["p000"]["record"] = {"S": "{}"}
    assert [record.prediction_id for record in stack.records.read_all(["p000", "p001"])] == ["p001"]


# What is written on the command line


def test_weights_are_read_from_a_line() -> None:
    assert read_what_if(None, "soft_vote", "a=2, b=0.5,c=0").weights == {"a": 2.0, "b": 0.5, "c": 0.0}


@pytest.mark.parametrize("weights", ["a", "a=", "=1", "a=b", "a=-1", "a=nan", "a=inf", "a=1,,b=2", "", "a=1,a=2"])
def test_invalid_weights_are_rejected(weights: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"write member=number, such as a=2,b=0\.5|is given twice"):
        read_what_if(None, None, weights)


def test_an_unknown_method_is_rejected_with_the_one_that_may_be_meant() -> None:
    with pytest.raises(
        typer.BadParameter, match=r'"medain" is not a method; use one of "mean", .*did you mean "median"\?'
    ):
        read_what_if(None, "medain", None)
    with pytest.raises(typer.BadParameter, match="declare it in a manifest and give that with --manifest"):
        read_what_if(None, "stack", None)


def test_a_manifest_is_tried_without_its_artifacts_and_compared_with_those_that_are_there(tmp_path: Path) -> None:
    read = sources(tmp_path, member("a"), member("b", "logarithm", digest=None))
    (tmp_path / "logarithm.tflite").unlink()
    what_if = read_what_if(read.path, None, None)
    assert what_if.manifest == read.manifest
    assert (what_if.origin, what_if.digests) == (str(read.path), {"a": read.release.members[0].artifact.digest})
    with pytest.raises(typer.BadParameter, match=r"nowhere.json cannot be read: No such file"):
        read_what_if(tmp_path / "nowhere.json", None, None)
    read.path.write_text("{}")
    with pytest.raises(InvalidManifest):
        read_what_if(read.path, None, None)


def test_the_terminal_names_what_is_missing_and_which_models_differ() -> None:
    record = record_execution(TWO, {"a": [0.25], "b": [3.0]})  # the record keeps b's output, a probability of 3
    other = parse(probable("a") | {"version": "2"}, probable("b"), probable("c"), task=BINARY_TASK)
    what_if = WhatIf(other, "other.json", {"b": "0" * 64}, "max", {"a": 2.0})
    report = replay_of(TWO, record, manifest=other, digests={"b": "0" * 64})
    replayed = ReplayResult(what_if, date(2026, 2, 1), 3, 2, report)
    recorded, console = TWO.members[1].artifact.digest, Console(width=200)
    with console.capture() as captured:
        console.print(render_replay(replayed))
    printed = [" ".join(line.split()) for line in captured.get().splitlines()]
    assert printed == [
        "policy manifest other.json, method max, weights a=2",
        "records 1 since 2026-02-01; 3 deleted or of another version; 2 of other ensembles",
        "rows 1, of which 0 compared",
        "labels 0 changed",
        "decisions 0 changed",
        "statuses 1 changed: DEGRADED → FAILED 1",
        "shift no rows to compare",
        "missing b has invalid outputs in 1 record, 1 row: the output of row 0, 3., is outside "
        "[0, 1] by more than 0.001 (1 of 1 rows)",
        "missing c was not invoked in 1 record, 1 row",
        "models a: recorded with version 1, the manifest has 2 (1 record)",
        f"models b: recorded with artifact {recorded[:12]}, the manifest has {'0' * 12} (1 record)",
    ]


def test_rows_that_miss_a_voter_are_replayed_as_they_were_predicted() -> None:
    members = released("a", "probability"), released("b", "probability"), released("c", "probability")
    made = release(BINARY, *members, quorum=Quorum(min_members=2))
    outputs_by_member = {"a": [0.9, math.nan, 0.9, 0.9], "b": [0.8, 0.8, 1.7, 0.8], "c": [0.6, math.nan, 0.6, 0.2]}
    record = record_execution(made, outputs_by_member)
    assert isinstance(record.output.predictions, list)
    assert [one.decision for one in record.output.predictions] == ["accept", "failed", "accept", "accept"]
    assert record.output.members[0].outputs == [0.9, None, 0.9, 0.9]
    same = replay_of(made, record)
    assert (same.records, same.rows, same.compared, same.changed_rows, same.changed_records) == (1, 4, 3, (), ())
    assert [(one.member, one.reason, one.rows) for one in same.missing] == [
        ("a", "invalid", 1),
        ("b", "invalid", 1),
        ("c", "invalid", 1),
    ]
    # With a quorum of one the second row is predicted too, and the others do not change.
    lone = parse(probable("a"), probable("b"), probable("c"), task=BINARY_TASK, quorum={"min_members": 1})
    tried = replay_of(made, record, manifest=lone)
    (changed,) = tried.changed_rows
    assert (changed.row, changed.decision, changed.label) == (1, Change("failed", "accept"), Change(None, "yes"))
    # With a quorum of three only the first and the last row have a prediction.
    strict = parse(probable("a"), probable("b"), probable("c"), task=BINARY_TASK, quorum={"min_members": 3})
    tried = replay_of(made, record, manifest=strict)
    assert [(one.row, one.decision) for one in tried.changed_rows] == [(2, Change("accept", "failed"))]
    assert tried.compared == 2


def test_a_record_without_any_prediction_is_replayed_as_a_failure() -> None:
    made = release(BINARY, released("a", "probability"), released("b", "probability"), quorum=Quorum(min_members=2))
    record = record_execution(made, {"a": [math.nan, 0.5], "b": [0.5, -1.0]})
    assert record.output.status == "FAILED"
    assert replay_of(made, record).changed_records == ()


def test_a_weight_whose_sum_overflows_is_rejected() -> None:
    made = release(BINARY, released("a", "probability"), released("b", "probability"), aggregation=WeightedMean())
    with pytest.raises(
        ReplayRefused, match=r"\$.members\[1\].weight: 1e\+308 is out of bounds; use a number of at most 1e\+50"
    ):
        replay_of(made, record_execution(made, {"a": [0.5], "b": [0.5]}), weights={"b": 1e308})
