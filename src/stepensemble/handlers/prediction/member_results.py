"""What came back from the members of a tier, read; and given to what decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from stepensemble.core.aggregation.canonical import read_entries
from stepensemble.core.aggregation.prediction import AskMembers, MemberFailure, MemberResult, Results
from stepensemble.core.arrays import Integers
from stepensemble.core.errors import TierMismatch
from stepensemble.core.payload import Pointer
from stepensemble.core.preprocessing.columns import array_from_bytes
from stepensemble.handlers.state import TierRequest, TierResults
from stepensemble.storage.objects import Bucket

MEANWHILE = "the stack was changed meanwhile, ask again"


def read_results(data: Bucket, results: TierResults) -> dict[str, MemberResult]:
    """Return each member's result by its id; outputs that are pointers are read."""
    return {one["id"]: _read(data, one) for one in results.all}


def recall(tiers: Sequence[TierRequest], results: Sequence[Results]) -> AskMembers:
    """Return a function that answers for the tiers that were asked, and for no other.

    It raises TierMismatch where a tier answered about other rows than those that are undecided.
    """

    def ask(tier: int, numbers: Integers) -> Results | None:
        if tier > len(tiers):
            return None
        asked, undecided = tiers[tier - 1].rows, len(numbers)
        if asked != undecided:
            raise TierMismatch(f"tier {tier} answered about {asked} rows, and {undecided} are undecided; {MEANWHILE}")
        return results[tier - 1]

    return ask


def _read(data: Bucket, result: Mapping[str, Any]) -> MemberResult:
    if "error" in result:
        error = result["error"]
        return MemberResult(result["id"], failure=name_failure(str(error["Error"]), error.get("Cause", "")))
    outputs, pointer = result["outputs"], None
    if isinstance(outputs, Mapping):
        pointer = msgspec.convert(outputs, Pointer)
        raw = array_from_bytes(data.read(pointer.split()[1]))
    else:
        raw = read_entries(outputs)
    return MemberResult(result["id"], raw, result["duration_ms"], result["cold"], pointer=pointer)


def name_failure(error: str, cause: Any) -> MemberFailure:
    """Read what a state machine caught: `Error`, and a `Cause` that is Lambda's JSON, or plain text."""
    message = str(cause)
    try:
        details = msgspec.json.decode(message)
    except msgspec.DecodeError:
        details = None
    if isinstance(details, dict) and "errorMessage" in details:
        message = str(details["errorMessage"])
    return MemberFailure(error, message or "no cause was given")
