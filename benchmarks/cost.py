"""Compute the monthly cost of predictions on AWS, by their number: three ways of this project, and three alternatives.

Nothing here was run on AWS, and nothing is timed. State transitions, calls and requests are counted in the state
machines; seconds are those that `serving.py`, `in_process.py` and `batch_speed.py` measured on their machine; prices
are AWS's list prices (`prices.py`); the rest is assumed, and listed in `ASSUMED`.

    python benchmarks/cost.py            # prints a table and writes benchmarks/results/cost.json
    python benchmarks/cost.py --json     # the same, printed as JSON
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import batch_speed
import msgspec
from command import make_parser, report
from msgspec import Struct
from prices import (
    DYNAMODB_WRITE,
    ENDPOINT_HOUR,
    EXPRESS_REQUEST,
    EXPRESS_TIME,
    LAMBDA_REQUEST,
    LAMBDA_TIME,
    LOG_GIGABYTE,
    LOOKED_UP,
    S3_READ,
    SAGEMAKER_GIGABYTE,
    SERVERLESS_SECOND,
    STATE_TRANSITION,
    TRACE,
)
from scale import CORE_MEMORY, DEFAULT_CONCURRENCY, SCORE_MEMORY, STATE_SECONDS, compute_run, compute_shard, walk
from timing import Spread

from stepensemble.batch.report.cost import RUN_TRANSITIONS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RESULT = RESULTS / "cost.json"
STATE_MACHINE = ROOT / "statemachine" / "ensemble.asl.json"

EXPRESS, STANDARD, BATCH = "EXPRESS executions", "STANDARD executions", "daily batch"
ENDPOINT, SERVERLESS, LAMBDA = "always-on endpoint", "SageMaker Serverless", "one Lambda, all models"
VOLUMES = tuple(round(10 ** (2 + step / 4)) for step in range(29))
"""Predictions a month, from a hundred to a billion."""

MEMBERS = 4
CALL_MEMORY, EXPRESS_MEMORY, LAMBDA_MEMORY = 512, 64, 2048
"""MB: of Normalize and Aggregate, as in template.yaml; the least of an EXPRESS execution; of the one Lambda."""

BILLED_SECONDS = 0.1
"""An EXPRESS execution's duration is rounded up to these."""

RECORD_WRITES = 4
LOG_BYTES = PAYLOAD_BYTES = 1_000
DAYS, HOURS, CORES = 30, 730, 2
"""Assumptions, which `ASSUMED` describes."""

PRECISION = 1.001
"""Of a break-even point."""

Way = Callable[[float], Mapping[str, float]]
"""From a month's predictions to its dollars, by what is paid."""

Total = Callable[[float], float]
"""The same, added up."""

ASSUMED = (
    ("a prediction is one row in a request of its own, with four members; in the batch, a row of a daily run", ""),
    ("every environment is warm, nothing is retried, and no prediction needs review", ""),
    ("a vCPU of AWS is as fast as a core of this machine; a function has as much of one as its memory gives it", ""),
    ("a slot is billed for as long as its warm call was measured, with the runtime around it", ""),
    ("Normalize and Aggregate together are billed for as long as the whole execution was measured", ""),
    ("an EXPRESS execution lasts as long as it was measured, and for each state on its way", f"{STATE_SECONDS} s"),
    ("writes of 1 KB for a record, and for its line in the index by day", f"{RECORD_WRITES}"),
    ("reads of the pointer to the current release, an execution; it is kept for seconds, so there are fewer", "1"),
    ("traces of X-Ray, an execution", "1"),
    ("log of one call of a function", f"{LOG_BYTES / 1000:g} KB"),
    ("request to SageMaker for a prediction, and its response", f"{PAYLOAD_BYTES / 1000:g} KB each"),
    ("the other Lambda and both endpoints of SageMaker take as long as four `tf.function`s, one row, in process", ""),
    ("vCPUs of an ml.t2.medium; both are fully used before another one starts, CPU credits are ignored", f"{CORES}"),
    ("days and hours of a month", f"{DAYS}; {HOURS}"),
)


class Serving(Struct, frozen=True):
    """Of `serving.json`: milliseconds."""

    warm: Mapping[str, Spread]
    execution: Mapping[str, Spread]


class InProcess(Struct, frozen=True):
    """Of `in_process.json`: milliseconds, by rows."""

    milliseconds: Mapping[str, Mapping[str, Spread]]


class Measured(Struct, frozen=True):
    """The seconds that everything is computed from.

    Attributes:
        slot: a warm call of one, one row.
        execution: one of four members, one row, warm.
        models: four TensorFlow models in one process, one row.
        batch: rows a second, by step.
    """

    slot: float
    execution: float
    models: float
    batch: batch_speed.Result


