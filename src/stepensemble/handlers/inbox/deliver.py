"""Deliver: writes the response to an object in the inbox to the outbox, once for each version of the object."""

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
from stepensemble.storage.keys import FAILURE, RESPONSE, response_key
from stepensemble.storage.objects import Bucket
from stepensemble.storage.payload_pointers import follow_pointers

TASK_FAILED = "States.TaskFailed"
ATTEMPTS = 8
"""Attempts to update the latest response while others do the same."""

UNEXPLAINED = "the execution reports no more; see its history"


class _Delivered(Struct, frozen=True):
    object: InboxObject


@dataclass(frozen=True, slots=True)
class Deliverer:
    """Writes responses to the outbox."""

    data: Bucket

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Write the response, or the failure, and return its location.

        Args:
            event: the output of Receive; if an execution was started, with `ended`, its output as `output`, or with
                `error`, as Step Functions catches it.

        Raises:
            StorageUnavailable: S3 failed; the state machine retries.
        """
        object_ = msgspec.convert(event["object"], InboxObject)
        failure = read_failure(event)
        content = self._read_response(event) if failure is None else msgspec.to_builtins(failure)
        ending = RESPONSE if failure is None else FAILURE
        body = msgspec.json.encode({"object": msgspec.to_builtins(object_), **content})
        key = response_key(object_.key, object_.version, ending)
        self.data.create(key, body)  # never overwritten: after a retry the first response stays
        self._update_latest(object_, body, ending)
        return {"object": msgspec.to_builtins(object_), "response": msgspec.to_builtins(self.data.pointer(key))}

    def _read_response(self, event: Mapping[str, Any]) -> dict[str, Any]:
        output = event["ended"]["output"]
        if event["kind"] == "run":
            return dict(output)
        content: dict[str, Any] = msgspec.to_builtins(follow_pointers(self.data, msgspec.convert(output, Output)))
        return content

    def _update_latest(self, object_: InboxObject, body: bytes, ending: str) -> None:
        """Make this response the latest one, unless a later version of the object has one already.

        Either a response or a failure is the latest. After writing one, an older one of the other kind is deleted; of
        two concurrent writers, the older loses.
        """
        own = response_key(object_.key, None, ending)
        other = response_key(object_.key, None, RESPONSE if ending == FAILURE else FAILURE)
        latest = object_
        for attempt in range(ATTEMPTS):
            found, tag = self._read_latest(own)
            if found is not None and not found.is_older(object_.sequencer):
                latest = found
                break
            try:
                self.data.replace(own, body, tag)
                break
            except PublishConflict:
                if attempt == ATTEMPTS - 1:
                    raise
        there, _ = self._read_latest(other)
        if there is not None:
            self.data.delete([other if there.is_older(latest.sequencer) else own])

    def _read_latest(self, key: str) -> tuple[InboxObject | None, str | None]:
        try:
            body, tag = self.data.read_tagged(key)
        except ObjectMissing:
            return None, None
        try:
            return msgspec.json.decode(body, type=_Delivered).object, tag
        except msgspec.DecodeError:  # not a response: it is overwritten
            return None, tag


def read_failure(event: Mapping[str, Any]) -> Failure | None:
    """Return the failure; None if there is a response.

    A failed execution comes as its description in JSON, which Step Functions cuts where it is too long for a cause.
    """
    if "failure" in event:
        return _name(event["failure"]["error"], event["failure"]["cause"], None)
    if "error" not in event:
        return None
    error, cause = event["error"]["Error"], event["error"].get("Cause", "")
    prediction_id = event["input"].get("prediction_id") or event["name"] if event["kind"] == "prediction" else None
    if error != TASK_FAILED:
        return _name(error, cause, None)
    try:
        described = msgspec.json.decode(cause, type=dict[str, Any])
    except msgspec.DecodeError:
        found = re.search(r'"Error":"([^"]+)"', cause)
        return _name(found[1] if found else error, cause, prediction_id)
    return _name(
        described.get("Error", described.get("Status", error)), described.get("Cause", UNEXPLAINED), prediction_id
    )


def _name(error: str, cause: str, prediction_id: str | None) -> Failure:
    problems = tuple(read_problems(cause)) if error in {"InvalidPayload", "PayloadTooLarge", "DatasetRefused"} else ()
    return Failure(error, cause, problems, prediction_id if error == "QuorumNotMet" else None)
