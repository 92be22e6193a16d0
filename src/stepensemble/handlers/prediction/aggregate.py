"""Aggregate: combine the members' results into a prediction and record it once, or request the next tier's results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from msgspec import structs

from stepensemble.core.aggregation.canonical import list_entries, read_entries
from stepensemble.core.aggregation.decision import Undecided
from stepensemble.core.aggregation.execution import ExecutionResult, FastPath, decide
from stepensemble.core.aggregation.output import MemberReport, Output
from stepensemble.core.aggregation.output_source import MemberResult
from stepensemble.core.aggregation.single_row import prepare_fast_path
from stepensemble.core.errors import EnsembleError, PredictionConflict, QuorumNotMet, StorageUnavailable
from stepensemble.core.payload import DECISIVE, WARMUP, Payload, Pointer, apply_quorum, digest_input, parse_payload
from stepensemble.core.preprocessing.columns import array_to_bytes
from stepensemble.core.record import Record
from stepensemble.core.releases.release import Release
from stepensemble.core.state_size import STATE_BYTES
from stepensemble.handlers.failures import refuse
from stepensemble.handlers.prediction.cascade import prepare_next_tier
from stepensemble.handlers.prediction.member_results import StateResults, read_results
from stepensemble.handlers.prediction.payload_objects import read_rows
from stepensemble.handlers.prediction.warmup import read_warm_up
from stepensemble.handlers.state import Cascade, Execution, Frame, TierRequest, TierResults
from stepensemble.storage.keys import execution_prefix, outputs_key, predictions_key
from stepensemble.storage.objects import Bucket
from stepensemble.storage.record_table import RecordTable
from stepensemble.storage.releases import ReleaseStore

KEPT_RELEASES = 2
"""The current one and a canary."""

AGAIN = "; this is the recorded outcome, use another prediction id to predict again"


class AggregateEvent(Frame, frozen=True, kw_only=True):
    """What the state machine sends: the results of the tier that was invoked last, and of those before it."""

    rows: int
    results: TierResults
    earlier: tuple[TierRequest, ...]
    cascade: Cascade | None
    payload: Mapping[str, Any]
    execution: Execution

    @property
    def tiers(self) -> tuple[TierRequest, ...]:
        """All tiers that were invoked, in order."""
        return (*self.earlier, TierRequest(self.rows, self.results))

    @property
    def prefix(self) -> str:
        """Prefix of the execution's objects."""
        return execution_prefix(self.execution.name, self.execution.id)


class _KnownRelease(NamedTuple):
    """A release, with its fast path for one row if it has one."""

    release: Release
    fast_path: FastPath | None


@dataclass(frozen=True, slots=True)
class Aggregator:
    """Implements Aggregate; `_known` caches the releases that were used last."""

    releases: ReleaseStore
    records: RecordTable
    data: Bucket
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _known: dict[str, _KnownRelease] = field(default_factory=dict)

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the execution's output; with a cascade perhaps the state for the next tier; or a failure as data.

        Expected failures are: no quorum, and a prediction id that another input has. For a warm-up, return each
        member's load result.

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
        (release, fast_path), payload = self._release(event.release), parse_payload(event.payload)
        policy = apply_quorum(payload, release.policy, release.members)
        results, rows = read_results(self.data, event.tiers), event.tiers[0].rows
        result = decide(release, policy, rows, results, fast_path)
        if isinstance(result, Undecided):
            return prepare_next_tier(self.data, event, event.cascade, result, prefix=event.prefix, earlier=event.tiers)
        record = self._record(event, payload, result, rows)
        if not self.records.add(record):
            record = self._read_recorded(record)
        if record.failure is not None:
            repeated = record.execution != event.execution.id
            raise QuorumNotMet(record.failure + (AGAIN if repeated else ""))
        output = record.output
        # Normalize could not foresee two things: rows that name their missing voters, and a recorded output of a larger
        # release.
        if not event.inline or len(msgspec.json.encode(output)) > STATE_BYTES:
            output = self._point(event, output, results)
        return dict(msgspec.to_builtins(output))

    def _warm(self, event: Mapping[str, Any]) -> dict[str, Any]:
        warm_up = read_warm_up(event)
        for digest in (warm_up.release, warm_up.canary):
            if digest is not None:
                self._release(digest)
        self.records.connect()
        return dict(msgspec.to_builtins(warm_up))

    def _release(self, digest: str) -> _KnownRelease:
        if digest not in self._known:
            release = self.releases.read_release(digest)
            if len(self._known) >= KEPT_RELEASES:
                del self._known[next(iter(self._known))]
            self._known[digest] = _KnownRelease(release, prepare_fast_path(release))
        return self._known[digest]

    def _record(self, event: AggregateEvent, payload: Payload, result: ExecutionResult, rows: int) -> Record:
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
            output=result.to_output(event.prediction_id, event.release),
            failure=result.cause,
        )

    def _input(self, sent: Mapping[str, Any], payload: Payload) -> dict[str, Any]:
        recorded = {key: sent[key] for key in DECISIVE if sent.get(key) is not None}
        if isinstance(payload.rows, Pointer):
            recorded["instances"] = read_rows(self.data, payload.rows)
        return recorded

    def _read_recorded(self, record: Record) -> Record:
        """Return the existing record: a retry, or the same input with the same id, gets the same output."""
        existing = self.records.read(record.prediction_id)
        if existing.input_digest != record.input_digest:
            raise PredictionConflict(
                f'the prediction id "{record.prediction_id}" is taken by another input, recorded at '
                f"{existing.recorded_at}; use a new id"
            )
        return existing

    def _point(self, event: AggregateEvent, output: Output, results: StateResults) -> Output:
        """Replace what is too large for a state by pointers."""
        predictions = self.data.write(predictions_key(event.prefix), msgspec.json.encode(output.predictions))
        members = [
            structs.replace(member, outputs=self._point_outputs(event.prefix, member, results.find(member.id)))
            for member in output.members
        ]
        return structs.replace(output, predictions=predictions, members=members)

    def _point_outputs(self, prefix: str, member: MemberReport, result: MemberResult | None) -> Pointer | None:
        if member.outputs is None or isinstance(member.outputs, Pointer):
            return member.outputs
        outputs = None if result is None or result.outputs is None else list_entries(result.outputs)
        if result is not None and result.pointer is not None and outputs == member.outputs:
            return result.pointer
        # A recorded output is another execution's: here the member may have failed, or no longer be in the release.
        return self.data.write(outputs_key(prefix, member.id), array_to_bytes(read_entries(member.outputs)))
