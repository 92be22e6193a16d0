"""How fast an ensemble predicts in process, one row and ten thousand, compared with code written without it.

`Ensemble.predict` takes a payload as a client sends it. It validates and encodes every value, invokes the four shipped
models, combines them, and measures how certain every prediction is. `Ensemble.predict_table` does so with a table. The
peers get encoded columns and return a mean. For ten thousand rows the table is compared with them, since a caller with
so many rows in process has a table.

    python benchmarks/in_process.py            # prints a table and writes benchmarks/results/in_process.json
    python benchmarks/in_process.py --json     # prints it as JSON instead

It needs TensorFlow and scikit-learn (`make tensorflow`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import polars as pl
from command import add_rounds, make_parser, report
from comparisons import format_comparison
from msgspec import Struct
from peers.in_process import keras_predict, tf_function, voting_classifier
from peers.keras_models import train_models
from timing import Comparison, Machine, Spread, compare, describe_machine, run_in_turns, show, summarize

from stepensemble import Ensemble
from stepensemble.core.preprocessing.encoding import normalize

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "in_process.json"
ROUNDS = 15
ROWS = (1, 10_000)
OURS, TABLE = "Ensemble.predict", "Ensemble.predict_table"
KERAS, FUNCTION, VOTING = "keras.Model.predict", "tf.function", "VotingClassifier"
GOALS: Mapping[int, Mapping[str, float]] = {
    1: {KERAS: 1000, FUNCTION: 20, VOTING: 10},
    10_000: {KERAS: 1, FUNCTION: 1, VOTING: 1},
}
CLAIMED = {1: OURS, 10_000: TABLE}
"""The method that the goals apply to."""

REPEATS: Mapping[int, Mapping[str, int]] = {1: {OURS: 200, KERAS: 5, FUNCTION: 200, VOTING: 200}, 10_000: {}}
"""Calls in a turn, if more than one: so a turn is long compared with the clock's resolution and with cold caches."""


class Result(Struct, frozen=True):
    """The result; `milliseconds` of a call, by rows and by method."""

    machine: Machine
    rounds: int
    milliseconds: Mapping[str, Mapping[str, Spread]]
    claims: list[Comparison]


def measure(rounds: int) -> Result:
    """Time all of them in turns."""
    ensemble = Ensemble.load(ROOT / "models" / "manifest.json")
    trained = train_models()
    passengers, survived = _read_passengers()
    models = {name: model for name, (model, _) in trained.items()}
    encoded = normalize(ensemble.release.features, passengers)
    matrix = np.stack(list(encoded.values()), axis=1).astype(np.float32)
    voting = voting_classifier(matrix, survived)
    keras, function = keras_predict(models), tf_function(models)

    milliseconds: dict[str, Mapping[str, Spread]] = {}
    claims = []
    for rows in ROWS:
        some = (passengers * (rows // len(passengers) + 1))[:rows]
        columns = normalize(ensemble.release.features, some)
        batches = {
            name: np.stack([columns[column] for column in names], axis=1).astype(np.float32)
            for name, (_, names) in trained.items()
        }
        whole = {"all": np.stack(list(columns.values()), axis=1).astype(np.float32)}
        payload, table = {"instances": some}, pl.DataFrame(some, infer_schema_length=None)
        _check(ensemble, payload, ensemble.predict_table(table)["value"].to_numpy(), keras(batches), function(batches))
        tasks: dict[str, Callable[[], object]] = {
            OURS: partial(ensemble.predict, payload),
            TABLE: partial(ensemble.predict_table, table),
            KERAS: partial(keras, batches),
            FUNCTION: partial(function, batches),
            VOTING: partial(voting, whole),
        }
        if CLAIMED[rows] != TABLE:
            del tasks[TABLE]
        calls = {name: REPEATS[rows].get(name, 1) for name in tasks}
        seconds = run_in_turns({name: _repeat(task, calls[name]) for name, task in tasks.items()}, rounds)
        seconds = {name: [one / calls[name] for one in taken] for name, taken in seconds.items()}
        label = f"{rows:,} row{'s' if rows > 1 else ''}"
        milliseconds[label] = {name: summarize([one * 1000 for one in taken]) for name, taken in seconds.items()}
        claims += [
            Comparison(
                f"{label}, four members, in process", other, compare(seconds[other], seconds[CLAIMED[rows]]), goal
            )
            for other, goal in GOALS[rows].items()
        ]
    return Result(
        describe_machine("ai-edge-litert", "keras", "numpy", "polars", "scikit-learn", "stepensemble", "tensorflow"),
        rounds,
        milliseconds,
        claims,
    )


def _read_passengers() -> tuple[list[dict[str, Any]], np.ndarray]:
    from passengers import read_passengers  # on the path once the training of the shipped models is imported

    read = read_passengers()
    return [dict(row) for row in read.rows], np.asarray(read.survived)


def _repeat(task: Callable[[], object], times: int) -> Callable[[], object]:
    def repeated() -> None:
        for _ in range(times):
            task()

    return repeated


def _check(ensemble: Ensemble, payload: Mapping[str, Any], *others: np.ndarray) -> None:
    """Check that all ways return the same predictions, since otherwise their times cannot be compared."""
    ours = [prediction["value"] for prediction in ensemble.predict(payload)["predictions"]]
    for other in others:
        np.testing.assert_allclose(ours, other, atol=1e-4)


def format_table(result: Result) -> str:
    """Return the result as a table."""
    lines = [f"median and quartiles of {result.rounds} rounds", ""]
    for rows, taken in result.milliseconds.items():
        lines += [rows] + [f"  {name:22}{show(spread, 3):>28} ms" for name, spread in taken.items()]
    lines += ["", *map(format_comparison, result.claims)]
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = make_parser(__doc__, RESULT)
    add_rounds(parser, ROUNDS)
    arguments = parser.parse_args()
    report(measure(arguments.rounds), arguments, format_table)


if __name__ == "__main__":
    main()
