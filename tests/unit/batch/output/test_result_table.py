from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings

import strategies
from builders import BINARY, REGRESSION, ROOT, Supply, X, member, release, released, sources
from stepensemble import Ensemble
from stepensemble.batch.documents import File, Options
from stepensemble.batch.input.frame_encoder import encode_frame
from stepensemble.batch.output.result_table import (
    RESERVED,
    RowNaming,
    ShardPredictions,
    name_members,
    name_rows,
    predict_shard,
    result_schema,
)
from stepensemble.core.aggregation.decision import Undecided
from stepensemble.core.aggregation.execution import decide
from stepensemble.core.aggregation.output_source import CollectedResults, MemberResult
from stepensemble.core.schema.manifest import NumberFeature
from stepensemble.core.schema.outputs import Label
from stepensemble.core.schema.policy import Confidence
from stepensemble.ensemble import _LoadedMembers

Y = {"name": "y", "type": "number"}
TWO = {"type": "binary", "classes": ["no", "yes"]}
COLOURS = {"type": "multiclass", "classes": ["red", "green", "blue"]}


def list_lines(rows: int) -> pl.DataFrame:
    return pl.DataFrame({"file": pl.Series(["a.csv"] * rows, dtype=pl.String), "row": np.arange(rows) + 1})


def predict_frame(ensemble: Ensemble, frame: pl.DataFrame, *, typed: bool = True) -> ShardPredictions:
    """Predict a frame as the batch does: encoded by polars, scored, combined as arrays."""
    read = ensemble.release
    columns = encode_frame(read.features, frame, typed=typed).columns
    predicted = predict_shard(read, read.policy, list_lines(frame.height), _LoadedMembers(ensemble, columns))
    assert isinstance(predicted, ShardPredictions)
    return predicted


def check_lines(read: Any, predicted: ShardPredictions, output: Mapping[str, Any]) -> None:
    """Compare a frame with an execution's output, number by number."""
    prefixes = name_members(read.members)
    reached = {one["id"]: 0 for one in output["members"]}
    for line, prediction in zip(predicted.frame.to_dicts(), output["predictions"], strict=True):
        shadows, missing = prediction.pop("shadows", {}), prediction.pop("missing", [])
        assert line["status"] == ("DEGRADED" if missing else "COMPLETE")
        assert {name: line.get(name) for name in prediction} == prediction
        for one in output["members"]:
            prefix, id_ = prefixes[one["id"]], one["id"]
            declared = next(member for member in read.members if member.id == id_)
            skipped = one["status"] == "skipped" or declared.tier > prediction.get("tier", 1)
            assert line[f"{prefix}_status"] == ("skipped" if skipped else one["status"])
            if skipped or one["status"] == "failed":
                assert line[f"{prefix}_output"] is None
                reached[id_] += not skipped
                continue
            outputs = one["outputs"][reached[id_]]
            reached[id_] += 1
            if isinstance(declared.output, Label):
                outputs = (
                    outputs
                    if isinstance(outputs, str)
                    else (declared.output.classes or read.task.classes)[int(outputs)]
                )
            assert line[f"{prefix}_output"] == outputs
            if one["role"] == "shadow":
                fared = {name: line.get(f"{prefix}_{name}") for name in ("agrees", "flips")}
                assert fared == shadows.get(id_, {"agrees": None, "flips": None})


def compare(folder: Path, rows: list[dict[str, Any]], *members: dict[str, Any], **more: Any) -> pl.DataFrame:
    """Predict the same rows in an execution and in the batch, compare, and return the batch's frame."""
    path = sources(folder, *members, **more).path
    for broken in folder.glob("logarithm.tflite"):
        if more.get("quorum") == {"min_members": 1}:
            broken.write_bytes(b"no model")
    ensemble = Ensemble.load(path)
    output = ensemble.predict({"instances": rows})
    predicted = predict_frame(ensemble, pl.DataFrame(rows))
    assert predicted.status == output["status"]
    check_lines(ensemble.release, predicted, output)
    return predicted.frame


