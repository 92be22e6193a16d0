"""The gate, for a terminal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stepensemble.publishing.gate import Trial, try_members
from stepensemble.publishing.sources import Sources


def try_quietly(sources: Sources, notify: Callable[[str], None]) -> list[Trial]:
    """Try every member without what LiteRT writes to the terminal; see `gate.try_members`.

    Its native code announces its first delegate on standard error, past Python and with no switch; what goes wrong it
    also raises.
    """
    with standard_error_closed():
        return try_members(sources, lambda member: notify(f"Trying {member}"))


@contextmanager
def standard_error_closed() -> Iterator[None]:
    """Let nothing through to standard error, native code included."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
