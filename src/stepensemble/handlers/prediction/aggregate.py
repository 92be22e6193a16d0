"""Aggregate: decide what the members' outputs amount to; then record it once and answer, or ask the next tier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import structs

from stepensemble.core.aggregation.canonical import list_entries, read_entries
from stepensemble.core.aggregation.decision import Undecided
from stepensemble.core.aggregation.prediction import (
    ExecutionResult,
    MemberReport,
    MemberResult,
    Output,
    Results,
    decide,
)
from stepensemble.core.aggregation.single_row import PredictRow, prepare_prediction
from stepensemble.core.errors import EnsembleError, PredictionConflict, QuorumNotMet, StorageUnavailable
from stepensemble.core.payload import DECISIVE, WARMUP, Payload, Pointer, apply_quorum, digest_input, parse_payload
from stepensemble.core.preprocessing.columns import array_to_bytes
from stepensemble.core.record import Record
from stepensemble.core.releases.release import Release
from stepensemble.core.schema.policy import Policy
from stepensemble.core.state_size import STATE_BYTES
from stepensemble.handlers.failures import refuse
from stepensemble.handlers.prediction.cascade import prepare_next_tier
from stepensemble.handlers.prediction.member_results import read_results, recall
from stepensemble.handlers.prediction.payload_objects import read_rows
from stepensemble.handlers.prediction.warmup import read_warm_up
from stepensemble.handlers.state import Cascade, Execution, Frame, TierRequest, TierResults
from stepensemble.storage.keys import execution_prefix, outputs_key, predictions_key
from stepensemble.storage.objects import Bucket
from stepensemble.storage.record_table import RecordTable
from stepensemble.storage.releases import ReleaseStore

KEPT_RELEASES = 2
"""The current one and a canary."""

AGAIN = "; this is the recorded outcome, use another prediction id to ask again"


class AggregateEvent(Frame, frozen=True, kw_only=True):
    """What the state machine sends: the results of the tier that has been asked, and of those before it."""

    rows: int
    results: TierResults
    earlier: tuple[TierRequest, ...]
    cascade: Cascade | None
    payload: Mapping[str, Any]
    execution: Execution

    @property
    def tiers(self) -> tuple[TierRequest, ...]:
        """All that have been asked, in order."""
        return (*self.earlier, TierRequest(self.rows, self.results))

    @property
    def prefix(self) -> str:
        """Of the execution's objects."""
        return execution_prefix(self.execution.name, self.execution.id)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A release, and what answers one row of it by itself; see `core.aggregation.single_row`."""

    release: Release
    answer_row: PredictRow | None


@dataclass(frozen=True, slots=True)
class Aggregator:
    """What Aggregate works on; `_known` caches the releases asked for last."""

    releases: ReleaseStore
    records: RecordTable
    data: Bucket
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _known: dict[str, _Asked] = field(default_factory=dict)

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Answer the execution's output; or, with a cascade, what the next tier is to be asked; or a refusal.

        A refusal is: no quorum, or a prediction id that is taken. Of a warm-up, answer what it came to.

        Raises:
            StorageUnavailable: S3 or DynamoDB fails; the state machine tries again.
        """
        if WARMUP in event:
            return self._warm(event)
        try:
            return self._aggregate(msgspec.convert(event, AggregateEvent))
        except StorageUnavailable:
            raise
        except EnsembleError as error:
            return refuse(error)

    def _aggregate(self, event: AggregateEvent) -> dict[str, Any]:
        asked, payload = self._release(event.release), parse_payload(event.payload)
        policy = apply_quorum(payload, asked.release.policy, asked.release.members)
        results = [read_results(self.data, tier.results) for tier in event.tiers]
        rows = event.tiers[0].rows
        answer = _answer(asked, policy, event.tiers, results)
        if isinstance(answer, Undecided):
            return prepare_next_tier(self.data, event, event.cascade, answer, prefix=event.prefix, earlier=event.tiers)
        record = self._record(event, payload, answer, rows)
        if not self.records.add(record):
            record = self._recorded(record)
        if record.failure is not None:
            repeated = record.execution != event.execution.id
            raise QuorumNotMet(record.failure + (AGAIN if repeated else ""))
        output = record.output
        # Rows in which voters are missing name them, and a recorded answer may be a larger release's: Normalize has
        # counted on neither.
        if not event.inline or len(msgspec.json.encode(output)) > STATE_BYTES:
            output = self._point(event, output, {id_: one for tier in results for id_, one in tier.items()})
        return dict(msgspec.to_builtins(output))

    def _warm(self, event: Mapping[str, Any]) -> dict[str, Any]:
        warm_up = read_warm_up(event)
        for digest in (warm_up.release, warm_up.canary):
            if digest is not None:
                self._release(digest)
        self.records.connect()
        return dict(msgspec.to_builtins(warm_up))

    def _release(self, digest: str) -> _Asked:
        if digest not in self._known:
            release = self.releases.read_release(digest)
            if len(self._known) >= KEPT_RELEASES:
                del self._known[next(iter(self._known))]
            self._known[digest] = _Asked(release, prepare_prediction(release))
        return self._known[digest]

    def _record(self, event: AggregateEvent, payload: Payload, answer: ExecutionResult, rows: int) -> Record:
        return Record(
            prediction_id=event.prediction_id,
            release=event.release,
            execution=event.execution.id,
            started_at=event.execution.started_at,
            recorded_at=self.now().isoformat(timespec="milliseconds"),
            rows=rows,
            input_digest=digest_input(event.payload),
            input=self._input(event.payload, payload),
            metadata=payload.metadata,
            output=answer.to_output(event.prediction_id, event.release),
            failure=answer.cause,
        )

    def _input(self, sent: Mapping[str, Any], payload: Payload) -> dict[str, Any]:
        kept = {key: sent[key] for key in DECISIVE if sent.get(key) is not None}
        if isinstance(payload.rows, Pointer):
            kept["instances"] = read_rows(self.data, payload.rows)
        return kept

    def _recorded(self, record: Record) -> Record:
        """Return what is recorded already: a retry, or the same input under the same id, gets the same answer."""
        kept = self.records.read(record.prediction_id)
        if kept.input_digest != record.input_digest:
            raise PredictionConflict(
                f'the prediction id "{record.prediction_id}" is taken by another input, recorded at '
                f"{kept.recorded_at}; use a new id"
            )
        return kept

    def _point(self, event: AggregateEvent, output: Output, results: Results) -> Output:
        """Put pointers in the place of what is too large for a state."""
        predictions = self.data.write(predictions_key(event.prefix), msgspec.json.encode(output.predictions))
        members = [
            structs.replace(member, outputs=self._point_outputs(event.prefix, member, results.get(member.id)))
            for member in output.members
        ]
        return structs.replace(output, predictions=predictions, members=members)

    def _point_outputs(self, prefix: str, member: MemberReport, result: MemberResult | None) -> Pointer | None:
        if member.outputs is None or isinstance(member.outputs, Pointer):
            return member.outputs
        said = None if result is None or result.outputs is None else list_entries(result.outputs)
        if result is not None and result.pointer is not None and said == member.outputs:
            return result.pointer
        # A recorded answer is another execution's: a member may have failed here, or be gone since.
        return self.data.write(outputs_key(prefix, member.id), array_to_bytes(read_entries(member.outputs)))


def _answer(
    asked: _Asked, policy: Policy, tiers: Sequence[TierRequest], results: Sequence[Results]
) -> ExecutionResult | Undecided:
    answer, rows = None, tiers[0].rows
    if rows == 1 and asked.answer_row is not None and policy is asked.release.policy:
        answer = asked.answer_row(results[0])
    return answer or decide(asked.release, policy, rows, recall(tiers, results))
