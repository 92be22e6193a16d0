"""Hypothesis strategies for the laws of the aggregation: tasks, methods, and voters' outputs.

Hypothesis draws the structure, NumPy the numbers from a seed that hypothesis draws: far more examples in the same time.
Half the voters have outputs in coarse steps, so that 0, 1 and ties are frequent; some repeat another voter's output.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import numpy as np

from builders import released
from stepensemble.core.aggregation.pooling import Vote
from stepensemble.core.aggregation.row_predictions import ShadowOutput
from stepensemble.core.schema.outputs import Label, Probabilities, Value
from stepensemble.core.schema.policy import (
    CLASS_METHODS,
    WEIGHTED_METHODS,
    Aggregation,
    GeometricMean,
    HardVote,
    Max,
    Mean,
    Median,
    Min,
    SoftVote,
    Stacking,
    TrimmedMean,
    WeightedMean,
    WeightedVote,
)
from stepensemble.core.schema.task import BinaryTask, MulticlassTask, RegressionTask, Task, name_classes

SIMPLE: dict[str, Any] = {
    "mean": Mean,
    "weighted_mean": WeightedMean,
    "median": Median,
    "geometric_mean": GeometricMean,
    "min": Min,
    "max": Max,
    "soft_vote": SoftVote,
    "hard_vote": HardVote,
    "weighted_vote": WeightedVote,
}
METHODS = frozenset({*SIMPLE, "trimmed_mean", "stack"})

SEEDS = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@dataclass(frozen=True)
class Case:
    """A task, a method, and voters' outputs for some rows."""

    task: Task
    aggregation: Aggregation
    votes: tuple[Vote, ...]

    @property
    def rows(self) -> int:
        return len(self.votes[0].output)


@st.composite
def tasks(draw: st.DrawFn, *, regression: bool = True) -> Task:
    """Draw a binary task, one of three to five classes, both with thresholds or without, or a regression."""
    kind = draw(st.sampled_from(["binary", "multiclass", "regression"] if regression else ["binary", "multiclass"]))
    if kind == "regression":
        return RegressionTask()
    if kind == "binary":
        return BinaryTask(classes=("no", "yes"), threshold=draw(st.sampled_from([0.5, 0.25, 0.3, 0.75])))
    classes = tuple("abcde"[: draw(st.integers(3, 5))])
    generator = draw(SEEDS)
    thresholds = {name: float(generator.choice([0.1, 0.2, 0.25, 0.5, 0.9])) for name in classes}
    return MulticlassTask(classes=classes, thresholds=draw(st.sampled_from([None, thresholds])))


@st.composite
def cases(draw: st.DrawFn, *, methods: Collection[str] = METHODS, regression: bool = True) -> Case:
    """Draw a case with one to eight voters; under a method with weights, not all of them 0."""
    task = draw(tasks(regression=regression))
    possible = set(methods) - CLASS_METHODS if isinstance(task, RegressionTask) else set(methods)
    method = draw(st.sampled_from(sorted(possible)))
    count, rows, generator = draw(st.integers(1, 8)), draw(st.integers(1, 8)), draw(SEEDS)
    weights = generator.choice([0.0, 0.0, 0.1, 0.2, 0.3, 1.0, 7.0], count).tolist()
    if method in WEIGHTED_METHODS and not any(weights):
        weights[0] = 1.0
    outputs: list[Any] = []
    for _ in range(count):
        repeats = outputs and generator.random() < 0.3
        outputs.append(outputs[-1] if repeats else draw_output(generator, task, rows))
    ids = [f"voter-{number}" for number in range(count)]
    votes = tuple(Vote(*parts) for parts in zip(ids, weights, outputs, strict=True))
    return Case(task, draw(aggregations(method, task, ids)), votes)


@st.composite
def aggregations(draw: st.DrawFn, method: str, task: Task, ids: Collection[str]) -> Aggregation:
    """Draw a method's parameters."""
    tie: Any = draw(st.sampled_from(["first", "abstain", "highest_mean"]))
    if method == "trimmed_mean":
        return TrimmedMean(tie=tie, trim=draw(st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.4])))
    if method != "stack":
        simple: Aggregation = SIMPLE[method](tie=tie)
        return simple
    generator = draw(SEEDS)
    shape = (len(task.classes),) if isinstance(task, MulticlassTask) else ()
    levels = [-2.0, -1.0, 0.0, 0.5, 1.0, 3.0]
    coefficients: Any = {id_: generator.choice(levels, shape * 2).tolist() for id_ in ids}
    return Stacking(
        tie=tie, coefficients=coefficients, intercept=generator.choice(levels, shape).tolist(), missing="mean"
    )


def draw_output(generator: np.random.Generator, task: Task, rows: int) -> Any:
    """Return a possible output of one member, in canonical form."""
    coarse = generator.random() < 0.5
    if isinstance(task, RegressionTask):
        return generator.integers(-3, 4, rows).astype(float) if coarse else generator.normal(0, 1e3, rows)
    classes = len(name_classes(task))
    if coarse:
        levels = generator.choice([0.0, 0.0, 1e-300, 1.0, 2.0, 3.0], (rows, classes))
        levels[levels.sum(axis=1) == 0] = 1.0
        probabilities = levels / levels.sum(axis=1, keepdims=True)
    else:
        probabilities = generator.dirichlet(np.ones(classes), rows)
    second = probabilities[:, 1]
    return np.stack([1 - second, second], axis=1) if isinstance(task, BinaryTask) else probabilities


@st.composite
def shadows(draw: st.DrawFn, task: Task, rows: int) -> list[ShadowOutput]:
    """Draw one or two shadows and their outputs; for classes, some give only labels."""
    contracts: Any = [Value()]
    if not isinstance(task, RegressionTask):
        contracts = [Probabilities(), Label(), Label(one_hot=True)]
    drawn: list[ShadowOutput] = []
    for number in range(draw(st.integers(1, 2))):
        contract, generator = draw(st.sampled_from(contracts)), draw(SEEDS)
        output = draw_output(generator, task, rows)
        if isinstance(contract, Label):
            output = np.eye(output.shape[1])[output.argmax(axis=1)]
        weight = float(generator.choice([0.0, 1.0, 5.0]))
        shadow = released(f"shadow-{number}", contract, role="shadow", weight=weight)
        drawn.append(ShadowOutput(shadow, output))
    return drawn