class Counted(Struct, frozen=True):
    """Of an execution that goes well.

    Attributes:
        steps: states one after the other.
        transitions: states that are entered.
        calls: of Lambda.
    """

    steps: int
    transitions: int
    calls: int


class BreakEven(Struct, frozen=True):
    """Where `one` costs less than `other`, between the smallest and the largest volume.

    Attributes:
        less: at all volumes, at none, at those below `predictions` a month, or at those above.
        predictions: where they cost the same, if they do.
    """

    one: str
    other: str
    less: Literal["always", "never", "below", "above"]
    predictions: float | None = None


class Result(Struct, frozen=True):
    """What is written.

    Attributes:
        parts: dollars for a million predictions, by way and by what is paid; the batch's are of a million in
            30 runs, the endpoint's of the hours that it always runs.
        volumes: predictions a month.
        monthly: dollars a month at each of these.
        break_even: of each way of this project with each alternative.
    """

    looked_up: str
    seconds: Mapping[str, float]
    counted: Counted
    parts: Mapping[str, Mapping[str, float]]
    volumes: Sequence[int]
    monthly: Mapping[str, Sequence[float]]
    break_even: Sequence[BreakEven]


def read_measured(folder: Path = RESULTS) -> Measured:
    """Read the results of the other benchmarks."""
    serving = msgspec.json.decode((folder / "serving.json").read_bytes(), type=Serving)
    in_process = msgspec.json.decode((folder / "in_process.json").read_bytes(), type=InProcess)
    return Measured(
        slot=serving.warm["slot"].median / 1000,
        execution=serving.execution[f"{MEMBERS} members"].median / 1000,
        models=in_process.milliseconds["1 row"]["tf.function"].median / 1000,
        batch=msgspec.json.decode((folder / "batch_speed.json").read_bytes(), type=batch_speed.Result),
    )


def count_execution(members: int) -> Counted:
    """Count an execution's steps in the state machine, when nothing fails."""
    steps = transitions = calls = 0
    for state in walk(json.loads(STATE_MACHINE.read_text(encoding="utf-8"))):
        inner = list(walk(state["ItemProcessor"])) if state["Type"] == "Map" else []
        steps += 1 + len(inner)
        transitions += 1 + members * len(inner)
        calls += (state["Type"] == "Task") + members * sum(one["Type"] == "Task" for one in inner)
    return Counted(steps, transitions, calls)


def price_execution(measured: Measured, counted: Counted, *, express: bool) -> dict[str, float]:
    """Return the dollars of one execution, by what is paid."""
    seconds = measured.execution + counted.steps * STATE_SECONDS
    billed = math.ceil(seconds / BILLED_SECONDS) * BILLED_SECONDS * EXPRESS_MEMORY / 1024
    return {
        "state machine": EXPRESS_REQUEST.dollars + billed * EXPRESS_TIME.dollars
        if express
        else counted.transitions * STATE_TRANSITION.dollars,
        "requests": counted.calls * LAMBDA_REQUEST.dollars,
        "compute": _gb_seconds(measured.slot, SCORE_MEMORY) * MEMBERS * LAMBDA_TIME.dollars
        + _gb_seconds(measured.execution, CALL_MEMORY) * LAMBDA_TIME.dollars,
        "record and pointer": RECORD_WRITES * DYNAMODB_WRITE.dollars + S3_READ.dollars,
        "logs and traces": _logs(counted.calls) + TRACE.dollars,
    }


def price_lambda(measured: Measured) -> dict[str, float]:
    """Return the dollars of one call of a Lambda that holds all models, loaded once."""
    return {
        "requests": LAMBDA_REQUEST.dollars,
        "compute": _gb_seconds(measured.models, LAMBDA_MEMORY) * LAMBDA_TIME.dollars,
        "logs and traces": _logs(1),
    }


def price_serverless(measured: Measured) -> dict[str, float]:
    """Return the dollars of one request to SageMaker Serverless Inference with 2 GB."""
    return {"requests": _data(), "compute": measured.models * SERVERLESS_SECOND.dollars}


def price_endpoint(measured: Measured, predictions: float) -> dict[str, float]:
    """Return the dollars of a month with as many of the smallest instances as these requests need."""
    instances = max(1, math.ceil(predictions * measured.models / (CORES * HOURS * 3600)))
    return {"requests": predictions * _data(), "compute": instances * HOURS * ENDPOINT_HOUR.dollars}


