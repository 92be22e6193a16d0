"""Which execution works on a run, decided by conditional writes to one small object.

A run has at most one execution at a time that cuts it, answers its shards and puts it together. The first to write the
claim has it. Whoever finds another's claim joins that execution where it runs; where it does not, the run is taken over
by compare-and-set on the claim's ETag, so that of several who try exactly one succeeds. A run that is whole is claimed
by nobody: its result is there.

An execution that was stopped may have a function that still works for a minute. It writes what its successor writes,
since shards are deterministic; before it puts a run together it looks whether the claim is still its own (`holds`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
from msgspec import Struct

from stepensemble.batch.documents import Result
from stepensemble.core.errors import ObjectMissing, PublishConflict
from stepensemble.core.payload import Pointer
from stepensemble.storage.keys import claim_key, reported_under, reports_folder, result_key, success_key
from stepensemble.storage.objects import Bucket


class Claim(Struct, frozen=True):
    """The object in S3: the ARN of the execution that has the run, and how many have had it, itself included."""

    execution: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ClaimHeld:
    """The run is the asking execution's; `attempt` counts from 1 and stays the same when it asks again."""

    attempt: int


@dataclass(frozen=True, slots=True)
class ClaimedElsewhere:
    """Another execution, which runs, has it."""

    execution: str


@dataclass(frozen=True, slots=True)
class RunComplete:
    """There is nothing left to do."""

    result: Result


Claimed: TypeAlias = ClaimHeld | ClaimedElsewhere | RunComplete


def claim(bucket: Bucket, run: str, execution: str, is_running: Callable[[str], bool]) -> Claimed:
    """Claim a run for an execution.

    Args:
        bucket: with the data.
        run: its name.
        execution: ARN of the one that asks.
        is_running: says of another's ARN whether that execution still runs.
    """
    while True:
        held, tag = _read_claim(bucket, run)
        if held is not None and held.execution != execution and is_running(held.execution):
            return ClaimedElsewhere(held.execution)
        result = read_result(bucket, run)  # looked for after the other one's end: it may have ended well just now
        if result is not None:
            return RunComplete(result)
        if held is not None and held.execution == execution:
            return ClaimHeld(held.attempt)
        attempt = 1 if held is None else held.attempt + 1
        try:
            bucket.replace(claim_key(run), msgspec.json.encode(Claim(execution, attempt)), tag)
        except PublishConflict:
            continue  # somebody else took it, or a write of ours whose answer was lost and that was tried again
        return ClaimHeld(attempt)


def holds(bucket: Bucket, run: str, execution: str) -> bool:
    """Say whether the claim on a run is this execution's."""
    held, _ = _read_claim(bucket, run)
    return held is not None and held.execution == execution


def read_result(bucket: Bucket, run: str) -> Result | None:
    """Return what a run came to; None where it is not whole, or its results were deleted since."""
    try:
        result = msgspec.json.decode(bucket.read(result_key(run)), type=Result)
    except ObjectMissing:
        return None
    _, prefix = Pointer(result.results).split()
    return result if bucket.exists(success_key(prefix.rstrip("/")), 0) else None


def list_finished(bucket: Bucket, run: str) -> frozenset[int]:
    """Return the numbers of the shards that have a report: the next attempt leaves them out."""
    return frozenset(reported_under(listed.key) for listed in bucket.list(reports_folder(run)))


def _read_claim(bucket: Bucket, run: str) -> tuple[Claim, str] | tuple[None, None]:
    try:
        body, tag = bucket.read_tagged(claim_key(run))
    except ObjectMissing:
        return None, None
    return msgspec.json.decode(body, type=Claim), tag
