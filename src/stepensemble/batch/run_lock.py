"""Decides which execution works on a run, by conditional writes to one small object, the claim.

At most one execution at a time plans a run, predicts its shards and publishes it: the first one to write the claim. An
execution that finds the claim of another one waits for it while it runs. If it does not run any more, the run is taken
over by compare-and-set on the claim's ETag, so that exactly one of several executions succeeds. A complete run is not
claimed: its result is stored.

After an execution was stopped, one of its functions may still work for a minute. It writes the same bytes as its
successor, since shards are deterministic; before it publishes a run, it checks that the claim is still its own
(`holds_claim`).
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
from stepensemble.storage.keys import claim_key, parse_shard_report_key, reports_folder, result_key, success_key
from stepensemble.storage.objects import Bucket


class Claim(Struct, frozen=True):
    """The object in S3: the ARN of the execution that works on the run, and how many have, including this one."""

    execution: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ClaimHeld:
    """The calling execution holds the claim; `attempt` counts from 1 and stays the same when it claims again."""

    attempt: int


@dataclass(frozen=True, slots=True)
class ClaimedElsewhere:
    """Another execution, which is running, holds the claim."""

    execution: str


@dataclass(frozen=True, slots=True)
class RunComplete:
    """The run is complete."""

    result: Result


ClaimOutcome: TypeAlias = ClaimHeld | ClaimedElsewhere | RunComplete


def claim(bucket: Bucket, run: str, execution: str, is_running: Callable[[str], bool]) -> ClaimOutcome:
    """Claim a run for an execution.

    Args:
        bucket: with the data.
        run: the run's name.
        execution: ARN of the calling execution.
        is_running: whether the execution with an ARN still runs.
    """
    while True:
        held, etag = _read_claim(bucket, run)
        if held is not None and held.execution != execution and is_running(held.execution):
            return ClaimedElsewhere(held.execution)
        result = read_result(bucket, run)  # read after the other execution ended: it may have succeeded
        if result is not None:
            return RunComplete(result)
        if held is not None and held.execution == execution:
            return ClaimHeld(held.attempt)
        attempt = 1 if held is None else held.attempt + 1
        try:
            bucket.replace(claim_key(run), msgspec.json.encode(Claim(execution, attempt)), etag)
        except PublishConflict:
            continue  # another execution was faster, or our write was retried after its response was lost
        return ClaimHeld(attempt)


def holds_claim(bucket: Bucket, run: str, execution: str) -> bool:
    """Return whether this execution holds the claim on a run."""
    held, _ = _read_claim(bucket, run)
    return held is not None and held.execution == execution


def read_result(bucket: Bucket, run: str) -> Result | None:
    """Return the result of a run; None if it is not complete, or its results were deleted since."""
    try:
        result = msgspec.json.decode(bucket.read(result_key(run)), type=Result)
    except ObjectMissing:
        return None
    _, prefix = Pointer(result.results).split()
    return result if bucket.exists(success_key(prefix.rstrip("/")), 0) else None


def list_finished(bucket: Bucket, run: str) -> frozenset[int]:
    """Return the numbers of the shards with a report, which the next attempt leaves out."""
    return frozenset(parse_shard_report_key(listed.key) for listed in bucket.list(reports_folder(run)))


def _read_claim(bucket: Bucket, run: str) -> tuple[Claim, str] | tuple[None, None]:
    try:
        body, etag = bucket.read_tagged(claim_key(run))
    except ObjectMissing:
        return None, None
    return msgspec.json.decode(body, type=Claim), etag
