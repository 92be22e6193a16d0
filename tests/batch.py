"""The batch in memory: its state machine and the real handlers over buckets that are dictionaries."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import asl
from builders import ROOT
from memory import PREFIX, MemoryStack
from stepensemble.handlers.batch.aggregate_shard import ShardAggregator
from stepensemble.handlers.batch.normalize_shard import ShardNormalizer
from stepensemble.handlers.batch.plan import Planner
from stepensemble.handlers.batch.run_documents import Runs
from stepensemble.handlers.batch.summarize import Summarizer

MACHINE = json.loads((ROOT / "statemachine" / "batch.asl.json").read_text())
DATASET = "s3://data/datasets/"
MEMORY = {"normalize_shard": 2048, "score": 1024, "aggregate_shard": 2048}


@dataclass
class MemoryBatch:
    """Runs the batch's state machine over a stack in memory.

    Attributes:
        running: the executions that are taken for running.
        waits: seconds of each Wait.
        meanwhile: what happens in a Wait.
        breaks: by a function's name, what is raised instead of its response: event to error or None.
    """

    stack: MemoryStack
    running: set[str] = field(default_factory=set)
    waits: list[int] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None
    breaks: dict[str, Callable[[Any], Exception | None]] = field(default_factory=dict)

    def put(self, name: str, text: str) -> None:
        """Put a file into the dataset."""
        self.stack.data.write(f"datasets/{name}", text.encode())

    def run(self, name: str = "run-1", entered: list[str] | None = None, /, **request: Any) -> dict[str, Any]:
        """Run an execution and return its output."""
        payload = {"dataset": DATASET, **request}
        return dict(asl.run(MACHINE, self.functions(), payload, name, entered))

    def functions(self) -> dict[str, Callable[[Any], Any]]:
        """Return the functions by the names that the definition and Normalize shard give them."""
        stack = self.stack
        runs = lambda: Runs(stack.releases, stack.data)  # noqa: E731 (of each function's own process)
        known: dict[str, Callable[[Any], Any]] = {
            "${PlanFunctionArn}": Planner(stack.releases, stack.data, self.running.__contains__, 4),
            "${NormalizeShardFunctionArn}": ShardNormalizer(runs(), PREFIX),
            "${AggregateShardFunctionArn}": ShardAggregator(runs()),
            "${SummarizeFunctionArn}": Summarizer(runs(), MEMORY, lambda: stack.now, lambda _: "<html></html>"),
            **stack.slots,
        }
        broken = {name: self._break(name, function) for name, function in known.items()}
        return {**broken, asl.GET_OBJECT: self._read_list, asl.WAIT: self._wait}

    def _break(self, name: str, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(event: Any) -> Any:
            error = self.breaks.get(name, lambda _: None)(event)
            if error is not None:
                raise error
            return function(event)

        return call

    def _read_list(self, parameters: dict[str, str]) -> Any:
        return json.loads(self.stack.data.read(parameters["Key"]))

    def _wait(self, seconds: int) -> None:
        self.waits.append(seconds)
        assert len(self.waits) < 10, "it waits for what does not end"
        self.meanwhile()
