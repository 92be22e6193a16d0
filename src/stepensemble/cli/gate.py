"""The gate, for a terminal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stepensemble.admission.gate import GateReport, enforce_gate
from stepensemble.cli.terminal import warn
from stepensemble.publishing.manifest_loader import Sources


def admit(sources: Sources, notify: Callable[[str], None]) -> GateReport:
    """Try every member before anything is written, and say on standard error what a person should look at.

    Raises:
        InvalidManifest: see `gate.enforce_gate`.
    """
    report = enforce_gate(sources, notify)
    for problem in report.warnings:
        warn(str(problem))
    return report


@contextmanager
def standard_error_closed() -> Iterator[None]:
    """Let nothing through to standard error, native code included.

    LiteRT's announces its first delegate there, past Python and with no switch; what goes wrong it also raises.
    """
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
