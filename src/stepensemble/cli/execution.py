"""Start an execution, wait for it, and read what it answers."""

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
"""Waits between looks at an execution; the last one repeats."""

REMEDIES = {
    "Runtime.OutOfMemory": "send fewer rows at once, or the dataset to: ensemble batch",
    "Runtime.ExitError": "its process was ended each time it was called; its log may say why",
}
"""By what Lambda calls the end of a function's process."""


@dataclass(frozen=True, slots=True)
class ExecutionEnd:
    """How an execution ended.

    Attributes:
        output: the answer, with pointers followed; of a failed execution what was recorded of it, if anything was.
        error, cause: of a failed execution, else None.
    """

    execution: str
    prediction_id: str
    output: Output | None
    error: str | None = None
    cause: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the execution's output; of a failed one, `error` and `cause` beside what was recorded."""
        document: dict[str, Any] = {} if self.output is None else msgspec.to_builtins(self.output)
        if self.error is not None:
            document = {"prediction_id": self.prediction_id, "status": "FAILED"} | document
            document |= {"error": self.error, "cause": self.cause}
        return document


def run_execution(stack: Stack, payload: object, release: str | None) -> ExecutionEnd:
    """Run one execution to its end.

    Args:
        stack: to run it on.
        payload: as it was given; rows too many for an execution's input go through the data bucket.
        release: which must answer; None for whichever is current.
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
    """Return the error of an execution that failed, and its cause: of a function that died, what Lambda says of it."""
    named = name_failure(described.get("error", described["status"]), described.get("cause", ""))
    remedy = REMEDIES.get(named.type)
    return named.type, named.message if remedy is None else f"{named.message}; {remedy}"


def name_execution() -> str:
    """Return a name that no other execution has, and that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def wait_for(stack: Stack, execution: str) -> Mapping[str, Any]:
    """Wait for an execution's end, and return its description."""
    for wait in chain(POLL_SECONDS, repeat(POLL_SECONDS[-1])):
        described = stack.step_functions.describe_execution(executionArn=execution)
        if described["status"] != "RUNNING":
            break
        time.sleep(wait)
    return described
