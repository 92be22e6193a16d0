"""Start a run of the batch, wait for its end, and download its results."""

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

LOCAL_PAUSES, DEPLOYED_PAUSES = (0.1, 0.1, 0.25), (0.5, 1.0, 2.0, 5.0)
"""Seconds between requests for a run's status. The last one repeats; when all shards are done, the first is next."""

RunMode = Literal["new", "resumed", "joined", "returned"]
RUN_MODES: tuple[RunMode, ...] = get_args(RunMode)
"""A first start; a continuation of a run that failed; a run that another execution works on; a run that is complete."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. The rows of a gzip file are unknown before it is read, and count as 0."""

    shards: int
    finished: int
    rows: int
    rows_finished: int


@dataclass(slots=True)
class FollowedRun:
    """A run that has ended.

    Attributes:
        execution: the ARN of the execution.
        run: the run's name; None if it was rejected before it had one.
        mode: whether the execution started the run, resumed it, joined it, or returned its result.
        seconds: how long the command waited for it.
        result: the execution's output; None if the run failed.
        error, cause: why the run failed; None if it did not.
        reports: the S3 prefix of a failed run's summary and report; None if they were not written.
        notes: the notes in the run's plan.
    """

    execution: str
    run: str | None = None
    mode: RunMode = "new"
    seconds: float = 0.0
    result: Result | None = None
    error: str | None = None
    cause: str | None = None
    reports: str | None = None
    notes: tuple[str, ...] = ()

    def to_json(self, summary: Summary | None = None) -> dict[str, Any]:
        """Return everything as one document; for a failed run, with the counts of its summary, if it has one."""
        document: dict[str, Any] = {"run": self.run, "status": "FAILED", "error": self.error, "cause": self.cause}
        if self.result is not None:
            document = msgspec.to_builtins(self.result)
        elif summary is not None:
            document |= {
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
        # "how" is an earlier name of "mode".
        modes = {"mode": self.mode, "how": self.mode}
        return document | {"notes": notes, "seconds": round(self.seconds, 3), **modes, "execution": self.execution}


def start_run(stack: Stack, request: Request) -> str:
    """Start an execution of the batch and return its ARN. The execution's Plan decides whether there is work to do."""
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
    note: Callable[[str], None] = lambda _: None,
) -> FollowedRun:
    """Wait for the end of an execution of the batch.

    Args:
        stack: the stack that runs it.
        execution: its ARN.
        watch: called repeatedly with the run's progress, once the run has shards.
        note: called once with each note in the run's plan.
    """
    pauses = LOCAL_PAUSES if stack.local else DEPLOYED_PAUSES
    started = time.monotonic()
    followed, plan, watcher, polls, done = FollowedRun(execution), None, None, 0, False
    while True:
        described = stack.step_functions.describe_execution(executionArn=execution)
        if described["status"] != "RUNNING":
            break
        if followed.run is None:
            _read_mode(stack, followed)
        elif plan is None:
            plan = _read_plan(stack, followed, note)
            watcher = None if plan is None else _open_watcher(stack, plan)
        if watcher is not None and not done:
            progress = watcher.read_progress()
            watch(progress)
            done = progress.finished == progress.shards
            polls = 0 if done else polls
        time.sleep(pauses[min(polls, len(pauses) - 1)])
        polls += 1
    _read_mode(stack, followed)
    plan = plan or _read_plan(stack, followed, note)
    if described["status"] == "SUCCEEDED":
        followed.result = msgspec.json.decode(described["output"], type=Result)
        followed.run = followed.result.run
    else:
        followed.error, followed.cause = described.get("error", described["status"]), described.get("cause", "")
        followed.reports = None if plan is None else _find_reports(stack, plan, execution)
    followed.seconds = time.monotonic() - started
    return followed


def read_summary(stack: Stack, followed: FollowedRun) -> Summary | None:
    """Return the summary of a run that has ended; None if it failed before it wrote one."""
    if followed.result is not None:
        uri = followed.result.summary
    elif followed.reports is not None:
        uri = f"{followed.reports}{SUMMARY}"
    else:
        return None
    return decode_summary(stack.data.read(Pointer(uri).split()[1]))


