"""How fast the members' outputs become predictions: 10,000 rows, 8 members, 10 classes, every method.

Each method has two times: pooling alone, and the whole prediction with labels, ties and uncertainty. Both are compared
with two simple computations on the same arrays: NumPy's mean; and the weighted average and argmax by which
scikit-learn's `VotingClassifier(voting="soft")` predicts.

    python benchmarks/aggregation.py            # prints a table and writes benchmarks/results/aggregation.json
    python benchmarks/aggregation.py --json     # prints it as JSON instead
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from command import add_rounds, make_parser, report
from msgspec import Struct, field
from timing import Machine, Spread, compare, describe_machine, rate, run_in_turns

from stepensemble.core.aggregation.pooling import Vote, pool
from stepensemble.core.aggregation.probability import softmax
from stepensemble.core.aggregation.row_predictions import predict_rows
from stepensemble.core.schema.policy import (
    Aggregation,
    GeometricMean,
    HardVote,
    Max,
    Mean,
    Median,
    Min,
    Policy,
    SoftVote,
    Stacking,
    TrimmedMean,
    WeightedMean,
    WeightedVote,
    name_method,
)
from stepensemble.core.schema.task import MulticlassTask

RESULT = Path(__file__).parent / "results" / "aggregation.json"

ROWS, MEMBERS, CLASSES = 10_000, 8, 10
ROUNDS = 15
SEED = 1912
MEAN, VOTE = "numpy mean", "average and argmax"


class Speed(Struct, frozen=True):
    """Rows a second of one computation, and its time as a multiple of each of the two references."""

    rows_per_second: Spread
    times_mean: Spread
    times_vote: Spread


class MethodSpeed(Struct, frozen=True):
    """Speeds of one method: pooling alone, and the whole prediction."""

    pooling: Speed
    prediction: Speed = field(name="answer")


class Result(Struct, frozen=True):
    """The result; `unanimous` is the share of the rows for which all members have the same label."""

    machine: Machine
    rows: int
    members: int
    classes: int
    rounds: int
    unanimous: float
    references: Mapping[str, Spread]
    methods: Mapping[str, MethodSpeed]


def draw_votes() -> list[Vote]:
    """Draw the members' outputs: the same logits for all, and noise for each."""
    generator = np.random.default_rng(SEED)
    common = generator.normal(0, 3, (ROWS, CLASSES))
    return [
        Vote(f"member-{number}", 1.0 + number, softmax(common + generator.normal(0, 0.7, (ROWS, CLASSES))))
        for number in range(MEMBERS)
    ]


def list_methods(votes: list[Vote]) -> list[Aggregation]:
    """Return every method, with parameters where it has some."""
    matrix = np.random.default_rng(SEED).normal(0, 1, (CLASSES, CLASSES)) + 3 * np.eye(CLASSES)
    coefficient = tuple(tuple(row) for row in matrix.tolist())
    return [
        Mean(),
        WeightedMean(),
        SoftVote(),
        Median(),
        TrimmedMean(trim=0.2),
        GeometricMean(),
        Min(),
        Max(),
        HardVote(),
        WeightedVote(),
        Stacking(coefficients={vote.id: coefficient for vote in votes}, intercept=(0.0,) * CLASSES, missing="mean"),
    ]


def measure(rounds: int) -> Result:
    """Time every method and both references in turns."""
    votes = draw_votes()
    task = MulticlassTask(classes=tuple(f"class-{number}" for number in range(CLASSES)))
    outputs = [vote.output for vote in votes]
    weights = [vote.weight for vote in votes]
    methods = {name_method(method): method for method in list_methods(votes)}
    tasks: dict[str, Callable[[], object]] = {
        MEAN: lambda: np.mean(outputs, axis=0),
        VOTE: lambda: np.average(np.asarray(outputs), axis=0, weights=weights).argmax(axis=1),
    }
    for name, method in methods.items():
        tasks[f"{name} pooling"] = _pooling(task, method, votes)
        tasks[f"{name} prediction"] = _predicting(task, method, votes)
    seconds = run_in_turns(tasks, rounds)

    def speed(name: str) -> Speed:
        taken = seconds[name]
        return Speed(rate(taken, ROWS), compare(taken, seconds[MEAN]), compare(taken, seconds[VOTE]))

    labels: npt.NDArray[np.int64] = np.stack([output.argmax(axis=1) for output in outputs])
    return Result(
        machine=describe_machine("numpy", "stepensemble"),
        rows=ROWS,
        members=MEMBERS,
        classes=CLASSES,
        rounds=rounds,
        unanimous=round(float(np.mean((labels == labels[0]).all(axis=0))), 3),
        references={name: rate(seconds[name], ROWS) for name in (MEAN, VOTE)},
        methods={name: MethodSpeed(speed(f"{name} pooling"), speed(f"{name} prediction")) for name in methods},
    )


def _pooling(task: MulticlassTask, method: Aggregation, votes: list[Vote]) -> Callable[[], object]:
    return lambda: pool(task, method, votes)


def _predicting(task: MulticlassTask, method: Aggregation, votes: list[Vote]) -> Callable[[], object]:
    policy = Policy(method)
    return lambda: predict_rows(task, policy, votes)


def format_table(result: Result) -> str:
    """Return the result as a table: thousands of rows a second, and times as long; quartiles in brackets."""
    lines = [
        f"{result.rows:,} rows, {result.members} members, {result.classes} classes; all members agree on "
        f"{result.unanimous:.0%} of the rows; median and quartiles of {result.rounds} rounds",
        "",
        f"{'':20}{'thousand rows/s':>24}{'x numpy mean':>22}{'x average+argmax':>22}",
    ]
    lines += [f"{name:20}{_cell(spread, 1e-3):>24}" for name, spread in result.references.items()]
    for part in ("pooling", "prediction"):
        lines += ["", "pooling alone" if part == "pooling" else "the whole prediction"]
        for name, both in result.methods.items():
            speed: Speed = getattr(both, part)
            lines.append(
                f"  {name:18}{_cell(speed.rows_per_second, 1e-3):>24}"
                f"{_cell(speed.times_mean):>22}{_cell(speed.times_vote):>22}"
            )
    machine = result.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    lines += ["", f"{machine.processor}, {machine.cores} cores, {machine.system}, Python {machine.python}, {versions}"]
    return "\n".join(lines)


def _cell(spread: Spread, unit: float = 1.0) -> str:
    median, low, high = (
        f"{number * unit:,.{1 if number * unit < 100 else 0}f}" for number in msgspec.structs.astuple(spread)
    )
    return f"{median} [{low}, {high}]"


def main() -> None:
    """Measure, write, print."""
    parser = make_parser(__doc__, RESULT)
    add_rounds(parser, ROUNDS)
    arguments = parser.parse_args()
    report(measure(arguments.rounds), arguments, format_table)


if __name__ == "__main__":
    main()
