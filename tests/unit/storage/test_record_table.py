from __future__ import annotations

import msgspec
import numpy as np
import pytest

from builders import BINARY, THREE, release, released
from stepensemble.core.aggregation.execution import ExecutionResult, decide
from stepensemble.core.aggregation.output import MemberFailure
from stepensemble.core.aggregation.output_source import CollectedResults, MemberResult
from stepensemble.core.errors import RecordUnreadable
from stepensemble.core.record import Record, decode_record, encode_record
from stepensemble.core.schema.policy import Confidence, Stacking
from stepensemble.core.schema.task import Task


def record(task: Task = BINARY, failure: str | None = None) -> Record:
    outputs = np.array([0.1, 0.9]) if task is BINARY else np.array([[0.2, 0.3, 0.5], [1, 0, 0]])
    results = {
        "a": MemberResult("a", outputs, 0.25, cold=True),
        "b": MemberResult("b", failure=MemberFailure("States.Timeout", "")),
        "shadow": MemberResult(
            "shadow", np.array(["yes", "no"] if task is BINARY else ["red", "blue"]), 1.5, cold=False
        ),
    }
    kind = "probability" if task is BINARY else "probabilities"
    coefficient = 2.0 if task is BINARY else ((1.0, 2.0, 3.0),) * 3
    made = release(
        task,
        released("a", kind),
        released("b", kind),
        released("shadow", "label", role="shadow"),
        aggregation=Stacking(coefficients={"a": coefficient, "b": coefficient}, missing="mean"),
        review=Confidence(min_margin=0.5),
    )
    decided = decide(made, made.policy, 2, CollectedResults([results]))
    assert isinstance(decided, ExecutionResult)
    return Record(
        prediction_id="p",
        release="0" * 64,
        execution="arn:p",
        started_at="2026-03-01T11:59:59.000Z",
        recorded_at="2026-03-01T12:00:00.000+00:00",
        rows=2,
        input_digest="1" * 64,
        input={"instances": [{"x": 1}, {"x": None, "ä": "ö"}]},
        output=decided.to_output("p", "0" * 64),
        metadata={"why": [1, {"a": None}]},
        failure=failure,
    )


@pytest.mark.parametrize("task", [BINARY, THREE])
@pytest.mark.parametrize("failure", [None, "no quorum"])
def test_a_record_is_read_as_it_was_written(task: Task, failure: str | None) -> None:
    kept = record(task, failure)
    assert decode_record(encode_record(kept)) == kept
    assert decode_record(encode_record(kept).decode()) == kept


def test_a_record_is_listed_under_the_day_it_was_recorded() -> None:
    assert record().day == "2026-03-01"


def test_a_record_states_its_format() -> None:
    assert msgspec.json.decode(encode_record(record()))["format"] == 3


def test_a_record_of_format_2_is_read_with_the_names_of_format_3() -> None:
    kept = record()
    earlier = msgspec.json.decode(encode_record(kept))
    output = earlier["output"]
    output["attendance"] = {
        role: {"asked": counts["invoked"], "answered": counts["responded"], "weight": counts["weight"]}
        for role, counts in output.pop("participation").items()
    }
    output["unanswered"] = output.pop("rows_failed")
    decisions = [prediction["decision"] for prediction in output["predictions"]]
    for prediction in output["predictions"]:
        prediction["decision"] = prediction["decision"].replace("accept", "answer")
    assert "accept" in decisions
    assert decode_record(msgspec.json.encode({**earlier, "format": 2})) == kept


def test_a_record_of_format_1_is_rejected_by_name() -> None:
    earlier = msgspec.json.decode(encode_record(record()))
    del earlier["output"]["policy"]
    with pytest.raises(RecordUnreadable, match=r"not of format 3, .* missing required field `policy`"):
        decode_record(msgspec.json.encode({**earlier, "format": 1}))
