"""Measure how the time grows when rows, members or shards are doubled several times: at most linearly.

    rows        in process, as a table, four members; and as a batch on the local stack, shards of the default size
    members     in process, the largest table; and as an execution on the local stack, one row
    shards      as a batch on the local stack, the same rows every time

The result is the slope of seconds over count, both as logarithms: 1 if a doubling doubles the time, less if a part of
it is constant. Times on the local stack are those of its emulator and of all functions on this machine's cores.

    python benchmarks/growth.py            # prints a table and writes benchmarks/results/growth.json
    python benchmarks/growth.py --json     # prints it as JSON instead
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import date, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from command import add_rounds, make_parser, read_count, report
from msgspec import Struct
from stacks import copy_project, start_stack, write_members, write_passengers
from timing import Comparison, Machine, Seconds, Spread, describe_machine, run_in_turns, show, summarize

from stepensemble import Ensemble
from stepensemble.batch.documents import SHARD_BYTES, Options, Request
from stepensemble.cli.batch_runs import start_run
from stepensemble.cli.local_datasets import find_local, upload_dataset
from stepensemble.cli.stacks import Stack

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "growth.json"
ROWS, MEMBERS, SHARDS, ROUNDS = 500_000, 16, 16, 3
DOUBLINGS = 5
"""How often each count is doubled to reach its largest value; fewer times if it would start below 1."""

CUT = 4
"""The table that is split into shards has the largest table's rows, divided by this."""

RECORD_BYTES = 64
"""Bytes added to the shard size, since a shard ends after a whole record; otherwise there is one shard too many."""

POLL_SECONDS = 0.02

Task = Callable[[], object]


class Series(Struct, frozen=True):
    """Seconds by count, and their slope, both as logarithms."""

    counts: Sequence[int]
    seconds: Sequence[Spread]
    slope: Spread


class Result(Struct, frozen=True):
    """The result: a series for each quantity that is doubled, by its name."""

    machine: Machine
    rounds: int
    series: Mapping[str, Series]
    claims: list[Comparison]


def double_up_to(most: int, doublings: int) -> list[int]:
    """Return counts, each twice the one before, the last of them `most`."""
    return [most >> times for times in range(doublings, -1, -1) if most >> times]


def measure(rows: int, members: int, shards: int, doublings: int, rounds: int) -> Result:
    """Time everything in turns."""
    row_counts, member_counts, shard_counts = (double_up_to(most, doublings) for most in (rows, members, shards))
    with TemporaryDirectory() as scratch, ExitStack() as exits:
        folder = Path(scratch)
        stacks = {
            number: exits.enter_context(start_stack(folder / f"{number}-members", members=number))[1]
            for number in member_counts
        }
        four = stacks[min(stacks, key=lambda number: abs(number - 4))]
        tables = {number: _upload(four, folder / f"{number}.csv", number)[0] for number in row_counts}
        cut, size = _upload(four, folder / "cut.csv", rows // CUT)
        dates = (f"{date(2026, 1, 1) + timedelta(days=day)}" for day in count())
        frames = {number: pl.read_csv(folder / f"{number}.csv") for number in row_counts}
        ensemble = Ensemble.load(ROOT / "models" / "manifest.json")
        tasks: Mapping[str, Mapping[int, Task]] = {
            "rows, in process": {number: partial(ensemble.predict_table, frame) for number, frame in frames.items()},
            "rows, batch": {number: partial(_run, four, dates, table, SHARD_BYTES) for number, table in tables.items()},
            "members, in process": {
                number: partial(_load(folder / f"{number}-loaded", number).predict_table, frames[rows])
                for number in member_counts
            },
            "members, execution": {number: partial(_execute, stack) for number, stack in stacks.items()},
            "shards, batch": {
                number: partial(_run, four, dates, cut, size // number + RECORD_BYTES) for number in shard_counts
            },
        }
        every = {f"{name} {number}": task for name, by in tasks.items() for number, task in by.items()}
        seconds = run_in_turns(every, rounds)
    series = {name: _describe({number: seconds[f"{name} {number}"] for number in by}) for name, by in tasks.items()}
    return Result(
        describe_machine("ai-edge-litert", "moto", "numpy", "polars", "stepensemble"),
        rounds,
        series,
        [Comparison(f"{name}, doubled", "linear growth", one.slope, 1, slower=True) for name, one in series.items()],
    )


def fit_slope(counts: Sequence[int], seconds: Seconds) -> float:
    """Return the slope of the line through the logarithms: the exponent of the growth."""
    return float(np.polyfit(np.log(counts), np.log(seconds), 1)[0])


def _describe(seconds: Mapping[int, Seconds]) -> Series:
    turns = zip(*seconds.values(), strict=True)
    return Series(
        list(seconds),
        [summarize(taken) for taken in seconds.values()],
        summarize([fit_slope(list(seconds), turn) for turn in turns]),
    )


def _load(folder: Path, members: int) -> Ensemble:
    copy_project(folder)
    return Ensemble.load(write_members(folder, members))


def _upload(stack: Stack, path: Path, rows: int) -> tuple[str, int]:
    """Upload a table of so many rows to the data bucket; return its URI and its bytes."""
    write_passengers(path, rows)
    dataset = find_local(path)
    upload_dataset(dataset, stack.data, lambda _: None)
    return stack.data.pointer(dataset.key).s3, dataset.size


def _run(stack: Stack, dates: Iterator[str], dataset: str, shard_size: int) -> None:
    """Run a batch of an uploaded dataset for the next date, and wait for its end."""
    request = Request(dataset=dataset, date=next(dates), options=Options(shard_size=shard_size))
    execution = start_run(stack, request)
    while (described := stack.step_functions.describe_execution(executionArn=execution))["status"] == "RUNNING":
        time.sleep(POLL_SECONDS)
    if described["status"] != "SUCCEEDED":
        raise RuntimeError(described.get("cause", described["status"]))


def _execute(stack: Stack) -> None:
    ended = stack.step_functions.start_sync_execution(
        stateMachineArn=stack.outputs["ExpressStateMachineArn"], input=(ROOT / "events" / "passenger.json").read_text()
    )
    if ended["status"] != "SUCCEEDED":
        raise RuntimeError(ended.get("cause", ended["status"]))


def format_table(result: Result) -> str:
    """Return the result as a table."""
    lines = [f"seconds, median of {result.rounds} rounds"]
    for name, series in result.series.items():
        lines += ["", f"{name}: slope {show(series.slope)}"]
        lines += [
            f"{number:>10,} {spread.median:>10.3f}"
            for number, spread in zip(series.counts, series.seconds, strict=True)
        ]
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = make_parser(__doc__, RESULT)
    add_rounds(parser, ROUNDS)
    parser.add_argument("--rows", type=read_count, default=ROWS, help=f"the most of them (default: {ROWS:,})")
    parser.add_argument("--members", type=read_count, default=MEMBERS, help=f"the most of them (default: {MEMBERS})")
    parser.add_argument("--shards", type=read_count, default=SHARDS, help=f"the most of them (default: {SHARDS})")
    parser.add_argument("--doublings", type=read_count, default=DOUBLINGS, help=f"up to there (default: {DOUBLINGS})")
    arguments = parser.parse_args()
    report(
        measure(arguments.rows, arguments.members, arguments.shards, arguments.doublings, arguments.rounds),
        arguments,
        format_table,
    )


if __name__ == "__main__":
    main()
