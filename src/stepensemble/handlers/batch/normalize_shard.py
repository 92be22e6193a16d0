"""Normalize shard: read part of a dataset, put aside what is wrong, encode the rest, name the members to ask first."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from typing import Any

import msgspec
import polars as pl
from msgspec import structs

from stepensemble.batch.documents import RunPlan
from stepensemble.batch.input.datasets import wanted_columns
from stepensemble.batch.input.frame_encoder import Encoded, encode_frame
from stepensemble.batch.input.labels import TRUTH, tally_labels
from stepensemble.batch.input.shard_reader import read_shard
from stepensemble.batch.output.result_files import encode_rejected, list_rejected
from stepensemble.batch.output.result_table import name_rows
from stepensemble.batch.report.statistics import LabelCounts, ShardStatistics, add, count_rows_read
from stepensemble.core.errors import EnsembleError, StorageUnavailable
from stepensemble.core.preprocessing.columns import columns_to_bytes
from stepensemble.handlers.batch.run_documents import Runs, ShardEvent, ShardRead
from stepensemble.handlers.state import Frame, TierColumns, list_members, prepare_tier
from stepensemble.storage.keys import (
    accepted_key,
    columns_key,
    outputs_key,
    read_key,
    shard_prefix,
    staged_key,
)

NOBODY: dict[str, Any] = {"rows": 0, "results": {"voters": []}, "earlier": [], "cascade": None}
"""The state of a shard without accepted rows: nobody is asked, and so the results are there already."""


@dataclass(frozen=True, slots=True)
class ShardNormalizer:
    """What Normalize shard works on."""

    runs: Runs
    function_prefix: str

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Answer the state from which the first tier is asked, with `run` and `shard`; or a failure, written down.

        Args:
            event: `run` and `shard`.

        Raises:
            StorageUnavailable: S3 fails; the state machine tries again.
        """
        asked = msgspec.convert(event, ShardEvent)
        try:
            return self._normalize(asked) | event
        except StorageUnavailable:
            raise
        except EnsembleError as error:
            return self.runs.refuse(asked, error)

    def _normalize(self, event: ShardEvent) -> dict[str, Any]:
        started = time.perf_counter()
        data, prefix = self.runs.data, shard_prefix(event.run, event.shard.number)
        plan, release = self.runs.read(event.run)
        file = plan.files[event.shard.file]
        raw = read_shard(data, plan, event.shard, wanted_columns(plan.options, [one.name for one in release.features]))
        encoded = encode_frame(release.features, raw.frame, typed=file.format != "csv", original=raw.original)
        accepted, numbers = raw.frame, raw.numbers
        if not encoded.accepted.all():
            accepted, numbers = accepted.filter(encoded.accepted), numbers[encoded.accepted]
        reading = plan.label_values or "names"
        rows = name_rows(accepted, file.name, numbers, plan.options, release.task, file.format, reading)
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
        took = ShardStatistics(
            seconds={"normalize_shard": time.perf_counter() - started},
            bytes={"read": event.shard.end - event.shard.start, "columns": len(columns)},
        )
        given = _find(accepted, plan.options.label)
        truth = (
            LabelCounts()
            if given is None
            else tally_labels(release.task, given, rows[TRUTH], reading, file.name, numbers)
        )
        tally = add([_count(plan, encoded, rejected, truth), took])
        read = ShardRead(raw.rows, raw.rows - rows.height, tally)
        data.write(read_key(prefix), msgspec.json.encode(read))
        if not rows.height:
            return NOBODY
        members = [
            structs.replace(member, outputs_key=outputs_key(prefix, member.id))
            for member in list_members(release, plan.slots, self.function_prefix)
        ]
        pointer = msgspec.to_builtins(data.pointer(columns_key(prefix)))
        frame = Frame(event.run, plan.release, inline=False)
        return prepare_tier(frame, 1, members, TierColumns(rows.height, pointer, pointer))


def _count(plan: RunPlan, encoded: Encoded, rejected: pl.DataFrame, truth: LabelCounts) -> ShardStatistics:
    wrong = rejected.select("column", "kind", "file", "row").iter_rows()
    places = ((column, kind, (file, row)) for column, kind, file, row in wrong)
    return count_rows_read(encoded.values, plan.edges, places, truth=truth)


def _find(frame: pl.DataFrame, name: str | None) -> pl.Series | None:
    return frame[name] if name is not None and name in frame.columns else None


def _to_bytes(rows: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    rows.write_ipc(buffer, compression="lz4")
    return buffer.getvalue()
