from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from builders import BINARY, REGRESSION
from stepensemble.core.limits import STATE_BYTES, travels_inline
from stepensemble.core.manifest import MulticlassTask, Task
from stepensemble.core.outputs import output_width

WORST = -2.2250738585072014e-308
"""No float64 is longer in JSON."""

WORDS = st.text(min_size=1, max_size=30)
TASKS = st.one_of(
    st.just(REGRESSION),
    st.just(BINARY),
    st.lists(WORDS, min_size=2, max_size=12, unique=True).map(lambda names: MulticlassTask(classes=tuple(names))),
)


def states(task: Task, rows: int, columns: int, members: int, failing: int) -> dict[str, Any]:
    """Build what an execution carries at its worst: the longest numbers, names and causes."""
    classes = () if task is REGRESSION else task.classes  # type: ignore[union-attr]
    kind = {REGRESSION: "value", BINARY: "probability"}.get(task, "probabilities")
    one = [WORST] * len(classes) if kind == "probabilities" else WORST
    ids = [f"{number:02d}".ljust(64, "m") for number in range(members)]
    longest = max(classes, key=lambda name: len(msgspec.json.encode(name)), default="")
    frame = {"prediction_id": "p" * 128, "release": "0" * 64, "rows": rows}
    payload = {"instances": [{f"column-{c}": WORST for c in range(columns)}] * rows}
    asked = [
        {"id": id_, "function": "f" * 64, "timeout": 50, "runtime": "litert", "outputs_key": None,
         "artifact": {"digest": "0" * 64, "size": 10**9}, "columns": [f"column-{c}" for c in range(columns)]}
        for id_ in ids
    ]  # fmt: skip
    results = [
        {"id": id_, "error": {"Error": "Runtime.ExitError", "Cause": "c" * 5_000}}
        if number < failing
        else {"id": id_, "outputs": [one] * rows, "duration_ms": 12345.678, "cold": False}
        for number, id_ in enumerate(ids)
    ]
    execution = {"id": "a" * 256, "name": "n" * 80, "started_at": "2026-03-01T12:00:00.000Z"}
    prediction = {"value": WORST, "spread": WORST}
    if classes:
        prediction |= {"label": longest, "score": WORST, "probabilities": [WORST] * len(classes),
                       "agreement": WORST, "tie": False}  # fmt: skip
    reports = [
        {"id": result["id"], "version": "v" * 64, "digest": "0" * 64, "role": "shadow", "status": "failed",
         "weight": WORST, "outputs": result.get("outputs"), "duration_ms": 12345.678, "cold": False,
         "error": {"type": "T" * 64, "message": result.get("error", {}).get("Cause", "")}}
        for result in results
    ]  # fmt: skip
    carried = {f"column-{c}": [WORST] * rows for c in range(columns)}
    return {
        "input": payload,
        "columns": carried,
        "members": asked,
        "widths": [output_width(task, kind)] * members,  # type: ignore[arg-type]
        "classes": classes,
        "bodies": [
            {**frame, "inline": True, "columns": carried, "members": asked, "results": results},
            {**frame, "inline": True, "results": results, "payload": payload, "execution": execution},
            {**frame, "status": "DEGRADED", "predictions": [prediction] * rows, "members": reports},
        ],
    }


def size(value: Any) -> int:
    return len(msgspec.json.encode(value))


def accepts(built: dict[str, Any], rows: int) -> bool:
    return travels_inline(
        input_bytes=size(built["input"]),
        columns_bytes=size(built["columns"]),
        members_bytes=size(built["members"]),
        rows=rows,
        output_widths=built["widths"],
        classes=built["classes"],
    )


def assert_fits(task: Task, columns: int, members: int, failing: int) -> None:
    """Find the most rows that are accepted, where the arithmetic is tightest, and measure what they come to."""
    few, many = 0, 10_000
    while many - few > 1:
        middle = (few + many) // 2
        if accepts(states(task, middle, columns, members, failing), middle):
            few = middle
        else:
            many = middle
    if few:
        for body in states(task, few, columns, members, failing)["bodies"]:
            assert size(body) <= STATE_BYTES


@settings(max_examples=25)
@given(TASKS, st.integers(1, 20), st.integers(1, 8), st.data())
def test_law_what_travels_inline_fits_into_every_state_at_its_worst(
    task: Task, columns: int, members: int, data: st.DataObject
) -> None:
    assert_fits(task, columns, members, data.draw(st.integers(0, members)))


@pytest.mark.parametrize(
    ("task", "columns", "members", "failing"),
    [
        pytest.param(REGRESSION, 1000, 8, 8, id="more causes than outputs"),
        pytest.param(MulticlassTask(classes=('"' * 400, "b")), 1, 1, 0, id="a label that JSON writes twice as long"),
    ],
)
def test_what_travels_inline_fits_at_the_edges_too(task: Task, columns: int, members: int, failing: int) -> None:
    assert_fits(task, columns, members, failing)


def test_a_passenger_and_a_few_hundred_travel_inline_and_ten_thousand_do_not() -> None:
    assert [accepts(states(BINARY, rows, 11, 4, 0), rows) for rows in (1, 300, 10_000)] == [True, True, False]


def test_a_large_input_alone_decides() -> None:
    sizes: dict[str, Any] = {"columns_bytes": 100, "members_bytes": 100, "rows": 1, "output_widths": [1], "classes": ()}
    assert travels_inline(input_bytes=200_000, **sizes)
    assert not travels_inline(input_bytes=STATE_BYTES, **sizes)
