"""Score: one slot answers for one member. A slot holds no model of its own; each event says which one it serves."""

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
    """What the state machine sends a slot, and the HTTP door where one member is asked alone.

    Attributes:
        columns: inline, or a pointer.
        shaped: the outputs are wanted in the model's own shape; else an entry a row, a list where that is several.
    """

    member: MemberToScore
    columns: Mapping[str, Any]
    rows: int
    shaped: bool = False


@dataclass(frozen=True, slots=True)
class Scorer:
    """What a slot works on."""

    models: ModelCache
    data: Bucket

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Answer one member's outputs for every row: inline, or a pointer where the event says so.

        Of a warm-up, `{"warmup": true, "slot": …}`, answer what became of each of the slot's members; the failure of
        one is then in its place. Of `{"describe": true, "member": …}`, answer the signature of the member's model.

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
        asked = msgspec.convert(event, ScoreEvent)
        member = asked.member
        model, cold = self.models.get(member.runtime, member.artifact, member.signature, trusted=member.trusted)
        reject_narrowed(model.signature, member.narrow)
        inputs = bind_columns(self._columns(asked.columns), member.inputs)
        given = model.predict(inputs, member.output)
        outputs = shape_output(given, asked.rows)
        if asked.shaped:
            outputs = outputs.reshape(given.shape)
        carried: Any = list_entries(outputs)
        if member.outputs_key is not None:
            pointer = self.data.write(member.outputs_key, array_to_bytes(outputs))
            carried = msgspec.to_builtins(pointer)
        return {"id": member.id, "outputs": carried, "duration_ms": _milliseconds_since(started), "cold": cold}

    def _warm(self, member: MemberToLoad) -> dict[str, Any]:
        """Load a model and ask it a row of zeros: tensors are allocated, and graphs traced, at the first call only."""
        started = time.perf_counter()
        try:
            model, cold = self.models.get(member.runtime, member.artifact, member.signature, trusted=member.trusted)
            rows = model.signature.batch or 1
            zeros = {name: np.zeros((rows, *one.shape), one.dtype) for name, one in member.inputs.items()}
            # A model may refuse zeros, and is loaded all the same.
            with suppress(InputMismatch):
                model.predict(zeros, member.output)
        except MemberError as error:
            return {"error": {"type": type(error).__name__, "message": str(error)}}
        return {"cold": cold, "duration_ms": _milliseconds_since(started)}

    def _columns(self, carried: Mapping[str, Any]) -> Columns:
        if isinstance(carried.get("s3"), str):  # a column of that name would be a list
            _, key = msgspec.convert(carried, Pointer).split()
            return columns_from_bytes(self.data.read(key))
        return columns_from_json(carried)


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
