"""How fast the rows of a shard go through each step of the daily batch: 16 MiB of CSV, the shipped members.

The data are the Titanic's passengers, repeated: short rows of eight columns, seven of which are features, and
small models. The functions spend most of their time in these steps; transfers to and from S3 are not measured here.
Polars has one thread, as it would have in a function with little more than one core.

    python benchmarks/batch_speed.py            # prints a table and writes benchmarks/results/batch_speed.json
    python benchmarks/batch_speed.py --json     # prints it as JSON instead
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from command import add_rounds, make_parser, report

os.environ["POLARS_MAX_THREADS"] = "1"  # read when polars is imported
import polars as pl
from msgspec import Struct
from timing import Machine, Spread, describe_machine, rate, run_in_turns

from stepensemble import Ensemble
from stepensemble.batch.documents import SHARD_BYTES
from stepensemble.batch.input.csv_records import find_records
from stepensemble.batch.input.frame_encoder import encode_frame
from stepensemble.core.aggregation.canonical import check_output, convert_output
from stepensemble.core.aggregation.output import MemberFailure
from stepensemble.core.aggregation.pooling import Vote
from stepensemble.core.aggregation.row_predictions import predict_rows
from stepensemble.core.arrays import Array
from stepensemble.core.preprocessing.columns import Columns, bind_columns
from stepensemble.core.releases.release import ReleasedMember
from stepensemble.runtimes import Model

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "batch_speed.json"
PASSENGERS = ROOT / "examples" / "titanic" / "passengers.csv"
ROUNDS = 9
MEMBERS = (4, 16)
"""Members of the ensembles whose predictions are timed; sixteen are the four shipped ones, four times."""

FIND, READ, ENCODE, SCORE = "find records", "read", "encode", "score by one member"


class Result(Struct, frozen=True):
    """The result.

    Attributes:
        size: bytes of the shard.
        rows_per_second: by step.
    """

    machine: Machine
    rounds: int
    rows: int
    size: int
    rows_per_second: Mapping[str, Spread]


def name_combination(members: int) -> str:
    """Return the name of the step that combines so many members."""
    return f"combine, {members} members"


def name_write(members: int) -> str:
    """Return the name of the step that writes Parquet, with a column for each member."""
    return f"write, {members} members"


def measure(rounds: int) -> Result:
    """Time every step in turns."""
    header, _, body = PASSENGERS.read_bytes().partition(b"\n")
    text = body * (SHARD_BYTES // len(body))
    csv = header + b"\n" + text
    ensemble = Ensemble.load(ROOT / "models" / "manifest.json")
    release = ensemble.release
    frame = pl.read_csv(csv, infer_schema=False)
    encoded = encode_frame(release.features, frame, typed=False)
    rows = frame.height
    calls = [_prepare_call(ensemble.models[member.id], member, encoded.columns) for member in release.members]
    outputs = [
        convert_output(check_output(call(), rows), release.task, member.output)
        for call, member in zip(calls, release.members, strict=True)
    ]
    tasks: dict[str, Callable[[], object]] = {
        FIND: lambda: find_records(text, ",", final=True),
        READ: lambda: pl.read_csv(csv, infer_schema=False),
        ENCODE: lambda: encode_frame(release.features, frame, typed=False),
        SCORE: lambda: [call() for call in calls],
    }
    for members in MEMBERS:
        votes = [Vote(f"member-{number}", 1.0, outputs[number % len(outputs)]) for number in range(members)]
        columns = {vote.id: vote.output[:, 1] for vote in votes}
        part = pl.DataFrame({"row": np.arange(rows), "prediction": outputs[0][:, 1], **columns})
        tasks[name_combination(members)] = partial(predict_rows, release.task, release.policy, votes)
        tasks[name_write(members)] = partial(_write, part)
    seconds = run_in_turns(tasks, rounds)
    seconds[SCORE] = [taken / len(calls) for taken in seconds[SCORE]]
    return Result(
        machine=describe_machine("ai-edge-litert", "numpy", "polars", "stepensemble"),
        rounds=rounds,
        rows=rows,
        size=len(text),
        rows_per_second={name: rate(taken, rows) for name, taken in seconds.items()},
    )


def _prepare_call(model: Model | MemberFailure, member: ReleasedMember, columns: Columns) -> Callable[[], Array]:
    if isinstance(model, MemberFailure):
        raise TypeError(f"{member.id} was not loaded: {model.message}")
    return lambda: model.predict(bind_columns(columns, member.inputs))


def _write(part: pl.DataFrame) -> None:
    part.write_parquet(io.BytesIO())


def format_table(result: Result) -> str:
    """Return the result as a table; quartiles in brackets."""
    lines = [f"{result.rows:,} rows in {result.size:,} bytes; median and quartiles of {result.rounds} rounds", ""]
    lines += [
        f"{name:22}{speed.median / 1e3:>10,.0f} thousand rows/s  [{speed.low / 1e3:,.0f}, {speed.high / 1e3:,.0f}]"
        for name, speed in result.rows_per_second.items()
    ]
    machine = result.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    lines += ["", f"{machine.processor}, {machine.cores} cores, {machine.system}, Python {machine.python}, {versions}"]
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = make_parser(__doc__, RESULT)
    add_rounds(parser, ROUNDS)
    arguments = parser.parse_args()
    report(measure(arguments.rounds), arguments, format_table)


if __name__ == "__main__":
    main()
