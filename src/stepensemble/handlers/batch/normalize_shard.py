"""Normalize shard: reads a shard, rejects invalid rows, encodes the others, and names the members to invoke first."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from typing import Any

import msgspec
import polars as pl
from msgspec import structs

from stepensemble.batch.documents import RunPlan
from stepensemble.batch.input.datasets import required_columns
from stepensemble.batch.input.frame_encoder import EncodedRows, encode_frame
from stepensemble.batch.input.labels import TRUTH, count_labels
from stepensemble.batch.input.shard_reader import read_shard
from stepensemble.batch.output.result_files import encode_rejected, list_rejected
from stepensemble.batch.output.result_table import RowNaming, name_rows
from stepensemble.batch.report.statistics import (
    LabelCounts,
    RowLocation,
    ShardRead,
    ShardStatistics,
    count_rows_read,
    merge_statistics,
)
from stepensemble.core.errors import EnsembleError, StorageUnavailable
from stepensemble.core.preprocessing.columns import columns_to_bytes
from stepensemble.handlers.batch.run_documents import Runs, ShardEvent
from stepensemble.handlers.state import Frame, TierColumns, list_members, prepare_tier
from stepensemble.storage.keys import (
    accepted_key,
    columns_key,
    outputs_key,
    read_key,
    shard_prefix,
    staged_key,
)

NO_ROWS: dict[str, Any] = {"rows": 0, "results": {"voters": []}, "earlier": [], "cascade": None}
"""The state of a shard without accepted rows: no member is invoked, so the results are complete."""


@dataclass(frozen=True, slots=True)
class ShardNormalizer:
    """The Normalize shard function."""

    runs: Runs
    function_prefix: str

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the request to the first tier, with `run` and `shard`; or a failure, which is stored.

        Args:
            event: `run` and `shard`.

        Raises:
            StorageUnavailable: S3 fails; the state machine retries.
        """
        shard = msgspec.convert(event, ShardEvent)
        try:
            return self._normalize(shard) | event
        except StorageUnavailable:
            raise
        except EnsembleError as error:
            return self.runs.store_error(shard, error)

    def _normalize(self, event: ShardEvent) -> dict[str, Any]:
        started = time.perf_counter()
        data, prefix = self.runs.data, shard_prefix(event.run, event.shard.number)
        plan, release = self.runs.read(event.run)
        file = plan.files[event.shard.file]
        raw = read_shard(
            data, plan, event.shard, required_columns(plan.options, [one.name for one in release.features])
        )
        encoded = encode_frame(release.features, raw.frame, typed=file.format != "csv", original=raw.original)
        accepted, numbers = raw.frame, raw.numbers
        if not encoded.accepted.all():
            accepted, numbers = accepted.filter(encoded.accepted), numbers[encoded.accepted]
        reading = plan.label_values or "names"
        rows = name_rows(accepted, numbers, RowNaming(file, plan.options, release.task, reading))
        rejected = list_rejected(
            encoded.wrong, raw.malformed, file.name, raw.numbers, _find(raw.frame, plan.options.id)
        )
        if rejected.height:
            data.write(staged_key(event.run, "rejected", event.shard.number, "parquet"), encode_rejected(rejected))
        columns = b""
        if rows.height:
            columns = columns_to_bytes(encoded.columns)
            data.upload(columns_key(prefix), columns)
        data.upload(accepted_key(prefix), _to_bytes(rows))
        used = ShardStatistics(
            seconds={"normalize_shard": time.perf_counter() - started},
            bytes={"read": event.shard.end - event.shard.start, "columns": len(columns)},
        )
        labels = _find(accepted, plan.options.label)
        ground_truth = (
            LabelCounts()
            if labels is None
            else count_labels(release.task, labels, rows[TRUTH], reading, file.name, numbers)
        )
        statistics = merge_statistics([_count(plan, encoded, rejected, ground_truth), used])
        read = ShardRead(raw.rows, raw.rows - rows.height, statistics)
        data.write(read_key(prefix), msgspec.json.encode(read))
        if not rows.height:
            return NO_ROWS
        members = [
            structs.replace(member, outputs_key=outputs_key(prefix, member.id))
            for member in list_members(release, plan.slots, self.function_prefix)
        ]
        pointer = msgspec.to_builtins(data.pointer(columns_key(prefix)))
        frame = Frame(event.run, plan.release, inline=False)
        return prepare_tier(frame, 1, members, TierColumns(rows.height, pointer, pointer))


def _count(plan: RunPlan, encoded: EncodedRows, rejected: pl.DataFrame, ground_truth: LabelCounts) -> ShardStatistics:
    lines = rejected.select("column", "kind", "file", "row").iter_rows()
    wrong = ((column, kind, RowLocation(file, row)) for column, kind, file, row in lines)
    return count_rows_read(encoded.values, plan.edges.features, wrong, ground_truth=ground_truth)


def _find(frame: pl.DataFrame, name: str | None) -> pl.Series | None:
    return frame[name] if name is not None and name in frame.columns else None


def _to_bytes(rows: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    rows.write_ipc(buffer, compression="lz4")
    return buffer.getvalue()