def fetch_results(stack: Stack, summary: Summary, folder: Path) -> Path:
    """Download a run's results, rejected rows, report and summary into a folder of its own, and return its path.

    The path below `folder` is that in the bucket, `ensemble=…/dt=…/run=…`; for a failed run it ends in `.failed`, until
    the run has succeeded. The folder appears when it is complete. Commands that download the same run wait for each
    other.
    """
    reports = summary.report.rsplit("/", 1)[0] + "/"
    below = reports[reports.index("/ensemble=") + 1 : -1]
    complete, failed = folder / below, folder / f"{below}.failed"
    target = failed if summary.results is None else complete
    partial = target.with_name(f".{target.name}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock_folder(target.parent):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for uri, prefix in ((summary.results, "part-"), (summary.rejected, "rejected-"), (reports, "")):
            if uri is not None:
                _fetch(stack, Pointer(uri).split()[1], partial, prefix)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        if target == complete:
            shutil.rmtree(failed, ignore_errors=True)
    return target


def _fetch(stack: Stack, below: str, folder: Path, prefix: str) -> None:
    """Download the objects below a key into a folder; a part is named with `prefix` and its number."""
    for listed in stack.data.list(below):
        name = listed.key.removeprefix(below)
        name = prefix + name.removeprefix("part-") if name.startswith("part-") else name
        (folder / name).write_bytes(stack.data.read(listed.key))


@contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder, for which other processes wait; it ends with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@dataclass(slots=True)
class _Watcher:
    """Counts the finished shards of a run; `rows` has the rows of each shard, by its number."""

    stack: Stack
    run: str
    rows: Mapping[int, int]
    finished: frozenset[int] = field(default_factory=frozenset)

    def read_progress(self) -> Progress:
        # A complete run has deleted the reports of its shards.
        self.finished |= list_finished(self.stack.data, self.run)
        done = sum(self.rows.get(number, 0) for number in self.finished)
        return Progress(len(self.rows), len(self.finished), sum(self.rows.values()), done)


def _open_watcher(stack: Stack, plan: RunPlan) -> _Watcher | None:
    """Return a watcher; None if the list of shards, which is written before the plan, is already deleted."""
    try:
        shards = msgspec.json.decode(stack.data.read(shards_key(plan.run)), type=list[Shard])
    except ObjectMissing:
        return None
    return _Watcher(stack, plan.run, {shard.number: shard.rows or 0 for shard in shards})


def _read_plan(stack: Stack, followed: FollowedRun, note: Callable[[str], None]) -> RunPlan | None:
    """Return the plan of a run, and pass its notes on; None if it is not written yet."""
    if followed.run is None:
        return None
    try:
        plan = decode_plan(stack.data.read(plan_key(followed.run)))
    except ObjectMissing:
        return None
    followed.notes = plan.notes
    for text in plan.notes:
        note(text)
    return plan


def _read_mode(stack: Stack, followed: FollowedRun) -> None:
    """Set the run's name and mode from the first output of the Plan state, once there is one."""
    if followed.run is not None:
        return
    outputs = _read_plan_outputs(stack, followed.execution)
    if not outputs:
        return
    first = outputs[0]
    result = first.get("result") or {}
    followed.run = first.get("run") or result.get("run")
    if first.get("state") == "done":
        followed.mode = "returned"
    elif first.get("state") == "wait":
        followed.mode = "joined"
    elif first.get("attempt", 1) > 1:
        followed.mode = "resumed"


def _read_plan_outputs(stack: Stack, execution: str) -> Sequence[Mapping[str, Any]]:
    """Return the output of each visit to the Plan state, from the execution's history."""
    pages = stack.step_functions.get_paginator("get_execution_history").paginate(executionArn=execution)
    exits = (event.get("stateExitedEventDetails", {}) for page in pages for event in page["events"])
    return [msgspec.json.decode(exited["output"]) for exited in exits if exited.get("name") == "Plan"]


def _find_reports(stack: Stack, plan: RunPlan, execution: str) -> str | None:
    """Return `s3://bucket/prefix/` with the summary of a failed execution; None if it wrote none.

    The prefix may have the summary of an earlier execution, which is not returned.
    """
    folder = f"{partition(f'{plan.output}-reports', plan.ensemble, plan.date, plan.run)}/"
    try:
        summary = decode_summary(stack.data.read(f"{folder}{SUMMARY}"))
    except ObjectMissing:
        return None
    return stack.data.pointer(folder).s3 if summary.execution == execution else None
