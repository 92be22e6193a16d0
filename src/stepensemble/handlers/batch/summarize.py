"""Summarize: publishes a run from what its shards stored, and returns the run's result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from stepensemble.batch.documents import Shard
from stepensemble.batch.publication import publish_run
from stepensemble.batch.report.html import draw_report
from stepensemble.batch.report.summary import RunAttempt, RunContext, Summary
from stepensemble.core.errors import EnsembleError, ObjectMissing, StorageUnavailable
from stepensemble.handlers.batch.run_documents import Runs
from stepensemble.handlers.failures import refuse
from stepensemble.handlers.state import Execution
from stepensemble.storage.keys import shards_key


class SummarizeEvent(Struct, frozen=True):
    """The function's input; `attempt` counts the executions that have worked on the run."""

    run: str
    attempt: int
    execution: Execution


@dataclass(frozen=True, slots=True)
class Summarizer:
    """The Summarize function.

    Attributes:
        memory_mb: memory of the functions that work on shards, by name.
    """

    runs: Runs
    memory_mb: Mapping[str, int]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    draw: Callable[[Summary], str] = draw_report

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the run's `result`; or a failure, if the run exceeds its limits or another execution took it over.

        Raises:
            StorageUnavailable: S3 fails; the state machine retries.
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
        except ObjectMissing:  # deleted by an invocation whose response was lost: the run is complete
            shards = ()
        attempt = RunAttempt(event.execution.id, event.attempt, self.now().isoformat(timespec="milliseconds"))
        run = RunContext(plan, shards, release, attempt, self.memory_mb)
        result = publish_run(data, run, self.draw)
        return dict(msgspec.to_builtins(result))
