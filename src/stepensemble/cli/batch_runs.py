"""Start a run of the batch, follow it to its end, and bring its results to this machine."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from stepensemble.batch.documents import Request, Result, RunPlan, Shard
from stepensemble.batch.report.summary import Summary
from stepensemble.batch.run_lock import list_finished
from stepensemble.batch.stored_documents import decode_plan, decode_summary
from stepensemble.cli.stacks import Stack
from stepensemble.core.errors import ObjectMissing
from stepensemble.core.payload import Pointer
from stepensemble.storage.keys import SUMMARY, partition, plan_key, shards_key

LOCAL_WAITS, DEPLOYED_WAITS = (0.1, 0.1, 0.25), (0.5, 1.0, 2.0, 5.0)
"""Seconds between looks at a run; the last one repeats, until all shards are done: then they begin anew."""

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
        notes: of its plan.
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
    notes: tuple[str, ...] = ()

    def to_json(self, summary: Summary | None = None) -> dict[str, Any]:
        """Return everything as one document; of a failed run, counts are in it where it has a summary."""
        known: dict[str, Any] = {"run": self.run, "status": "FAILED", "error": self.error, "cause": self.cause}
        if self.result is not None:
            known = msgspec.to_builtins(self.result)
        elif summary is not None:
            known |= {
                "date": summary.date,
                "release": summary.release,
                "rows_in": summary.rows,
                "rows_out": summary.rows_out,
                "rows_rejected": summary.rows_rejected,
                "rows_failed": summary.rows_failed,
                "results": summary.results,
                "rejected": summary.rejected,
                "report": summary.report,
                "summary": f"{self.reports}{SUMMARY}",
            }
        notes = list(self.notes)
        return known | {"notes": notes, "seconds": round(self.seconds, 3), "how": self.how, "execution": self.execution}


def start_run(stack: Stack, request: Request) -> str:
    """Start an execution of the batch and return its ARN. Whether it does anything is decided by its Plan."""
    name = f"batch-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    started = stack.step_functions.start_execution(
        stateMachineArn=stack.batch_machine,
        name=name,
        input=msgspec.json.encode(request).decode(),
    )
    return started["executionArn"]


def follow_run(
    stack: Stack,
    execution: str,
    watch: Callable[[Progress], None] = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
) -> Followed:
    """Wait for the end of an execution of the batch.

    Args:
        stack: that it runs on.
        execution: its ARN.
        watch: told again and again how far the run is, once it is cut into shards.
        tell: told each of the plan's notes, once, before that.
    """
    waits = LOCAL_WAITS if stack.local else DEPLOYED_WAITS
    begun = time.monotonic()
    followed, plan, watcher, looks, done = Followed(execution), None, None, 0, False
    while True:
        described = stack.step_functions.describe_execution(executionArn=execution)
        if described["status"] != "RUNNING":
            break
        if followed.run is None:
            _note_plan(stack, followed)
        elif plan is None:
            plan = _read_plan(stack, followed, tell)
            watcher = None if plan is None else _open_watcher(stack, plan)
        if watcher is not None and not done:
            progress = watcher.look()
            watch(progress)
            done = progress.finished == progress.shards
            looks = 0 if done else looks
        time.sleep(waits[min(looks, len(waits) - 1)])
        looks += 1
    _note_plan(stack, followed)
    plan = plan or _read_plan(stack, followed, tell)
    if described["status"] == "SUCCEEDED":
        followed.result = msgspec.json.decode(described["output"], type=Result)
        followed.run = followed.result.run
    else:
        followed.error, followed.cause = described.get("error", described["status"]), described.get("cause", "")
        followed.reports = None if plan is None else _find_reports(stack, plan, execution)
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
    return decode_summary(stack.data.read(Pointer(place).split()[1]))


def fetch_results(stack: Stack, summary: Summary, folder: Path) -> Path:
    """Bring a run's results, its rejected rows, report and summary into a folder of its own, and return that.

    It stands below `folder` as the results do in the bucket, `ensemble=…/dt=…/run=…`, that of a failed run with
    `.failed` behind until the run has succeeded, and appears when it is whole. Commands that bring the same do so one
    after the other.
    """
    reports = summary.report.rsplit("/", 1)[0] + "/"
    below = reports[reports.index("/ensemble=") + 1 : -1]
    whole, failed = folder / below, folder / f"{below}.failed"
    target = failed if summary.results is None else whole
    partial = target.with_name(f".{target.name}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone_in(target.parent):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for place, named in ((summary.results, "part-"), (summary.rejected, "rejected-"), (reports, "")):
            if place is not None:
                _fetch(stack, Pointer(place).split()[1], partial, named)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        if target == whole:
            shutil.rmtree(failed, ignore_errors=True)
    return target


def _fetch(stack: Stack, prefix: str, folder: Path, named: str) -> None:
    """Bring what lies under a prefix into a folder; parts are called `named` and their number."""
    for listed in stack.data.list(prefix):
        name = listed.key.removeprefix(prefix)
        name = named + name.removeprefix("part-") if name.startswith("part-") else name
        (folder / name).write_bytes(stack.data.read(listed.key))


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let other processes that want the same wait; the lock is on the folder itself, and ends with its process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


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


def _open_watcher(stack: Stack, plan: RunPlan) -> _Watcher | None:
    """Return what counts; None where the list of shards, which is written before the plan, is tidied up already."""
    try:
        shards = msgspec.json.decode(stack.data.read(shards_key(plan.run)), type=list[Shard])
    except ObjectMissing:
        return None
    return _Watcher(stack, plan.run, {shard.number: shard.rows or 0 for shard in shards})


def _read_plan(stack: Stack, followed: Followed, tell: Callable[[str], None]) -> RunPlan | None:
    """Return the plan of a run, and tell its notes; None where it is not written yet."""
    if followed.run is None:
        return None
    try:
        plan = decode_plan(stack.data.read(plan_key(followed.run)))
    except ObjectMissing:
        return None
    followed.notes = plan.notes
    for note in plan.notes:
        tell(note)
    return plan


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


def _find_reports(stack: Stack, plan: RunPlan, execution: str) -> str | None:
    """Return `s3://bucket/prefix/` where the summary of a failed execution lies; None where it came to none.

    One of an execution before, which failed in another way or succeeded, is not its own.
    """
    folder = f"{partition(f'{plan.output}-reports', plan.ensemble, plan.date, plan.run)}/"
    try:
        summary = decode_summary(stack.data.read(f"{folder}{SUMMARY}"))
    except ObjectMissing:
        return None
    return stack.data.pointer(folder).s3 if summary.execution == execution else None
