"""Run the gate from the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stepensemble.admission.gate import GateReport, enforce_gate
from stepensemble.cli.terminal import print_warning
from stepensemble.publishing.manifest_loader import Sources


def pass_gate(sources: Sources, notify: Callable[[str], None]) -> GateReport:
    """Test every member before anything is written, and print the warnings on standard error.

    Raises:
        InvalidManifest: see `admission.gate.enforce_gate`.
    """
    report = enforce_gate(sources, notify)
    for problem in report.warnings:
        print_warning(str(problem))
    return report


@contextmanager
def suppress_standard_error() -> Iterator[None]:
    """Discard what is written to standard error, including by native code.

    LiteRT reports its first delegate there, without Python and without a switch; its errors are raised as well.
    """
    original, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)
        os.close(null)
