from __future__ import annotations

import msgspec
import numpy as np
import pytest

from builders import BINARY, THREE, release, released
from stepensemble.core.answer import MemberFailure, MemberResult, Output, decide
from stepensemble.core.manifest import Task
from stepensemble.core.records import Record, decode_record, encode_record


def record(task: Task = BINARY, failure: str | None = None) -> Record:
    outputs = np.array([0.1, 0.9]) if task is BINARY else np.array([[0.2, 0.3, 0.5], [1, 0, 0]])
    results = {
        "a": MemberResult("a", outputs, 0.25, cold=True),
        "b": MemberResult("b", failure=MemberFailure("States.Timeout", "")),
    }
    kind = "probability" if task is BINARY else "probabilities"
    answer = decide(release(task, released("a", kind), released("b", kind)), 2, results)
    return Record(
        prediction_id="p",
        release="0" * 64,
        execution="arn:p",
        started_at="2026-03-01T11:59:59.000Z",
        recorded_at="2026-03-01T12:00:00.000+00:00",
        rows=2,
        input_digest="1" * 64,
        input={"instances": [{"x": 1}, {"x": None, "ä": "ö"}]},
        output=Output("p", "0" * 64, answer.status, answer.predictions, answer.members),
        metadata={"why": [1, {"a": None}]},
        failure=failure,
    )


@pytest.mark.parametrize("task", [BINARY, THREE])
@pytest.mark.parametrize("failure", [None, "no quorum"])
def test_a_record_comes_back_as_it_was(task: Task, failure: str | None) -> None:
    kept = record(task, failure)
    assert decode_record(encode_record(kept)) == kept
    assert decode_record(encode_record(kept).decode()) == kept


def test_a_record_is_listed_under_the_day_it_was_recorded() -> None:
    assert record().day == "2026-03-01"


def test_a_record_says_its_format() -> None:
    assert msgspec.json.decode(encode_record(record()))["format"] == 1
