"""Score: one slot answers for one member. A slot holds no model of its own; each event says which one it serves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct

from stepensemble.core.columns import Columns, array_to_bytes, columns_from_bytes, columns_from_json, stack_columns
from stepensemble.core.outputs import check_output
from stepensemble.core.payload import Pointer
from stepensemble.core.release import Artifact
from stepensemble.handlers.tiers import MemberToScore
from stepensemble.runtimes import Model, load_model
from stepensemble.storage.objects import Bucket
from stepensemble.storage.releases import ReleaseStore


class ScoreEvent(Struct, frozen=True):
    """What the state machine sends a slot; `columns` are inline, or a pointer."""

    member: MemberToScore
    columns: Mapping[str, Any]
    rows: int


@dataclass(slots=True)
class LoadedModel:
    """The model this environment keeps in memory: that of the member it answered for last."""

    releases: ReleaseStore
    _digest: str | None = None
    _model: Model | None = None

    def get(self, runtime: str, artifact: Artifact) -> tuple[Model, bool]:
        """Return a model, and whether it had to be loaded.

        Raises:
            MemberError: it is not there, not what its digest says, or cannot be loaded.
        """
        if self._model is not None and self._digest == artifact.digest:
            return self._model, False
        self._model = None  # two models at once may be more than the memory holds
        self._model = load_model(runtime, self.releases.read_artifact(artifact))
        self._digest = artifact.digest
        return self._model, True


@dataclass(frozen=True, slots=True)
class Scorer:
    """What a slot works on."""

    models: LoadedModel
    data: Bucket

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Answer one member's outputs for every row: inline, or a pointer where the event says so.

        Raises:
            MemberError: the member's failure; the state machine carries it as data.
            StorageUnavailable: S3 fails; the state machine tries again.
        """
        started = time.perf_counter()
        asked = msgspec.convert(event, ScoreEvent)
        model, cold = self.models.get(asked.member.runtime, asked.member.artifact)
        columns = self._columns(asked.columns)
        outputs = check_output(model.predict(stack_columns(columns, asked.member.columns)), asked.rows)
        carried: Any = outputs.tolist()
        if asked.member.outputs_key is not None:
            pointer = self.data.write(asked.member.outputs_key, array_to_bytes(outputs))
            carried = msgspec.to_builtins(pointer)
        duration_ms = round((time.perf_counter() - started) * 1000, 3)
        return {"id": asked.member.id, "outputs": carried, "duration_ms": duration_ms, "cold": cold}

    def _columns(self, carried: Mapping[str, Any]) -> Columns:
        if isinstance(carried.get("s3"), str):  # a column of that name would be a list
            _, key = msgspec.convert(carried, Pointer).split()
            return columns_from_bytes(self.data.read(key))
        return columns_from_json(carried)
