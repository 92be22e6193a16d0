"""Score: one slot predicts for one member. A slot has no model of its own; each event names the model to use."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from stepensemble.core.aggregation.canonical import list_entries, shape_output
from stepensemble.core.errors import InputMismatch, MemberError
from stepensemble.core.payload import WARMUP, Pointer
from stepensemble.core.preprocessing.columns import (
    Columns,
    array_to_bytes,
    bind_columns,
    columns_from_bytes,
    columns_from_json,
)
from stepensemble.handlers.prediction.model_cache import ModelCache
from stepensemble.handlers.prediction.warmup import MemberToLoad, SlotToLoad
from stepensemble.handlers.state import DESCRIBE, MemberToScore
from stepensemble.runtimes.precision import reject_narrowed
from stepensemble.storage.objects import Bucket


class ScoreEvent(Struct, frozen=True):
    """What a slot is sent: by the state machine, and by the HTTP endpoint of a single member.

    Attributes:
        columns: inline, or a pointer.
        shaped: return the outputs in the model's own shape; else an entry a row, which is a list for several numbers.
    """

    member: MemberToScore
    columns: Mapping[str, Any]
    rows: int
    shaped: bool = False


@dataclass(frozen=True, slots=True)
class Scorer:
    """Implements a slot."""

    models: ModelCache
    data: Bucket

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return one member's outputs for every row: inline, or a pointer where the event has an `outputs_key`.

        For a warm-up, `{"warmup": true, "slot": …}`, return each member's load result, which may be its failure. For
        `{"describe": true, "member": …}`, return the signature of the member's model.

        Raises:
            MemberError: the member's failure; the state machine carries it as data.
            StorageUnavailable: S3 fails; the state machine tries again.
        """
        if event.get(WARMUP):
            slot = msgspec.convert(event["slot"], SlotToLoad)
            return {"members": [self._warm(member) for member in slot.members]}
        if event.get(DESCRIBE):
            member = msgspec.convert(event["member"], MemberToScore)
            model, _ = self.models.get(member.runtime, member.artifact, member.signature)
            return {"signature": msgspec.to_builtins(model.signature)}
        started = time.perf_counter()
        request = msgspec.convert(event, ScoreEvent)
        member = request.member
        model, cold = self.models.get(member.runtime, member.artifact, member.signature, trusted=member.trusted)
        reject_narrowed(model.signature, member.narrow)
        inputs = bind_columns(self._columns(request.columns), member.inputs)
        raw = model.predict(inputs, member.output)
        outputs = shape_output(raw, request.rows)
        if request.shaped:
            outputs = outputs.reshape(raw.shape)
        carried: Any = list_entries(outputs)
        if member.outputs_key is not None:
            pointer = self.data.write(member.outputs_key, array_to_bytes(outputs))
            carried = msgspec.to_builtins(pointer)
        return {"id": member.id, "outputs": carried, "duration_ms": _milliseconds_since(started), "cold": cold}

    def _warm(self, member: MemberToLoad) -> dict[str, Any]:
        """Load a model and predict a row of zeros: the first call allocates tensors and traces graphs."""
        started = time.perf_counter()
        try:
            model, cold = self.models.get(member.runtime, member.artifact, member.signature, trusted=member.trusted)
            rows = model.signature.batch or 1
            zeros = {name: np.zeros((rows, *one.shape), one.dtype) for name, one in member.inputs.items()}
            # A model that rejects zeros is loaded nevertheless.
            with suppress(InputMismatch):
                model.predict(zeros, member.output)
        except MemberError as error:
            return {"error": {"type": type(error).__name__, "message": str(error)}}
        return {"cold": cold, "duration_ms": _milliseconds_since(started)}

    def _columns(self, carried: Mapping[str, Any]) -> Columns:
        if isinstance(carried.get("s3"), str):  # a column of that name is a list
            _, key = msgspec.convert(carried, Pointer).split()
            return columns_from_bytes(self.data.read(key))
        return columns_from_json(carried)


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
