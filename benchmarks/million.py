"""A million rows of CSV through four members: the batch on the local stack, a script, and the limit.

    ours      the dataset is uploaded, the real state machine runs, results (Parquet), report and summary are fetched
    script    peers/pandas_keras.py: pandas, four times `keras.predict`, their mean as CSV
    limit     peers/polars_litert.py: polars, LiteRT, their mean as Parquet, nothing else

The start before the first row is read (of the stack, or of a process with its imports) is reported separately for all
three. Every round has a dataset of its own, since a run of a known dataset would be returned at once.

    python benchmarks/million.py            # prints a table and writes benchmarks/results/million.json
    python benchmarks/million.py --json     # prints it as JSON instead

It needs TensorFlow and pandas (`make bench` installs them).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import polars as pl
from command import add_rounds, make_parser, read_count, report
from comparisons import format_comparison
from msgspec import Struct
from numpy.typing import NDArray
from peers.keras_models import train_models
from stacks import start_stack, write_passengers
from timing import Comparison, Machine, Spread, compare, describe_machine, run_in_turns, show, summarize

from stepensemble.batch.documents import Request
from stepensemble.cli.batch_runs import fetch_results, follow_run, read_summary, start_run
from stepensemble.cli.local_datasets import find_local, upload_dataset
from stepensemble.cli.stacks import Stack

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "million.json"
PEERS = Path(__file__).resolve().parent / "peers"
ROWS, ROUNDS = 1_000_000, 3
OURS, SCRIPT, LIMIT = "ensemble batch", "pandas and keras.predict", "polars and LiteRT"
UPLOAD, RUN, FETCH = "upload", "run", "fetch"

Laps = dict[str, list[float]]
"""Seconds, by what took them; one a turn."""


class Result(Struct, frozen=True):
    """The result.

    Attributes:
        size: bytes of the table.
        seconds: from the first row read to the last one written, by program.
        parts: seconds of the parts of `ensemble batch`.
        started: seconds of the start: of the stack (template, emulator, functions), or of Python and its imports.
    """

    machine: Machine
    rounds: int
    rows: int
    size: int
    seconds: Mapping[str, Spread]
    parts: Mapping[str, Spread]
    started: Mapping[str, Spread]
    claims: list[Comparison]


def measure(rows: int, rounds: int) -> Result:
    """Time all three in turns."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        table = folder / "passengers.csv"
        write_passengers(table, rows)
        models = folder / "models"
        models.mkdir()
        for name, (model, _) in train_models().items():
            model.save(models / f"{name}.keras")
        starting = time.perf_counter()
        with start_stack(folder / "project") as (_, stack):
            started = time.perf_counter() - starting
            laps: Laps = defaultdict(list)
            tasks: dict[str, Callable[[], object]] = {
                OURS: _run_batch(stack, table, folder, laps),
                SCRIPT: _run_script(SCRIPT, "pandas_keras.py", table, models, folder / "script.csv", laps),
                LIMIT: _run_script(
                    LIMIT, "polars_litert.py", table, ROOT / "models" / "titanic", folder / "limit.parquet", laps
                ),
            }
            whole = run_in_turns(tasks, rounds)
        laps = {name: taken[1:] for name, taken in laps.items()}  # the first turn is not counted
        predictions = [
            _read_values(folder / "ours"),
            pl.read_csv(folder / "script.csv")["value"].to_numpy(),
            pl.read_parquet(folder / "limit.parquet")["value"].to_numpy(),
        ]
        for other in predictions[1:]:
            np.testing.assert_allclose(predictions[0], other, atol=1e-4)
        seconds = {name: laps[name] for name in (OURS, SCRIPT, LIMIT)}
        starts = {
            name: [all_ - work for all_, work in zip(whole[name], seconds[name], strict=True)]
            for name in (SCRIPT, LIMIT)
        }
        label = f"{rows:,} rows, four members"
        return Result(
            describe_machine(
                "ai-edge-litert", "keras", "moto", "numpy", "pandas", "polars", "stepensemble", "tensorflow"
            ),
            rounds,
            rows,
            table.stat().st_size,
            {name: summarize(taken) for name, taken in seconds.items()},
            {name: summarize(laps[name]) for name in (UPLOAD, RUN, FETCH)},
            {"local stack": summarize([started]), **{name: summarize(taken) for name, taken in starts.items()}},
            [
                Comparison(label, SCRIPT, compare(seconds[SCRIPT], seconds[OURS]), 3),
                Comparison(label, LIMIT, compare(seconds[OURS], seconds[LIMIT]), 2.5, slower=True),
            ],
        )


def _run_batch(stack: Stack, table: Path, folder: Path, laps: Laps) -> Callable[[], None]:
    """Return a function that runs the steps of `ensemble batch` on a stack, each time with a new dataset."""
    datasets = (_link(table, folder / f"passengers-{number}.csv") for number in count())

    def run() -> None:
        path = next(datasets)
        begun = time.perf_counter()
        dataset = find_local(path)
        upload_dataset(dataset, stack.data, lambda _: None)
        uploaded = time.perf_counter()
        execution = start_run(stack, Request(dataset=stack.data.pointer(dataset.key).s3))
        followed = follow_run(stack, execution)
        summary = read_summary(stack, followed)
        if followed.result is None or summary is None or followed.mode != "new":
            raise RuntimeError(f"the run was {followed.mode}: {followed.error} {followed.cause}")
        ended = time.perf_counter()
        fetched = fetch_results(stack, summary, folder / "results")
        fetched_at = time.perf_counter()
        laps[UPLOAD].append(uploaded - begun)
        laps[RUN].append(ended - uploaded)
        laps[FETCH].append(fetched_at - ended)
        laps[OURS].append(fetched_at - begun)
        shutil.rmtree(folder / "ours", ignore_errors=True)
        fetched.rename(folder / "ours")

    return run


def _link(table: Path, other: Path) -> Path:
    other.hardlink_to(table)
    return other


def _run_script(name: str, script: str, table: Path, models: Path, output: Path, laps: Laps) -> Callable[[], None]:
    """Return a function that runs a script in a process of its own and stores the time that it reports."""

    def run() -> None:
        command = [sys.executable, str(PEERS / script), str(table), str(models), str(output)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 (our own)
        laps[name].append(float(done.stdout.split()[-1]))

    return run


def _read_values(folder: Path) -> NDArray[np.float64]:
    parts = pl.read_parquet(folder / "part-*.parquet", columns=["row", "value"])
    return parts.sort("row")["value"].to_numpy()


def format_table(result: Result) -> str:
    """Return the result as a table."""
    lines = [f"{result.rows:,} rows, {result.size:,} bytes; median and quartiles of {result.rounds} rounds", ""]
    for title, taken in (("", result.seconds), ("of ensemble batch", result.parts), ("start of", result.started)):
        lines += [title] if title else []
        lines += [f"{'  ' if title else ''}{name:28}{show(spread):>28} s" for name, spread in taken.items()]
    lines += ["", *map(format_comparison, result.claims)]
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = make_parser(__doc__, RESULT)
    add_rounds(parser, ROUNDS)
    parser.add_argument("--rows", type=read_count, default=ROWS, help=f"of the table (default: {ROWS:,})")
    arguments = parser.parse_args()
    report(measure(arguments.rows, arguments.rounds), arguments, format_table)


if __name__ == "__main__":
    main()
