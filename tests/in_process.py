"""Run what a child process runs, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import structs

from stepensemble.conversion.sandbox import PackedResult
from stepensemble.core.errors import EnsembleError


def run_in_process(jobs: Sequence[Any], result: object = None, seconds: float = 0) -> list[Any]:
    """Run jobs as `run_in_child` does, without a child: a start of Python and of a runtime is saved for each call.

    A trial's memory is 0: what this process has filled is not the model's.
    """
    del result, seconds
    results: list[Any] = []
    for job in jobs:
        try:
            done = job.run()
        except EnsembleError as error:
            results.append(error)
        else:
            results.append(structs.replace(done, peak_bytes=0) if isinstance(done, PackedResult) else done)
    return results
