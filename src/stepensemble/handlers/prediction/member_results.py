"""Reads the results of a tier's members from the state, and supplies them to the aggregation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from stepensemble.core.aggregation.canonical import read_entries
from stepensemble.core.aggregation.output import MemberFailure
from stepensemble.core.aggregation.output_source import MemberResult, Results
from stepensemble.core.arrays import Integers
from stepensemble.core.errors import TierMismatch
from stepensemble.core.payload import Pointer
from stepensemble.core.preprocessing.columns import array_from_bytes
from stepensemble.handlers.state import TierRequest, TierResults
from stepensemble.storage.objects import Bucket

MEANWHILE = "the stack was changed meanwhile, send the request again"


@dataclass(frozen=True, slots=True)
class StateResults:
    """The results that the state machine has collected: an `OutputSource`.

    Attributes:
        tiers: the tiers whose members were invoked, in order.
        results: their results, in the same order.
    """

    tiers: Sequence[TierRequest]
    results: Sequence[Results]

    def get_results(self, tier: int, rows: Integers) -> Results | None:
        """Return a tier's results; None where its members have not been invoked.

        Raises:
            TierMismatch: its members were invoked for other rows than those that are undecided.
        """
        if tier > len(self.tiers):
            return None
        sent, undecided = self.tiers[tier - 1].rows, len(rows)
        if sent != undecided:
            raise TierMismatch(f"tier {tier} predicted {sent} rows, and {undecided} are undecided; {MEANWHILE}")
        return self.results[tier - 1]

    def find(self, member: str) -> MemberResult | None:
        """Return one member's result; None where it was not invoked."""
        return next((results[member] for results in self.results if member in results), None)


def read_results(data: Bucket, tiers: Sequence[TierRequest]) -> StateResults:
    """Read the members' results of every tier; outputs that are pointers are read from the bucket."""
    return StateResults(tiers, [_read_tier(data, tier.results) for tier in tiers])


def _read_tier(data: Bucket, results: TierResults) -> dict[str, MemberResult]:
    return {one["id"]: _read_result(data, one) for one in results.all}


def _read_result(data: Bucket, result: Mapping[str, Any]) -> MemberResult:
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
    """Read an error that a state machine caught: `Error`, and a `Cause` that is Lambda's JSON, or plain text."""
    message = str(cause)
    try:
        details = msgspec.json.decode(message)
    except msgspec.DecodeError:
        details = None
    if isinstance(details, dict) and "errorMessage" in details:
        message = str(details["errorMessage"])
    return MemberFailure(error, message or "no cause was given")
