"""Summarize: put a run together out of what its shards left, and say what it came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from stepensemble.batch.documents import Shard
from stepensemble.batch.publication import put_together
from stepensemble.batch.report.html import draw_report
from stepensemble.batch.report.summary import Summary, Times
from stepensemble.core.errors import EnsembleError, ObjectMissing, StorageUnavailable
from stepensemble.handlers.batch.run_documents import Runs
from stepensemble.handlers.failures import refuse
from stepensemble.handlers.state import Execution
from stepensemble.storage.keys import shards_key


class SummarizeEvent(Struct, frozen=True):
    """What the state machine sends; `attempt` says how many executions have had the run."""

    run: str
    attempt: int
    execution: Execution


@dataclass(frozen=True, slots=True)
class Summarizer:
    """What Summarize works on.

    Attributes:
        memory: MB of the functions that did the shards, by name.
    """

    runs: Runs
    memory: Mapping[str, int]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    draw: Callable[[Summary], str] = draw_report

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Answer the run's `result`; or a refusal, where it went beyond its tolerances or belongs to somebody else.

        Raises:
            StorageUnavailable: S3 fails; the state machine tries again.
        """
        try:
            return {"result": self._summarize(msgspec.convert(event, SummarizeEvent))}
        except StorageUnavailable:
            raise
        except EnsembleError as error:
            return refuse(error)

    def _summarize(self, event: SummarizeEvent) -> dict[str, Any]:
        plan, release = self.runs.read(event.run)
        data = self.runs.data
        try:
            shards = msgspec.json.decode(data.read(shards_key(event.run)), type=tuple[Shard, ...])
        except ObjectMissing:  # tidied up by an invocation whose answer was lost: the run is whole
            shards = ()
        times = Times(event.execution.id, event.attempt, self.now().isoformat(timespec="milliseconds"))
        result = put_together(data, plan, shards, release, times, self.memory, self.draw)
        return dict(msgspec.to_builtins(result))
