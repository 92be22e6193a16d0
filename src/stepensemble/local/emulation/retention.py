"""How many ended executions the Step Functions engine keeps in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moto.stepfunctions.parser import utils as engine_utils
from moto.stepfunctions.parser.api import ExecutionStatus
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

CLEANUP_INTERVAL = 50
"""Executions that are started between two clean-ups."""


@dataclass
class Retention:
    """How much the engine keeps of one account's ended executions.

    AWS describes an execution for 90 days after its end, and then knows neither it nor its name. Here that happens
    once enough later executions of the same state machine have ended, or their histories are long enough.

    Attributes:
        account: twelve digits.
        region: of the account's state machines.
        executions: ended executions to keep for each state machine.
        characters: to keep in their histories, for each state machine.
    """

    account: str
    region: str
    executions: int = 1_000
    characters: int = 64 * 1024 * 1024
    _starts: int = 0

    def clean_up(self) -> None:
        """Forget the oldest ended executions, on every 50th call. Call it while no execution is being started."""
        self._starts += 1
        if self._starts % CLEANUP_INTERVAL:
            return
        # The engine keeps every thread it ever started.
        engine_utils.TMP_THREADS[:] = [thread for thread in engine_utils.TMP_THREADS if thread.is_alive()]
        for machine in stepfunctions_parser_backends[self.account][self.region].state_machines:
            # A new list, since another thread may be reading the old one.
            machine.executions = self._select(machine.executions)

    def _select(self, executions: Sequence[Any]) -> list[Any]:
        """Return the executions to keep, in order: all that run, and the latest of those that have ended."""
        kept, ended, characters = [], 0, 0
        for execution in reversed(executions):
            if execution.exec_status != ExecutionStatus.RUNNING:
                ended += 1
                characters += _measure_history(execution)
                if ended > self.executions or (characters > self.characters and ended > 1):
                    continue
            kept.append(execution)
        return kept[::-1]


def _measure_history(execution: Any) -> int:
    """Return the number of characters in the history of an ended execution, which does not change any more."""
    if not hasattr(execution, "history_characters"):
        details = [value for event in execution.to_history_output()["events"] for value in event.values()]
        texts = [text for one in details if isinstance(one, dict) for text in one.values() if isinstance(text, str)]
        execution.history_characters = sum(map(len, texts))
    return int(execution.history_characters)
