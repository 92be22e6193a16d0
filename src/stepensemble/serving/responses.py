"""Answers in TensorFlow Serving's words: in the form in which the question was asked.

Of one named output the name is left out: rows are answered `{"predictions": [value, …]}`, columns `{"outputs": [value,
…]}`. Of several, rows are answered a list of objects, columns an object of lists.

The ensemble gives, by its task: binary `probability` (of the second class) and `label`; multiclass `probabilities` (in
the manifest's order) and `label`; regression `value`. Where there is no label, as the vote is tied, it is "". A member
gives its model's output as it comes. Of a row without an answer the numbers are null; where no row has one there is an
error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stepensemble.core.aggregation.canonical import find_usable, read_entries, read_output, shape_output
from stepensemble.core.aggregation.output import Prediction
from stepensemble.core.errors import InvalidOutput, InvalidPayload
from stepensemble.core.problems import Problem, show
from stepensemble.core.releases.release import ReleasedMember
from stepensemble.core.schema.task import BinaryTask, RegressionTask, Task, name_task
from stepensemble.serving.requests import Form, Question
from stepensemble.serving.servables import OUTPUT

Outputs = Mapping[str, Sequence[Any]]
"""Output name to its values, one a row."""


def shape_outputs(form: Form, outputs: Outputs) -> dict[str, Any]:
    """Return outputs as `:predict` answers them.

    Args:
        form: in which it was asked.
        outputs: at least one, all with as many rows.
    """
    single = next(iter(outputs.values())) if len(outputs) == 1 else None
    if form == "columns":
        return {"outputs": dict(outputs) if single is None else single}
    if single is not None:
        return {"predictions": single}
    return {"predictions": [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]}


def list_outputs(task: Task, predictions: Sequence[Prediction]) -> dict[str, list[Any]]:
    """Return the ensemble's outputs by name."""
    if isinstance(task, RegressionTask):
        return {"value": [prediction.value for prediction in predictions]}
    labels = [prediction.label or "" for prediction in predictions]
    if isinstance(task, BinaryTask):
        return {"probability": [prediction.value for prediction in predictions], "label": labels}
    return {"probabilities": [prediction.probabilities or None for prediction in predictions], "label": labels}


def list_member_outputs(member: ReleasedMember, question: Question, outputs: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """Return a member's output under its name.

    Args:
        member: whose it is.
        question: where this has bare numbers, so has the answer, if there is one a row.
        outputs: as the model gave them, `(rows, …)`; null is what is not finite.

    Raises:
        InvalidOutput: no row has a finite output.
    """
    if outputs and all(_is_void(entry) for entry in outputs):
        raise InvalidOutput(f"the output is not finite in any of {len(outputs)} rows")
    array = np.asarray(outputs)
    if question.bare and array.size == len(array):
        outputs = array.reshape(len(array)).tolist()
    return {member.output.name or OUTPUT: outputs}


def _is_void(entry: Any) -> bool:
    return any(map(_is_void, entry)) if isinstance(entry, list) else entry is None


def list_meanings(task: Task, member: ReleasedMember, outputs: Sequence[Any]) -> list[Any]:
    """Return what a member's outputs mean, an entry a row: a value, or probabilities in the task's order of classes.

    A row whose output is not what the manifest declares has None.

    Raises:
        InvalidOutput: the output as a whole is not, or that of no row is.
    """
    numbers, faults = read_output(shape_output(read_entries(outputs), len(outputs)), task, member.output)
    if faults is None:
        return list(numbers.tolist())
    if faults.count == faults.rows:
        raise InvalidOutput(faults.describe())
    usable = find_usable(numbers).tolist()
    return [entry if there else None for entry, there in zip(numbers.tolist(), usable, strict=True)]


def refuse_method(task: Task, method: str) -> None:
    """Make sure that a task can be asked by a method, `classify` or `regress`.

    A regression has no classes, and several classes are no number; of two classes the number is the probability of the
    second.

    Raises:
        InvalidPayload: it cannot.
    """
    allowed = not isinstance(task, RegressionTask) if method == "classify" else _has_value(task)
    if not allowed:
        other = "classify" if method == "regress" else "regress"
        message = f"{show(method)} does not answer a {name_task(task)} task"
        raise InvalidPayload([Problem("$", message, f"use :{other} or :predict")])


def classify_rows(classes: Sequence[str], probabilities: Sequence[Sequence[float] | None]) -> dict[str, Any]:
    """Return what `:classify` answers: for each row every class with its probability, in the task's order.

    A row without an answer has none.
    """
    return {
        "results": [[list(pair) for pair in zip(classes, row, strict=True)] if row else [] for row in probabilities]
    }


def regress_rows(values: Sequence[float | None]) -> dict[str, Any]:
    """Return what `:regress` answers: a number a row, null where there is no answer."""
    return {"results": list(values)}


def list_probabilities(predictions: Sequence[Prediction]) -> list[list[float] | None]:
    """Return each row's probabilities, in the task's order; None of a row without an answer."""
    return [prediction.probabilities or None for prediction in predictions]


def _has_value(task: Task) -> bool:
    return isinstance(task, RegressionTask | BinaryTask)
