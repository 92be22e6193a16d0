"""Start an execution, wait for its end, and read its output."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, repeat
from typing import Any

import msgspec

from stepensemble.cli.stacks import Stack
from stepensemble.core.aggregation.output import Output
from stepensemble.core.errors import RecordNotFound
from stepensemble.handlers.prediction.member_results import name_failure
from stepensemble.storage.payload_pointers import follow_pointers, store_rows

POLL_SECONDS = (0.02, 0.02, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)
"""Pauses between the requests for an execution's status; the last one repeats."""

REMEDIES = {
    "Runtime.OutOfMemory": "send fewer rows at once, or the dataset to: ensemble batch",
    "Runtime.ExitError": "the function's process ended each time it was invoked; see its log",
}
"""By Lambda's name for how a function's process ended."""


@dataclass(frozen=True, slots=True)
class ExecutionEnd:
    """How an execution ended.

    Attributes:
        output: the output, with its pointers followed; for a failed execution the recorded output, if there is one.
        error, cause: why the execution failed; None if it did not.
    """

    execution: str
    prediction_id: str
    output: Output | None
    error: str | None = None
    cause: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the execution's output; for a failed execution, with `error` and `cause` added."""
        document: dict[str, Any] = {} if self.output is None else msgspec.to_builtins(self.output)
        if self.error is not None:
            document = {"prediction_id": self.prediction_id, "status": "FAILED"} | document
            document |= {"error": self.error, "cause": self.cause}
        return document


def run_execution(stack: Stack, payload: object, release: str | None) -> ExecutionEnd:
    """Run one execution to its end.

    Args:
        stack: the stack that runs it.
        payload: the caller's payload; rows that are too large for an execution's input go through the data bucket.
        release: the digest of the release that must predict; None for the current one or the canary.
    """
    sent = payload
    if isinstance(payload, Mapping):
        sent = store_rows(stack.data, payload)
        if release is not None and "release" not in sent:
            sent = {**sent, "release": release}
    name = name_execution()
    started = stack.step_functions.start_execution(
        stateMachineArn=stack.state_machine, name=name, input=msgspec.json.encode(sent).decode()
    )
    described = wait_for(stack, started["executionArn"])
    prediction_id = payload.get("prediction_id") if isinstance(payload, Mapping) else None
    prediction_id = prediction_id if isinstance(prediction_id, str) else name
    if described["status"] == "SUCCEEDED":
        output = msgspec.json.decode(described["output"], type=Output)
        return ExecutionEnd(name, prediction_id, follow_pointers(stack.data, output))
    error, cause = explain_end(described)
    recorded = None
    if error == "QuorumNotMet":
        try:
            recorded = stack.records.read(prediction_id).output
        except RecordNotFound:
            recorded = None
    return ExecutionEnd(name, prediction_id, recorded, error, cause)


def explain_end(described: Mapping[str, Any]) -> tuple[str, str]:
    """Return the error and the cause of a failed execution; if a function's process ended, with a remedy."""
    named = name_failure(described.get("error", described["status"]), described.get("cause", ""))
    remedy = REMEDIES.get(named.type)
    return named.type, named.message if remedy is None else f"{named.message}; {remedy}"


def name_execution() -> str:
    """Return a unique name for an execution; names sort by time."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def wait_for(stack: Stack, execution: str) -> Mapping[str, Any]:
    """Wait for an execution's end, and return its description."""
    for wait in chain(POLL_SECONDS, repeat(POLL_SECONDS[-1])):
        described = stack.step_functions.describe_execution(executionArn=execution)
        if described["status"] != "RUNNING":
            break
        time.sleep(wait)
    return described
