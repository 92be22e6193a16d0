"""The number of transitions that a summary computes by a formula is that of the state machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from batch import MemoryBatch
from builders import member, sources
from memory import MemoryStack
from stepensemble.batch.report.summary import Summary
from stepensemble.core.errors import InputMismatch

PLAIN = (member("a"), member("b"))
SHADOWED = (*PLAIN, member("s", role="shadow"))
FAILING = (*PLAIN, member("third"))
"""Its third member fails in the first shard."""

TIERED = (member("a"), member("b", "sigmoid"), member("late", tier=2), member("s", role="shadow", tier=2))
CASCADE = {"cascade": {"max_spread": 5.0}}
"""x / 2 + 2 and a value below 1 are close to each other only for small x."""

NUMBERS = "x\n" + "".join(f"{row}\n" for row in range(-500, 500))


@pytest.mark.parametrize(
    ("members", "more", "text"),
    [
        (PLAIN, {}, NUMBERS),
        (SHADOWED, {}, NUMBERS),
        (FAILING, {}, NUMBERS),
        (TIERED, CASCADE, "x\n" + "".join(f"{row / 1000}\n" for row in range(1000)) + "1000\n" * 300),
        (PLAIN, {}, "x\n" + "many\n" * 400 + "1\n"),
        (SHADOWED, {}, "x\n"),
    ],
    ids=["plain", "shadows", "a failing member", "tiers", "shards without rows", "no shard"],
)
def test_the_formula_counts_every_state_that_is_entered(
    tmp_path: Path, members: tuple[dict[str, Any], ...], more: dict[str, Any], text: str
) -> None:
    stack = MemoryStack()
    stack.publish(sources(tmp_path, *members, **more))
    run, entered = MemoryBatch(stack), list[str]()
    if members is FAILING:
        run.breaks[list(stack.slots)[2]] = lambda event: (
            InputMismatch("rejected") if "/000000/" in json.dumps(event) else None
        )
    run.put("a.csv", text)
    output = run.run("run-1", entered, options={"shard_size": 1024, "max_rejected": 1})
    summary = msgspec.json.decode(stack.data.read(output["summary"].removeprefix("s3://data/")), type=Summary)
    assert summary.shards == 0 or summary.shards > 1
    # A Distributed Map is also charged for the start of each child.
    assert summary.cost.state_transitions == len(entered) + summary.shards
