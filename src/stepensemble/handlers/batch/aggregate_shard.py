"""Aggregate shard: combines the members' outputs; then stores the shard's results, or names the next tier's rows."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import polars as pl

from stepensemble.batch.documents import ShardFailure
from stepensemble.batch.input.labels import TRUTH, encode_ground_truth
from stepensemble.batch.output.result_files import NO_PREDICTION, encode_part, encode_rejected, list_failed_rows
from stepensemble.batch.output.result_table import ROW, ShardPredictions, predict_shard
from stepensemble.batch.report.sampling import compute_keys
from stepensemble.batch.report.statistics import (
    RowLocation,
    ShardRead,
    ShardReport,
    ShardStatistics,
    count_predictions,
    count_rows_read,
    merge_statistics,
)
from stepensemble.batch.stored_documents import decode_shard_read
from stepensemble.core.aggregation.decision import Undecided
from stepensemble.core.errors import EnsembleError, QuorumNotMet, StorageUnavailable
from stepensemble.handlers.batch.run_documents import Runs, ShardEvent
from stepensemble.handlers.prediction.cascade import prepare_next_tier
from stepensemble.handlers.prediction.member_results import name_failure, read_results
from stepensemble.handlers.state import Cascade, Frame, TierRequest, TierResults
from stepensemble.storage.keys import accepted_key, read_key, shard_prefix, shard_report_key, staged_key

MORE_MEMORY = "take smaller shards (--shard-size), or give the functions more memory (BatchMemorySize)"

REMEDIES = {
    "Runtime.OutOfMemory": MORE_MEMORY,
    "Runtime.ExitError": f"{MORE_MEMORY}; or a Parquet file may be damaged: write it again",
}
"""Remedies by the error that Lambda reports when a function's process ends."""


class AggregateShardEvent(ShardEvent, frozen=True, kw_only=True):
    """The function's input: the results of the tier that was invoked last, and of those before it."""

    rows: int
    results: TierResults
    earlier: tuple[TierRequest, ...]
    cascade: Cascade | None

    @property
    def tiers(self) -> tuple[TierRequest, ...]:
        """All invoked tiers, in order."""
        return (*self.earlier, TierRequest(self.rows, self.results))


@dataclass(frozen=True, slots=True)
class ShardAggregator:
    """The Aggregate shard function."""

    runs: Runs

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the number of rows with a prediction, or the request to the next tier, or a failure, which is stored.

        Args:
            event: `run` and `shard`, with the tiers' results or with an `error` that the state machine caught.

        Raises:
            StorageUnavailable: S3 fails; the state machine retries.
        """
        shard = msgspec.convert(event, ShardEvent)
        if "error" in event:
            return self._store_failure(shard, event["error"])
        try:
            result = self._aggregate(msgspec.convert(event, AggregateShardEvent))
        except StorageUnavailable:
            raise
        except EnsembleError as error:
            return self.runs.store_error(shard, error)
        return result | {"run": event["run"], "shard": event["shard"]}

    def _store_failure(self, event: ShardEvent, error: Mapping[str, Any]) -> dict[str, Any]:
        failure = name_failure(str(error["Error"]), error.get("Cause", ""))
        cause = f"{failure.message}; {REMEDIES[failure.type]}" if failure.type in REMEDIES else failure.message
        return self.runs.store_failure(event, ShardFailure(failure.type, cause))

    def _aggregate(self, event: AggregateShardEvent) -> dict[str, Any]:
        started = time.perf_counter()
        data, prefix = self.runs.data, shard_prefix(event.run, event.shard.number)
        plan, release = self.runs.read(event.run)
        read = decode_shard_read(data.read(read_key(prefix)))
        rows = pl.read_ipc(io.BytesIO(data.read(accepted_key(prefix))))
        predicted = predict_shard(release, release.policy, rows, read_results(data, event.tiers))
        if isinstance(predicted, Undecided):
            frame = Frame(event.run, plan.release, inline=False)
            return prepare_next_tier(data, frame, event.cascade, predicted, prefix=prefix, earlier=event.tiers)
        if predicted.cause is not None:
            # Without a report, a resumed run invokes the shard's members again.
            raise QuorumNotMet(_explain(predicted))
        part = encode_part(predicted.predictions, plan.options.format, spreadsheet=plan.options.spreadsheet)
        data.upload(staged_key(event.run, "part", event.shard.number, plan.options.format), part)
        counted = [read.statistics]
        if predicted.decision is not None:
            truth = encode_ground_truth(release.task, rows[TRUTH]) if TRUTH in rows.columns else None
            keys = compute_keys(plan.files[event.shard.file].name, rows[ROW].to_numpy())
            counted.append(count_predictions(release, predicted.decision, plan.edges.prediction, truth, keys))
        if predicted.failed:
            counted.append(self._reject(event, read, list_failed_rows(rows, predicted.failed)))
        seconds = {"aggregate_shard": time.perf_counter() - started}
        counted.append(ShardStatistics(seconds=seconds, bytes={"part": len(part)}))
        report = ShardReport(
            number=event.shard.number,
            rows_in=read.rows_in,
            rows_out=predicted.predictions.height,
            rows_rejected=read.rows_rejected + len(predicted.failed),
            status=predicted.status,
            cause=None,
            statistics=merge_statistics(counted),
        )
        data.write(shard_report_key(event.run, event.shard.number), msgspec.json.encode(report))
        return {"rows": predicted.predictions.height}

    def _reject(self, event: ShardEvent, read: ShardRead, failed: pl.DataFrame) -> ShardStatistics:
        """Add rows without a prediction to those that Normalize shard has rejected, and count them."""
        key, before = staged_key(event.run, "rejected", event.shard.number, "parquet"), []
        if read.rows_rejected:
            # If this function runs again, the file has the rows that it added the first time.
            before.append(pl.read_parquet(io.BytesIO(self.runs.data.read(key))).filter(pl.col("kind") != NO_PREDICTION))
        self.runs.data.write(key, encode_rejected(pl.concat([*before, failed]).sort("row", maintain_order=True)))
        locations = (RowLocation(file, row) for file, row in failed.select("file", "row").iter_rows())
        return count_rows_read({}, {}, (("", NO_PREDICTION, location) for location in locations))


def _explain(predicted: ShardPredictions) -> str:
    """Return why there is no quorum, and how the members failed, since a shard has no record."""
    results = {} if predicted.decision is None else predicted.decision.results
    failures = {id_: one.failure for id_, one in results.items() if one.failure is not None}
    return "; ".join([str(predicted.cause), *(f"{id_}: {one.type}: {one.message}" for id_, one in failures.items())])
