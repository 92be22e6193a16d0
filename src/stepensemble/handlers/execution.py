"""Which execution asks."""

from __future__ import annotations

from msgspec import Struct


class Execution(Struct, frozen=True):
    """The execution, as the state machine's context names it."""

    id: str
    name: str
    started_at: str