def price_batch(measured: Measured, predictions: float) -> dict[str, float]:
    """Return the dollars of a month with a run a day; a shard that is begun counts as a whole one."""
    shard = compute_shard(measured.batch, MEMBERS)
    run = compute_run(measured.batch, shard, math.ceil(predictions / DAYS), DEFAULT_CONCURRENCY)
    transitions = (run.shards * shard.way.transitions + RUN_TRANSITIONS) * STATE_TRANSITION.dollars
    requests = (run.shards * shard.requests + 2) * LAMBDA_REQUEST.dollars  # and Plan and Summarize
    compute = run.dollars - run.shards * (shard.dollars - shard.gb_seconds * LAMBDA_TIME.dollars)
    objects = (
        run.dollars
        - compute
        - run.shards * (shard.way.transitions * STATE_TRANSITION.dollars + shard.requests * LAMBDA_REQUEST.dollars)
    )
    parts = {"state machine": transitions, "requests": requests, "compute": compute, "objects in S3": objects}
    logs = {"logs and traces": run.shards * _logs(shard.requests) + _logs(2)}
    return {name: DAYS * dollars for name, dollars in (parts | logs).items()}


def price_all(measured: Measured) -> Mapping[str, Way]:
    """Return every way to serve."""
    counted = count_execution(MEMBERS)
    return {
        EXPRESS: _by_prediction(price_execution(measured, counted, express=True)),
        STANDARD: _by_prediction(price_execution(measured, counted, express=False)),
        BATCH: lambda predictions: price_batch(measured, predictions),
        ENDPOINT: lambda predictions: price_endpoint(measured, predictions),
        SERVERLESS: _by_prediction(price_serverless(measured)),
        LAMBDA: _by_prediction(price_lambda(measured)),
    }


def find_break_even(one: Total, other: Total) -> tuple[Literal["always", "never", "below", "above"], float | None]:
    """Return where one way costs less than another, and the volume at which they cost the same.

    They cross at most once: the one that is cheaper below that volume is more expensive above it.
    """
    low, high = float(VOLUMES[0]), float(VOLUMES[-1])
    less = one(low) < other(low)
    if less == (one(high) < other(high)):
        return ("always" if less else "never"), None
    while high / low > PRECISION:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if (one(middle) < other(middle)) == less else (low, middle)
    return ("below" if less else "above"), float(f"{high:.2g}")


def compute_costs(measured: Measured) -> Result:
    """Compute all costs."""
    ways = price_all(measured)
    totals = {name: _total(way) for name, way in ways.items()}
    pairs = [(one, other) for one in (EXPRESS, STANDARD, BATCH) for other in (ENDPOINT, SERVERLESS, LAMBDA)]
    return Result(
        LOOKED_UP,
        {name: float(f"{getattr(measured, name):.4g}") for name in ("slot", "execution", "models")},
        count_execution(MEMBERS),
        {name: {part: _round(dollars) for part, dollars in way(1e6).items()} for name, way in ways.items()},
        VOLUMES,
        {name: [_round(total(volume)) for volume in VOLUMES] for name, total in totals.items()},
        [BreakEven(one, other, *find_break_even(totals[one], totals[other])) for one, other in pairs],
    )


def _gb_seconds(seconds: float, memory: int) -> float:
    """Return what Lambda charges for; with less memory than has one vCPU, seconds of this machine's core are more."""
    return seconds * max(1.0, CORE_MEMORY / memory) * memory / 1024


def _logs(calls: int) -> float:
    return calls * LOG_BYTES / 1e9 * LOG_GIGABYTE.dollars


def _data() -> float:
    return 2 * PAYLOAD_BYTES / 1e9 * SAGEMAKER_GIGABYTE.dollars


def _by_prediction(parts: Mapping[str, float]) -> Way:
    return lambda predictions: {name: dollars * predictions for name, dollars in parts.items()}


def _total(way: Way) -> Total:
    return lambda predictions: sum(way(predictions).values())


def _round(dollars: float) -> float:
    return float(f"{dollars:.4g}")


def format_table(result: Result) -> str:
    """Return the result as a table."""
    lines = ["dollars for a million predictions"]
    for name, parts in result.parts.items():
        label = ", ".join(f"{part} {dollars:,.4f}" for part, dollars in parts.items())
        lines.append(f"  {name:24}{sum(parts.values()):>12,.4f}   {label}")
    lines += ["", "costs less, by predictions a month"]
    lines += [f"  {one.one:24}{one.other:26}{describe_break_even(one)}" for one in result.break_even]
    return "\n".join(lines)


def describe_break_even(one: BreakEven) -> str:
    """Return the volumes at which the first costs less, in words."""
    return one.less if one.predictions is None else f"{one.less} {one.predictions:,.0f}"


def main() -> None:
    """Compute, write, print."""
    parser = make_parser(__doc__, RESULT)
    arguments = parser.parse_args()
    report(compute_costs(read_measured()), arguments, format_table)


if __name__ == "__main__":
    main()
