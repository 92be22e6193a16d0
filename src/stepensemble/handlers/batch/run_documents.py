"""A run's documents, as the functions that work on its shards read and write them."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
from msgspec import Struct

from stepensemble.batch.documents import RunPlan, Shard, ShardFailure
from stepensemble.batch.report.statistics import ShardStatistics
from stepensemble.core.errors import EnsembleError
from stepensemble.core.releases.release import Release
from stepensemble.storage.keys import plan_key, shard_failure_key
from stepensemble.storage.objects import Bucket
from stepensemble.storage.releases import ReleaseStore

KEPT_RUNS = 2


class ShardEvent(Struct, frozen=True):
    """What the state machine sends about a shard."""

    run: str
    shard: Shard


class ShardRead(Struct, frozen=True):
    """What Normalize shard tells Aggregate shard beside the accepted rows: how many there are, and what it counted."""

    rows_in: int
    rows_rejected: int
    tally: ShardStatistics


@dataclass(frozen=True, slots=True)
class Runs:
    """Plans and the releases that answer, cached: neither ever changes."""

    releases: ReleaseStore
    data: Bucket
    _known: dict[str, tuple[RunPlan, Release]] = field(default_factory=dict)

    def read(self, run: str) -> tuple[RunPlan, Release]:
        """Return a run's plan and the release that answers it."""
        if run not in self._known:
            plan = msgspec.json.decode(self.data.read(plan_key(run)), type=RunPlan)
            release = self.releases.read_release(plan.release)
            if len(self._known) >= KEPT_RUNS:
                del self._known[next(iter(self._known))]
            self._known[run] = plan, release
        return self._known[run]

    def note_failure(self, event: ShardEvent, failure: ShardFailure) -> dict[str, dict[str, str]]:
        """Write down why a shard has no answer, for Summarize, and return it as data."""
        self.data.write(shard_failure_key(event.run, event.shard.number), msgspec.json.encode(failure))
        return {"failure": dict(msgspec.to_builtins(failure))}

    def refuse(self, event: ShardEvent, error: EnsembleError) -> dict[str, dict[str, str]]:
        """Do so with an expected failure."""
        return self.note_failure(event, ShardFailure(type(error).__name__, str(error)))
