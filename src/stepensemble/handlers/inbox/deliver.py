"""Deliver: write what came of an object in the inbox into the outbox, once a version of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct

from stepensemble.core.aggregation.output import Output
from stepensemble.core.errors import ObjectMissing, PublishConflict
from stepensemble.core.problems import read_problems
from stepensemble.handlers.failures import Failure
from stepensemble.handlers.inbox.s3_object import InboxObject
from stepensemble.storage.keys import ANSWER, FAILURE, response_key
from stepensemble.storage.objects import Bucket
from stepensemble.storage.payload_pointers import follow_pointers

TASK_FAILED = "States.TaskFailed"
ATTEMPTS = 8
"""How often the latest answer is tried to be moved on while others do the same."""

UNEXPLAINED = "the execution says no more; look at its history"


class _Delivered(Struct, frozen=True):
    object: InboxObject


@dataclass(frozen=True, slots=True)
class Deliverer:
    """What Deliver works on."""

    data: Bucket

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Write the answer, or why there is none, and return where it is.

        Args:
            event: what Receive has answered, with `ended`, the execution's output as `output`, or `error`, as Step
                Functions catches it, if anything was started.

        Raises:
            StorageUnavailable: S3 fails; the state machine tries again.
        """
        arrival = msgspec.convert(event["object"], InboxObject)
        failure = read_failure(event)
        told = self._read_answer(event) if failure is None else msgspec.to_builtins(failure)
        ending = ANSWER if failure is None else FAILURE
        body = msgspec.json.encode({"object": msgspec.to_builtins(arrival), **told})
        key = response_key(arrival.key, arrival.version, ending)
        self.data.create(key, body)  # not over what is there: asked for twice, the first answer stands
        self._move_on(arrival, body, ending)
        return {"object": msgspec.to_builtins(arrival), "answer": msgspec.to_builtins(self.data.pointer(key))}

    def _read_answer(self, event: Mapping[str, Any]) -> dict[str, Any]:
        output = event["ended"]["output"]
        if event["kind"] == "run":
            return dict(output)
        told: dict[str, Any] = msgspec.to_builtins(follow_pointers(self.data, msgspec.convert(output, Output)))
        return told

    def _move_on(self, arrival: InboxObject, body: bytes, ending: str) -> None:
        """Have the latest answer be this one, unless a later version of the object has one already.

        Of an answer and a failure one is the latest: who finds the other to be older takes it away, after writing, so
        that of two who do so at once the older is gone in the end.
        """
        mine = response_key(arrival.key, None, ending)
        other = response_key(arrival.key, None, ANSWER if ending == FAILURE else FAILURE)
        latest = arrival
        for attempt in range(ATTEMPTS):
            found, tag = self._look(mine)
            if found is not None and not found.is_older(arrival.sequencer):
                latest = found
                break
            try:
                self.data.replace(mine, body, tag)
                break
            except PublishConflict:
                if attempt == ATTEMPTS - 1:
                    raise
        there, _ = self._look(other)
        if there is not None:
            self.data.delete([other if there.is_older(latest.sequencer) else mine])

    def _look(self, key: str) -> tuple[InboxObject | None, str | None]:
        try:
            body, tag = self.data.read_tagged(key)
        except ObjectMissing:
            return None, None
        try:
            return msgspec.json.decode(body, type=_Delivered).object, tag
        except msgspec.DecodeError:  # somebody else's file: written over
            return None, tag


def read_failure(event: Mapping[str, Any]) -> Failure | None:
    """Return why there is no answer; None where there is one.

    An execution that was started and failed comes as a description of it, in JSON, which Step Functions cuts where it
    is too long for a cause.
    """
    if "failure" in event:
        return _name(event["failure"]["error"], event["failure"]["cause"], None)
    if "error" not in event:
        return None
    error, cause = event["error"]["Error"], event["error"].get("Cause", "")
    asked = event["input"].get("prediction_id") or event["name"] if event["kind"] == "prediction" else None
    if error != TASK_FAILED:
        return _name(error, cause, None)
    try:
        described = msgspec.json.decode(cause, type=dict[str, Any])
    except msgspec.DecodeError:
        found = re.search(r'"Error":"([^"]+)"', cause)
        return _name(found[1] if found else error, cause, asked)
    return _name(described.get("Error", described.get("Status", error)), described.get("Cause", UNEXPLAINED), asked)


def _name(error: str, cause: str, prediction_id: str | None) -> Failure:
    problems = tuple(read_problems(cause)) if error in {"InvalidPayload", "PayloadTooLarge", "DatasetRefused"} else ()
    return Failure(error, cause, problems, prediction_id if error == "QuorumNotMet" else None)
