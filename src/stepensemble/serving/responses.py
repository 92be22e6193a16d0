"""Writes responses of TensorFlow Serving's REST protocol, in the form of the request.

The name of a single output is left out: a request by rows gets `{"predictions": [value, …]}`, one by columns
`{"outputs": [value, …]}`. Several outputs are a list of objects, or an object of lists.

The ensemble's outputs depend on its task: binary `probability` (of the second class) and `label`; multiclass
`probabilities` (in the manifest's order) and `label`; regression `value`. A tied vote has the label "". A member's
output is its model's, unchanged. The numbers of a row without a prediction are null; if no row has one, the response is
an error.
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
from stepensemble.serving.requests import Form, PredictRequest
from stepensemble.serving.servables import OUTPUT

Outputs = Mapping[str, Sequence[Any]]
"""Output name to its values, one for each row."""


def shape_response(form: Form, outputs: Outputs) -> dict[str, Any]:
    """Return the response of `:predict`.

    Args:
        form: of the request.
        outputs: at least one, all with the same number of rows.
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


def list_member_outputs(
    member: ReleasedMember, request: PredictRequest, outputs: Sequence[Any]
) -> dict[str, Sequence[Any]]:
    """Return a member's output under its name.

    Args:
        member: that predicted.
        request: if it has bare numbers, so has the response, where each row has one.
        outputs: of the model, `(rows, …)`; null replaces what is not finite.

    Raises:
        InvalidOutput: no row has a finite output.
    """
    if outputs and all(_is_missing(entry) for entry in outputs):
        raise InvalidOutput(f"the output is not finite in any of {len(outputs)} rows")
    array = np.asarray(outputs)
    if request.bare and array.size == len(array):
        outputs = array.reshape(len(array)).tolist()
    return {member.output.name or OUTPUT: outputs}


def _is_missing(entry: Any) -> bool:
    return any(map(_is_missing, entry)) if isinstance(entry, list) else entry is None


def list_canonical_outputs(task: Task, member: ReleasedMember, outputs: Sequence[Any]) -> list[Any]:
    """Return a member's canonical outputs, one for each row: a value, or probabilities in the task's order of classes.

    It is None for a row whose output is not what the manifest declares.

    Raises:
        InvalidOutput: the output as a whole has the wrong form, or that of every row is wrong.
    """
    numbers, faults = read_output(shape_output(read_entries(outputs), len(outputs)), task, member.output)
    if faults is None:
        return list(numbers.tolist())
    if faults.count == faults.rows:
        raise InvalidOutput(faults.describe())
    usable = find_usable(numbers).tolist()
    return [entry if there else None for entry, there in zip(numbers.tolist(), usable, strict=True)]


def check_method(task: Task, method: str) -> None:
    """Check that a task supports a method, `classify` or `regress`.

    A regression has no classes, and several classes have no number; of two classes the number is the probability of
    the second.

    Raises:
        InvalidPayload: it does not.
    """
    allowed = not isinstance(task, RegressionTask) if method == "classify" else _has_number(task)
    if not allowed:
        other = "classify" if method == "regress" else "regress"
        message = f"{show(method)} does not fit a {name_task(task)} task"
        raise InvalidPayload([Problem("$", message, f"use :{other} or :predict")])


def classify_rows(classes: Sequence[str], probabilities: Sequence[Sequence[float] | None]) -> dict[str, Any]:
    """Return the response of `:classify`: for each row every class with its probability, in the task's order.

    The list of a row without a prediction is empty.
    """
    return {
        "results": [[list(pair) for pair in zip(classes, row, strict=True)] if row else [] for row in probabilities]
    }


def regress_rows(values: Sequence[float | None]) -> dict[str, Any]:
    """Return the response of `:regress`: a number for each row, null without a prediction."""
    return {"results": list(values)}


def list_probabilities(predictions: Sequence[Prediction]) -> list[list[float] | None]:
    """Return each row's probabilities, in the task's order; None for a row without a prediction."""
    return [prediction.probabilities or None for prediction in predictions]


def _has_number(task: Task) -> bool:
    return isinstance(task, RegressionTask | BinaryTask)
