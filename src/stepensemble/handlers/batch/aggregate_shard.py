"""Aggregate shard: decide what the members' outputs amount to; then write the shard's results, or ask the next tier."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import polars as pl

from stepensemble.batch.documents import ShardFailure
from stepensemble.batch.input.labels import TRUTH, code_truth
from stepensemble.batch.output.result_files import UNANSWERED, encode_part, encode_rejected, list_failed_rows
from stepensemble.batch.output.result_table import ROW, ShardPredictions, predict_shard
from stepensemble.batch.report.sampling import compute_keys
from stepensemble.batch.report.statistics import ShardReport, ShardStatistics, add, count_predictions, count_rows_read
from stepensemble.core.aggregation.decision import Undecided
from stepensemble.core.errors import EnsembleError, QuorumNotMet, StorageUnavailable
from stepensemble.handlers.batch.run_documents import Runs, ShardEvent, ShardRead
from stepensemble.handlers.prediction.cascade import prepare_next_tier
from stepensemble.handlers.prediction.member_results import name_failure, read_results
from stepensemble.handlers.state import Cascade, Frame, TierRequest, TierResults
from stepensemble.storage.keys import accepted_key, read_key, shard_prefix, shard_report_key, staged_key

MORE_MEMORY = "take smaller shards (--shard-size), or give the functions more memory (BatchMemorySize)"

REMEDIES = {
    "Runtime.OutOfMemory": MORE_MEMORY,
    "Runtime.ExitError": f"{MORE_MEMORY}; a Parquet file may be damaged, too: write it again",
}
"""By what Lambda calls the end of a function's process."""


class AggregateShardEvent(ShardEvent, frozen=True, kw_only=True):
    """What the state machine sends: the results of the tier that has been asked, and of those before it."""

    rows: int
    results: TierResults
    earlier: tuple[TierRequest, ...]
    cascade: Cascade | None

    @property
    def tiers(self) -> tuple[TierRequest, ...]:
        """All that have been asked, in order."""
        return (*self.earlier, TierRequest(self.rows, self.results))


@dataclass(frozen=True, slots=True)
class ShardAggregator:
    """What Aggregate shard works on."""

    runs: Runs

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Answer how many rows were written; or what the next tier is to be asked; or a failure, written down.

        Args:
            event: `run` and `shard`, and what the state machine knows of the tiers; or an `error` that it caught.

        Raises:
            StorageUnavailable: S3 fails; the state machine tries again.
        """
        asked = msgspec.convert(event, ShardEvent)
        if "error" in event:
            return self._note(asked, event["error"])
        try:
            answer = self._aggregate(msgspec.convert(event, AggregateShardEvent))
        except StorageUnavailable:
            raise
        except EnsembleError as error:
            return self.runs.refuse(asked, error)
        return answer | {"run": event["run"], "shard": event["shard"]}

    def _note(self, event: ShardEvent, error: Mapping[str, Any]) -> dict[str, Any]:
        named = name_failure(str(error["Error"]), error.get("Cause", ""))
        cause = f"{named.message}; {REMEDIES[named.type]}" if named.type in REMEDIES else named.message
        return self.runs.note_failure(event, ShardFailure(named.type, cause))

    def _aggregate(self, event: AggregateShardEvent) -> dict[str, Any]:
        started = time.perf_counter()
        data, prefix = self.runs.data, shard_prefix(event.run, event.shard.number)
        plan, release = self.runs.read(event.run)
        read = msgspec.json.decode(data.read(read_key(prefix)), type=ShardRead)
        rows = pl.read_ipc(io.BytesIO(data.read(accepted_key(prefix))))
        answered = predict_shard(release, release.policy, rows, read_results(data, event.tiers))
        if isinstance(answered, Undecided):
            frame = Frame(event.run, plan.release, inline=False)
            return prepare_next_tier(data, frame, event.cascade, answered, prefix=prefix, earlier=event.tiers)
        if answered.cause is not None:
            # No report: a run that is resumed asks again.
            raise QuorumNotMet(_explain(answered))
        part = encode_part(answered.answers, plan.options.format, spreadsheet=plan.options.spreadsheet)
        data.upload(staged_key(event.run, "part", event.shard.number, plan.options.format), part)
        counted = [read.tally]
        if answered.decision is not None:
            truth = code_truth(release.task, rows[TRUTH]) if TRUTH in rows.columns else None
            keys = compute_keys(plan.files[event.shard.file].name, rows[ROW].to_numpy())
            counted.append(count_predictions(release, answered.decision, plan.edges, truth, keys))
        if answered.unanswered:
            counted.append(self._reject(event, read, list_failed_rows(rows, answered.unanswered)))
        took = ShardStatistics(seconds={"aggregate_shard": time.perf_counter() - started}, bytes={"part": len(part)})
        report = _report(event, read, answered, add([*counted, took]))
        data.write(shard_report_key(event.run, event.shard.number), msgspec.json.encode(report))
        return {"rows": answered.answers.height}

    def _reject(self, event: AggregateShardEvent, read: ShardRead, unanswered: pl.DataFrame) -> ShardStatistics:
        """Put the rows without an answer beside those that Normalize shard has rejected, and count them."""
        key, before = staged_key(event.run, "rejected", event.shard.number, "parquet"), []
        if read.rows_rejected:
            # Done again, it finds what it added the first time.
            before.append(pl.read_parquet(io.BytesIO(self.runs.data.read(key))).filter(pl.col("kind") != UNANSWERED))
        self.runs.data.write(key, encode_rejected(pl.concat([*before, unanswered]).sort("row", maintain_order=True)))
        places = unanswered.select("file", "row").iter_rows()
        return count_rows_read({}, {}, (("", UNANSWERED, place) for place in places))


def _explain(answered: ShardPredictions) -> str:
    """Say why there is no quorum, and how the members failed: nobody keeps an execution's record of a shard."""
    results = {} if answered.decision is None else answered.decision.results
    failures = {id_: one.failure for id_, one in results.items() if one.failure is not None}
    return "; ".join([str(answered.cause), *(f"{id_}: {one.type}: {one.message}" for id_, one in failures.items())])


def _report(event: ShardEvent, read: ShardRead, answered: ShardPredictions, tally: ShardStatistics) -> ShardReport:
    return ShardReport(
        number=event.shard.number,
        rows_in=read.rows_in,
        rows_out=answered.answers.height,
        rows_rejected=read.rows_rejected + len(answered.unanswered),
        status=answered.status,
        cause=None,
        tally=tally,
    )
