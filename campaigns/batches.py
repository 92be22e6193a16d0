"""Kill the stack of a batch, with all its functions, at a random moment, and start the batch again.

Promise: a run that was killed and resumed has the same results, byte for byte, as an undisturbed run.

    python campaigns/batches.py --batches 10 --rows 300
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from laboratory import ENSEMBLE, ROOT, Findings, choose, copy_project, read_size, run_ensemble

from stepensemble.cli.stacks import local_stack
from stepensemble.local.stack import RunningStack, find_running

FIRST_DAY = date(2026, 3, 1)
OPTIONS = ("--shard-size", "1KB", "--json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign and report."""
    size = read_size(__doc__, arguments, batches=5, rows=300)
    found = Findings("batches", vars(size))
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        project = copy_project(Path(folder))
        dataset = write_passengers(project / "passengers.csv", size.rows)
        try:
            disturb(found, project, dataset, size.batches, size.seed)
        finally:
            run_ensemble(project, "local", "stop")
    return found.report()


def disturb(found: Findings, project: Path, dataset: Path, batches: int, seed: int) -> None:
    """Run one batch undisturbed, and kill the stack during each of the others."""
    random = choose(seed)
    keep_up(project)
    began = time.monotonic()
    whole = read_parts(project, run_batch(project, dataset, FIRST_DAY))
    took = time.monotonic() - began
    found.expect(whole, "the undisturbed batch has no results")
    resumed = killed = 0
    for number in range(1, batches + 1):
        day = FIRST_DAY + timedelta(days=number)
        began = time.monotonic()
        with start_batch(project, dataset, day) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(random.uniform(0.1, 1.0) * took)
                took = time.monotonic() - began  # it ended before the kill; functions are warm
            if process.poll() is None:
                kill_stack(project)
                killed += 1
            process.communicate()
        keep_up(project)
        again = run_batch(project, dataset, day)
        resumed += again["mode"] == "resumed"
        found.expect(
            read_parts(project, again) == whole, f"the batch of {day} has results that differ from the first one"
        )
    found.counts |= {"killed": killed, "resumed": resumed, "parts": len(whole), "rows": again["rows_out"]}


def write_passengers(path: Path, rows: int) -> Path:
    """Write the first of the shipped passengers."""
    with (ROOT / "examples" / "titanic" / "passengers.csv").open(newline="") as source, path.open("w") as target:
        for number, row in enumerate(csv.reader(source)):
            if number > rows:
                break
            csv.writer(target, lineterminator="\n").writerow(row)
    return path


def keep_up(project: Path) -> None:
    """Start the stack in the background unless it runs."""
    if find_running(project / ".stepensemble") is None:
        started = run_ensemble(project, "local", "--detach")
        if started.returncode:
            raise RuntimeError(started.stderr)


def run_batch(project: Path, dataset: Path, day: date) -> dict[str, Any]:
    """Run a batch until it succeeds, and return its output."""
    done = run_ensemble(project, "batch", str(dataset), "--date", str(day), *OPTIONS)
    if done.returncode:
        raise RuntimeError(done.stderr + done.stdout)
    return dict(json.loads(done.stdout))


def start_batch(project: Path, dataset: Path, day: date) -> subprocess.Popen[str]:
    """Start a batch."""
    command = [ENSEMBLE, "batch", str(dataset), "--date", str(day), *OPTIONS]
    return subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: S603


def kill_stack(project: Path) -> None:
    """Kill the stack's process; its functions' processes end when their pipe to it breaks."""
    running = find_stack(project)
    os.kill(running.pid, signal.SIGKILL)
    while find_running(project / ".stepensemble") is not None:
        time.sleep(0.02)


def find_stack(project: Path) -> RunningStack:
    """Return the stack that runs in the background."""
    running = find_running(project / ".stepensemble")
    if running is None:
        raise RuntimeError("the stack does not run")
    return running


def read_parts(project: Path, run: dict[str, Any]) -> list[bytes]:
    """Return the parts of a run's results, in order."""
    running = find_stack(project)
    data = local_stack(running.name, running.endpoint).data
    prefix = run["results"].removeprefix(f"s3://{data.name}/")
    keys = sorted(one.key for one in data.list(prefix) if one.key.endswith(".parquet"))
    return [data.read(key) for key in keys]


if __name__ == "__main__":
    sys.exit(main())
