"""Aggregate: decide what the members' outputs amount to, record it once, answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct, structs

from stepensemble.core.answer import Answer, MemberReport, MemberResult, Output, decide, name_failure
from stepensemble.core.columns import array_from_bytes, array_to_bytes
from stepensemble.core.errors import EnsembleError, PredictionConflict, QuorumNotMet, StorageUnavailable
from stepensemble.core.payload import Payload, Pointer, digest_input, parse_payload
from stepensemble.core.records import Record
from stepensemble.core.release import Release
from stepensemble.handlers.refusal import refuse
from stepensemble.handlers.rows import read_rows
from stepensemble.storage.keys import execution_prefix, outputs_key, predictions_key
from stepensemble.storage.objects import Bucket
from stepensemble.storage.records import RecordTable
from stepensemble.storage.releases import ReleaseStore

AGAIN = "; this is the recorded outcome, use another prediction id to ask again"


class Execution(Struct, frozen=True):
    """The execution, as the state machine's context names it."""

    id: str
    name: str
    started_at: str


class AggregateEvent(Struct, frozen=True):
    """What the state machine sends: a result a member, and the execution's input to record."""

    prediction_id: str
    release: str
    rows: int
    inline: bool
    results: tuple[Mapping[str, Any], ...]
    payload: Mapping[str, Any]
    execution: Execution


@dataclass(frozen=True, slots=True)
class Aggregator:
    """What Aggregate works on; `_known` caches the release asked for last."""

    releases: ReleaseStore
    records: RecordTable
    data: Bucket
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _known: dict[str, Release] = field(default_factory=dict)

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Answer the execution's output, or a refusal (no quorum; a prediction id that is taken).

        Raises:
            StorageUnavailable: S3 or DynamoDB fails; the state machine tries again.
        """
        try:
            return self._aggregate(msgspec.convert(event, AggregateEvent))
        except StorageUnavailable:
            raise
        except EnsembleError as error:
            return refuse(error)

    def _aggregate(self, event: AggregateEvent) -> dict[str, Any]:
        results = {result["id"]: self._result(result) for result in event.results}
        answer = decide(self._release(event.release), event.rows, results)
        record = self._record(event, answer)
        if not self.records.add(record):
            record = self._recorded(record)
        if record.failure is not None:
            repeated = record.execution != event.execution.id
            raise QuorumNotMet(record.failure + (AGAIN if repeated else ""))
        output = record.output if event.inline else self._point(event, record.output, results)
        return dict(msgspec.to_builtins(output))

    def _release(self, digest: str) -> Release:
        if digest not in self._known:
            release = self.releases.read_release(digest)
            self._known.clear()
            self._known[digest] = release
        return self._known[digest]

    def _result(self, result: Mapping[str, Any]) -> MemberResult:
        if "error" in result:
            error = result["error"]
            return MemberResult(result["id"], failure=name_failure(str(error["Error"]), error.get("Cause", "")))
        outputs, pointer = result["outputs"], None
        if isinstance(outputs, Mapping):
            pointer = msgspec.convert(outputs, Pointer)
            outputs = array_from_bytes(self.data.read(pointer.split()[1]))
        return MemberResult(result["id"], np.asarray(outputs), result["duration_ms"], result["cold"], pointer=pointer)

    def _record(self, event: AggregateEvent, answer: Answer) -> Record:
        payload = parse_payload(event.payload)
        return Record(
            prediction_id=event.prediction_id,
            release=event.release,
            execution=event.execution.id,
            started_at=event.execution.started_at,
            recorded_at=self.now().isoformat(timespec="milliseconds"),
            rows=event.rows,
            input_digest=digest_input(event.payload),
            input=self._input(event.payload, payload),
            metadata=payload.metadata,
            output=Output(
                prediction_id=event.prediction_id,
                release=event.release,
                status=answer.status,
                predictions=answer.predictions,
                members=answer.members,
            ),
            failure=answer.cause,
        )

    def _input(self, sent: Mapping[str, Any], payload: Payload) -> dict[str, Any]:
        if isinstance(payload.rows, Pointer):
            return {"instances": read_rows(self.data, payload.rows)}
        return {key: sent[key] for key in ("features", "instances") if key in sent}

    def _recorded(self, record: Record) -> Record:
        """Return what is recorded already: a retry, or the same input under the same id, gets the same answer."""
        kept = self.records.read(record.prediction_id)
        if kept.input_digest != record.input_digest:
            raise PredictionConflict(
                f'the prediction id "{record.prediction_id}" is taken by another input, recorded at '
                f"{kept.recorded_at}; use a new id"
            )
        return kept

    def _point(self, event: AggregateEvent, output: Output, results: Mapping[str, MemberResult]) -> Output:
        """Put pointers in the place of what is too large for a state."""
        prefix = execution_prefix(event.execution.name, event.execution.id)
        predictions = self.data.write(predictions_key(prefix), msgspec.json.encode(output.predictions))
        members = [
            structs.replace(member, outputs=self._point_outputs(prefix, member, results.get(member.id)))
            for member in output.members
        ]
        return structs.replace(output, predictions=predictions, members=members)

    def _point_outputs(self, prefix: str, member: MemberReport, result: MemberResult | None) -> Pointer | None:
        if member.outputs is None:
            return None
        outputs = np.asarray(member.outputs)
        if result is not None and result.outputs is not None and np.array_equal(outputs, result.outputs):
            return result.pointer
        # A recorded answer is another execution's: a member may have failed here, or be gone since.
        return self.data.write(outputs_key(prefix, member.id), array_to_bytes(outputs))
