"""Start a run of the batch, follow it to its end, and bring its results to this machine."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from stepensemble.batch.claims import list_finished
from stepensemble.batch.run import Plan, Request, Result, Shard
from stepensemble.batch.summary import Summary
from stepensemble.cli.stacks import Stack
from stepensemble.core.errors import ObjectMissing
from stepensemble.core.payload import Pointer
from stepensemble.storage.keys import REPORT, SUMMARY, partition, plan_key, shards_key

LOCAL_WAITS, DEPLOYED_WAITS = (0.1, 0.1, 0.2, 0.3, 0.5, 1.0), (0.5, 1.0, 2.0, 5.0)
"""Seconds between looks at a run; the last one repeats."""

How = Literal["new", "resumed", "joined", "returned"]
HOWS: tuple[How, ...] = get_args(How)
"""A run that nobody began before; one that was not ended; one that another execution works on; one that is whole."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is; `rows` of a gzip file are not known before it is read, and count as none."""

    shards: int
    finished: int
    rows: int
    rows_finished: int


@dataclass(slots=True)
class Followed:
    """A run that was followed to its end.

    Attributes:
        run: its name; None where it was refused before it had one.
        result: None where it failed.
        error, cause: of a failed one.
        reports: where a failed run's summary and report lie, if it came to have some.
    """

    execution: str
    run: str | None = None
    how: How = "new"
    seconds: float = 0.0
    result: Result | None = None
    error: str | None = None
    cause: str | None = None
    reports: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return everything as one document."""
        known = {"run": self.run, "status": "FAILED", "error": self.error, "cause": self.cause}
        if self.result is not None:
            known = msgspec.to_builtins(self.result)
        elif self.reports is not None:
            known |= {"report": f"{self.reports}{REPORT}", "summary": f"{self.reports}{SUMMARY}"}
        return known | {"seconds": round(self.seconds, 3), "how": self.how, "execution": self.execution}


def start_run(stack: Stack, request: Request) -> str:
    """Start an execution of the batch and return its ARN. Whether it does anything is decided by its Plan."""
    name = f"batch-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    started = stack.step_functions.start_execution(
        stateMachineArn=stack.batch_machine,
        name=name,
        input=msgspec.json.encode(request).decode(),
    )
    return started["executionArn"]


def follow_run(stack: Stack, execution: str, watch: Callable[[Progress], None] = lambda _: None) -> Followed:
    """Wait for the end of an execution of the batch.

    Args:
        stack: that it runs on.
        execution: its ARN.
        watch: told again and again how far the run is, once it is cut into shards.
    """
    waits = LOCAL_WAITS if stack.local else DEPLOYED_WAITS
    begun = time.monotonic()
    followed, watcher, looks = Followed(execution), None, 0
    while True:
        described = stack.step_functions.describe_execution(executionArn=execution)
        if described["status"] != "RUNNING":
            break
        if followed.run is None:
            _note_plan(stack, followed)
        elif watcher is None:
            watcher = _open_watcher(stack, followed.run)
        if watcher is not None:
            watch(watcher.look())
        time.sleep(waits[min(looks, len(waits) - 1)])
        looks += 1
    _note_plan(stack, followed)
    if described["status"] == "SUCCEEDED":
        followed.result = msgspec.json.decode(described["output"], type=Result)
        followed.run = followed.result.run
    else:
        followed.error, followed.cause = described.get("error", described["status"]), described.get("cause", "")
        followed.reports = _find_reports(stack, followed.run)
    followed.seconds = time.monotonic() - begun
    return followed


def read_summary(stack: Stack, followed: Followed) -> Summary | None:
    """Return what is said of a run that ended; None of one that failed before there was anything to say."""
    if followed.result is not None:
        place = followed.result.summary
    elif followed.reports is not None:
        place = f"{followed.reports}{SUMMARY}"
    else:
        return None
    return msgspec.json.decode(stack.data.read(Pointer(place).split()[1]), type=Summary)


def fetch_results(stack: Stack, summary: Summary, folder: Path) -> Path:
    """Bring a run's results, its rejected rows, report and summary into a folder of its own, and return that.

    It stands below `folder` as the results do in the bucket, `ensemble=…/dt=…/run=…`, that of a failed run with
    `.failed` behind, and appears when it is whole.
    """
    reports = summary.report.rsplit("/", 1)[0] + "/"
    below = reports[reports.index("/ensemble=") + 1 : -1]
    target = folder / (below if summary.results is not None else f"{below}.failed")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for place, named in ((summary.results, "part-"), (summary.rejected, "rejected-"), (reports, "")):
        if place is None:
            continue
        prefix = Pointer(place).split()[1]
        for listed in stack.data.list(prefix):
            name = listed.key.removeprefix(prefix)
            (partial / (named + name.removeprefix("part-") if name.startswith("part-") else name)).write_bytes(
                stack.data.read(listed.key)
            )
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target


@dataclass(slots=True)
class _Watcher:
    """Counts the reports of a run's shards; `rows` are the shards' own, by number."""

    stack: Stack
    run: str
    rows: Mapping[int, int]
    finished: frozenset[int] = field(default_factory=frozenset)

    def look(self) -> Progress:
        # A run that is whole has no reports any more.
        self.finished |= list_finished(self.stack.data, self.run)
        done = sum(self.rows.get(number, 0) for number in self.finished)
        return Progress(len(self.rows), len(self.finished), sum(self.rows.values()), done)


def _open_watcher(stack: Stack, run: str) -> _Watcher | None:
    """Return what counts; None where the list of shards is not written yet."""
    try:
        shards = msgspec.json.decode(stack.data.read(shards_key(run)), type=list[Shard])
    except ObjectMissing:
        return None
    return _Watcher(stack, run, {shard.number: shard.rows or 0 for shard in shards})


def _note_plan(stack: Stack, followed: Followed) -> None:
    """Note what Plan said, the first time: the run's name, and whether somebody has begun it before."""
    if followed.run is not None:
        return
    answers = _read_plan_answers(stack, followed.execution)
    if not answers:
        return
    first = answers[0]
    result = first.get("result") or {}
    followed.run = first.get("run") or result.get("run")
    if first.get("state") == "done":
        followed.how = "returned"
    elif first.get("state") == "wait":
        followed.how = "joined"
    elif first.get("attempt", 1) > 1:
        followed.how = "resumed"


def _read_plan_answers(stack: Stack, execution: str) -> Sequence[Mapping[str, Any]]:
    """Return what Plan answered, each time it was entered, from the execution's history."""
    pages = stack.step_functions.get_paginator("get_execution_history").paginate(executionArn=execution)
    exits = (event.get("stateExitedEventDetails", {}) for page in pages for event in page["events"])
    return [msgspec.json.decode(exited["output"]) for exited in exits if exited.get("name") == "Plan"]


def _find_reports(stack: Stack, run: str | None) -> str | None:
    """Return `s3://bucket/prefix/` where the summary of a failed run lies; None where it has none."""
    if run is None:
        return None
    try:
        plan = msgspec.json.decode(stack.data.read(plan_key(run)), type=Plan)
    except ObjectMissing:
        return None
    folder = f"{partition(f'{plan.output}-reports', plan.ensemble, plan.date, run)}/"
    found = any(listed.key.endswith(f"/{SUMMARY}") for listed in stack.data.list(folder))
    return stack.data.pointer(folder).s3 if found else None