def test_a_cascade_with_a_shadow_and_a_failed_member_predicts_as_an_execution(tmp_path: Path) -> None:
    frame = compare(
        tmp_path,
        [
            {"x": 9.5, "y": 0.25},
            {"x": 0.0, "y": 3.0},
            {"x": -9.0, "y": 0.5},
            {"x": 0.1, "y": -0.2},
            {"x": 0.0, "y": 0.0},
        ],
        member("sure", "sigmoid", "probability", columns=["x"]),
        member("broken", "logarithm", "probability", columns=["x"]),
        member("late-one", "sigmoid", "probability", columns=["y"], tier=2),
        member("also", "sigmoid", "logit", columns=["y"], tier=2),
        member("trial", "sigmoid", "probability", columns=["y"], role="shadow", tier=2),
        task=TWO,
        features=[X, Y],
        cascade={"min_margin": 0.5},
        review={"min_margin": 0.3},
        quorum={"min_members": 1},
    )
    assert frame["tier"].to_list() == [1, 2, 1, 2, 2]
    assert frame["broken_status"].to_list() == ["failed"] * 5
    assert frame["late_one_status"].to_list() == ["skipped", "ok", "skipped", "ok", "ok"]
    assert frame["trial_agrees"].is_null().to_list() == [True, False, True, False, False]
    assert frame["decision"].n_unique() > 1


def test_three_classes_and_a_label_predict_as_an_execution(tmp_path: Path) -> None:
    frame = compare(
        tmp_path,
        [{"x": -5.0, "y": 5.0}, {"x": 5.0, "y": 0.5}, {"x": 0.25, "y": 0.75}],
        member("soft", "softmax", "probabilities"),
        member("label", "sign_label", "label", columns=["x"]),
        member("trial", "sign_label", "label", columns=["y"], role="shadow"),
        task=COLOURS,
        features=[X, Y],
        aggregation={"method": "hard_vote", "tie": "abstain"},
    )
    assert frame["label"].null_count() == 2  # a tie of two votes that is not broken
    assert frame.filter(pl.col("label").is_null()).select("value", "score", "decision").unique().rows() == [
        (None, None, "abstain")
    ]
    assert frame["label_output"].to_list() == ["red", "green", "green"]
    assert "label_value" not in frame.columns


def test_a_regression_predicts_as_an_execution(tmp_path: Path) -> None:
    frame = compare(
        tmp_path,
        [{"x": 1.0}, {"x": 2.5}],
        member("half"),
        member("other"),
        member("trial", role="shadow", output={"kind": "value", "scale": 2.0}),
    )
    # half_plus_two(1) = 2.5, which the shadow calls 5: outside the range of the voters
    assert frame.select("value", "trial_output", "trial_value", "trial_agrees").row(0) == (2.5, 2.5, 5.0, False)
    assert not {"label", "pivotal", "half_label", "trial_flips"} & set(frame.columns)


def test_the_shipped_ensemble_predicts_a_csv_as_an_execution() -> None:
    ensemble = Ensemble.load(ROOT / "models" / "manifest.json")
    rows = json.loads((ROOT / "events" / "passengers.json").read_bytes())["instances"]
    names = [feature.name for feature in ensemble.release.features]
    text = pl.DataFrame(
        {name: [None if row.get(name) is None else str(row[name]) for row in rows] for name in names},
        schema=dict.fromkeys(names, pl.String),
    )
    predicted = predict_frame(ensemble, text, typed=False)
    check_lines(ensemble.release, predicted, ensemble.predict({"instances": rows}))


@settings(max_examples=80, deadline=None)
@given(strategies.cases(), st.data())
def test_the_frame_equals_an_execution_for_any_outputs(case: Any, data: st.DataObject) -> None:
    outputs = {vote.id: vote.output for vote in case.votes}
    many = "value" if not hasattr(case.task, "classes") else "probabilities"
    members = [released(vote.id, many, weight=vote.weight) for vote in case.votes]
    for shadow, output in data.draw(strategies.shadows(case.task, case.rows)):
        members.append(shadow)
        outputs[shadow.id] = (
            output if many == "value" or shadow.output.__struct_config__.tag != "label" else output.argmax(1)
        )
    if len(members) > 3 and data.draw(st.booleans()):
        del outputs[members[0].id]
    review = data.draw(st.sampled_from([None, Confidence(max_spread=0.1)]))
    read = release(case.task, *members, aggregation=case.aggregation, review=review)
    results = {id_: MemberResult(id_, output) for id_, output in outputs.items()}
    decided = decide(read, read.policy, case.rows, Supply(lambda *_: results))
    predicted = predict_shard(read, read.policy, list_lines(case.rows), Supply(lambda *_: results))
    assert not isinstance(decided, Undecided)
    assert isinstance(predicted, ShardPredictions)
    assert predicted.frame.schema == result_schema(read, list_lines(0).schema)
    if decided.cause is not None:
        assert (predicted.status, predicted.cause, predicted.frame.height) == ("FAILED", decided.cause, 0)
        return
    check_lines(read, predicted, msgspec.to_builtins(decided.to_output("p", "r")))


