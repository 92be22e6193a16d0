"""Reads and writes the documents of a run for the functions that work on its shards."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
from msgspec import Struct

from stepensemble.batch.documents import RunPlan, Shard, ShardFailure
from stepensemble.batch.stored_documents import decode_plan
from stepensemble.core.errors import EnsembleError
from stepensemble.core.releases.release import Release
from stepensemble.storage.keys import plan_key, shard_failure_key
from stepensemble.storage.objects import Bucket
from stepensemble.storage.releases import ReleaseStore

KEPT_RUNS = 2
"""Runs whose plan and release are cached."""


class ShardEvent(Struct, frozen=True):
    """The part of a function's input that names the shard."""

    run: str
    shard: Shard


@dataclass(frozen=True, slots=True)
class Runs:
    """Plans and the releases that predict, cached, since neither ever changes."""

    releases: ReleaseStore
    data: Bucket
    _known: dict[str, tuple[RunPlan, Release]] = field(default_factory=dict)

    def read(self, run: str) -> tuple[RunPlan, Release]:
        """Return a run's plan and the release that predicts it."""
        if run not in self._known:
            plan = decode_plan(self.data.read(plan_key(run)))
            release = self.releases.read_release(plan.release)
            if len(self._known) >= KEPT_RUNS:
                del self._known[next(iter(self._known))]
            self._known[run] = plan, release
        return self._known[run]

    def store_failure(self, event: ShardEvent, failure: ShardFailure) -> dict[str, dict[str, str]]:
        """Store why a shard failed, for Summarize, and return it as data."""
        self.data.write(shard_failure_key(event.run, event.shard.number), msgspec.json.encode(failure))
        return {"failure": dict(msgspec.to_builtins(failure))}

    def store_error(self, event: ShardEvent, error: EnsembleError) -> dict[str, dict[str, str]]:
        """Store an expected error in the same way."""
        return self.store_failure(event, ShardFailure(type(error).__name__, str(error)))
