"""Answers in TensorFlow Serving's words: in the form in which the question was asked.

Of one named output the name is left out: rows are answered `{"predictions": [value, …]}`, columns `{"outputs": [value,
…]}`. Of several, rows are answered a list of objects, columns an object of lists.

The ensemble gives, by its task: binary `probability` (of the second class) and `label`; multiclass `probabilities` (in
the manifest's order) and `label`; regression `value`. Where there is no label, as the vote is tied, it is "". A member
gives its model's output as it comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stepensemble.core.answer import Prediction
from stepensemble.core.errors import InvalidPayload
from stepensemble.core.outputs import Array, Floats, canonical, check_output
from stepensemble.core.problems import Problem, show
from stepensemble.core.releases.release import ReleasedMember
from stepensemble.core.task import BinaryTask, RegressionTask, Task, name_task
from stepensemble.serving.questions import Form, Question
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
    return {"probabilities": [prediction.probabilities for prediction in predictions], "label": labels}


def list_member_outputs(member: ReleasedMember, question: Question, outputs: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """Return a member's output under its name.

    Args:
        member: whose it is.
        question: where this has bare numbers, so has the answer, if there is one a row.
        outputs: as the model gave them, `(rows, …)`.
    """
    array = np.asarray(outputs)
    if question.bare and array.size == len(array):
        outputs = array.reshape(len(array)).tolist()
    return {member.output.name or OUTPUT: outputs}


def member_canonical(task: Task, member: ReleasedMember, outputs: Sequence[Any]) -> Floats:
    """Return what a member's outputs mean: values, or probabilities in the task's order of classes.

    Raises:
        InvalidOutput: they are not what the manifest declares.
    """
    array: Array = np.asarray(outputs)
    return canonical(check_output(array, len(outputs)), task, member.output)


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


def classify_rows(classes: Sequence[str], probabilities: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return what `:classify` answers: for each row every class with its probability, in the task's order."""
    return {"results": [[list(pair) for pair in zip(classes, row, strict=True)] for row in probabilities]}


def regress_rows(values: Sequence[float | None]) -> dict[str, Any]:
    """Return what `:regress` answers: a number a row."""
    return {"results": list(values)}


def list_probabilities(predictions: Sequence[Prediction]) -> list[list[float]]:
    """Return each row's probabilities, in the task's order."""
    return [prediction.probabilities or [] for prediction in predictions]


def _has_value(task: Task) -> bool:
    return isinstance(task, RegressionTask | BinaryTask)