def test_a_shard_without_rows_has_all_columns_and_invokes_no_member() -> None:
    read = release(BINARY, released("a", "probability"), released("b", "probability", role="shadow"))
    predicted = predict_shard(read, read.policy, list_lines(0), Supply(lambda *_: pytest.fail("a member was invoked")))
    assert isinstance(predicted, ShardPredictions)
    assert (predicted.status, predicted.cause) == ("COMPLETE", None)
    assert predicted.frame.schema == result_schema(read, list_lines(0).schema)


def test_rows_for_the_next_tier_are_returned() -> None:
    members = released("a", "probability"), released("b", "probability", tier=2)
    read = release(BINARY, *members, cascade=Confidence(min_margin=0.5))
    first = {"a": MemberResult("a", np.array([0.9, 0.6]))}
    undecided = predict_shard(read, read.policy, list_lines(2), CollectedResults([first]))
    assert isinstance(undecided, Undecided)
    assert (undecided.tier, undecided.numbers.tolist()) == (2, [1])


def test_every_column_has_a_valid_athena_name() -> None:
    members = [released(id_, "probability") for id_ in ("a-b", "a_b", "a_b_2", "1st", "deep")]
    schema = result_schema(release(BINARY, *members, released("s", "logit", role="shadow")), list_lines(0).schema)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in schema)
    prefixes = name_members(members)
    assert prefixes == {"a-b": "a_b", "a_b": "a_b_2", "a_b_2": "a_b_2_2", "1st": "m_1st", "deep": "deep"}


def test_rows_are_named_and_kept_columns_are_copied() -> None:
    raw = pl.DataFrame(
        {"key": [7, 8], "Fare": [1.5, None], "label": ["x", "y"], "tags": [[1, 2], None], "truth": ["1", "maybe"]}
    )
    options = Options(id="key", keep=("Fare", "label", "tags", "absent"), label="truth")
    file = File("a.jsonl", "a.jsonl", 1, "1", "jsonl")
    rows = name_rows(raw, np.array([3, 5]), RowNaming(file, options, BINARY, "indexes"))
    assert rows.to_dicts() == [
        {
            "id": "7",
            "file": "a.jsonl",
            "row": 3,
            "Fare": "1.5",
            "input_label": "x",
            "tags": "[1,2]",
            "absent": None,
            "truth": "yes",
        },
        {
            "id": "8",
            "file": "a.jsonl",
            "row": 5,
            "Fare": None,
            "input_label": "y",
            "tags": None,
            "absent": None,
            "truth": None,
        },
    ]
    parquet = File("a.parquet", "a.parquet", 1, "1", "parquet")
    kept = name_rows(raw, np.array([3, 5]), RowNaming(parquet, Options(keep=("Fare",)), BINARY))
    assert kept.schema == {"file": pl.String, "row": pl.Int64, "Fare": pl.Float64}


def test_kept_columns_that_differ_in_case_only_have_different_names() -> None:
    raw = pl.DataFrame({"Fare": ["1"], "fare": ["2"], "Value": ["3"]})
    file, options = File("a.csv", "a.csv", 1, "1", "csv"), Options(keep=("Fare", "fare", "Value"))
    rows = name_rows(raw, np.array([1]), RowNaming(file, options, REGRESSION))
    assert rows.columns == ["file", "row", "Fare", "input_fare", "input_Value"]


def test_a_kept_column_and_a_members_column_of_the_same_name_are_both_there() -> None:
    read = release(BINARY, released("a", "probability"), released("b", "probability"))
    rows = list_lines(1).with_columns(pl.lit("kept").alias("A_output"), pl.lit("too").alias("b"))
    results = {id_: MemberResult(id_, np.array([0.75])) for id_ in ("a", "b")}
    predicted = predict_shard(read, read.policy, rows, Supply(lambda *_: results))
    assert isinstance(predicted, ShardPredictions)
    assert predicted.frame.select("A_output", "a_2_output", "b", "b_output").row(0) == ("kept", 0.75, "too", 0.75)


def test_a_kept_column_never_replaces_one_of_the_prediction() -> None:
    members = [released("a", "probability", tier=2), released("b", "probability")]
    read = release(BINARY, *members, cascade=Confidence(min_margin=0.5), features=(NumberFeature("x"),))
    mine = {f"{prefix}_{part}" for prefix in ("a", "b") for part in ("output", "value", "label", "status")}
    assert set(result_schema(read, list_lines(0).schema)) - mine <= RESERVED
