"""Infers a member's contract from its model: which columns its inputs take, and what its outputs mean.

Only unambiguous facts are inferred; for the others, the error asks the caller to declare them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stepensemble.core.aggregation.canonical import check_output
from stepensemble.core.aggregation.probability import row_sum
from stepensemble.core.arrays import Array
from stepensemble.core.errors import AdditionRefused, InputMismatch
from stepensemble.core.preprocessing.columns import Columns, bind_columns
from stepensemble.core.problems import Problem, Suspicion, enumerate_values, show, suggest
from stepensemble.core.schema.outputs import TOLERANCE, Label, Output, Probabilities, Probability, Value
from stepensemble.core.schema.task import BinaryTask, RegressionTask, Task, name_classes
from stepensemble.runtimes import Signature, Tensor

Inputs = Mapping[str, Sequence[str]]
"""Input name to the columns it takes; the only input of a model is named ""."""

SHAPE_REMEDY = (
    'give the feature the shape that the model takes: by "shape", or, for an image, by "size", "mode" and "layout", '
    'which is "HWC", "CHW", "HW" for a model without channels, or "flat"'
)
"""The remedy for a tensor or an image of another shape than the model takes."""

MIN_ROWS_TO_INFER = 8
"""Fewer rows than this may be in [0, 1] by chance."""


@dataclass(frozen=True, slots=True)
class GoldenColumns:
    """Golden rows by column, for a model whose inputs are not known yet.

    Attributes:
        inputs: which columns each input takes, if that is declared.
    """

    columns: Columns
    inputs: Inputs | None = None

    def bind(self, signature: Signature) -> dict[str, Array]:
        """Return the rows as a model takes them; see `choose_inputs`."""
        return bind_columns(self.columns, choose_inputs(signature, self.columns, self.inputs))


def choose_inputs(signature: Signature, columns: Columns, declared: Inputs | None = None) -> Inputs:
    """Return which columns each of a model's inputs takes.

    A single input takes all columns, if they fit. Otherwise each input takes the column of its name, or all columns of
    the feature of its name.

    Args:
        signature: the model's.
        columns: all columns of the features.
        declared: the caller's declaration; it is only checked.

    Raises:
        InputMismatch: the declaration does not fit, or nothing is declared and nothing can be inferred; with the option
            to give.
    """
    if declared is not None:
        _check_declared(signature, columns, declared)
        return declared
    inputs, every = signature.inputs, tuple(columns)
    if len(inputs) == 1 and _fits(inputs[0], columns, every):
        return {"": every}
    named = {tensor.name: _columns_named(tensor.name, every) for tensor in inputs}
    if all(named[tensor.name] and _fits(tensor, columns, named[tensor.name]) for tensor in inputs):
        return {"": named[inputs[0].name]} if len(inputs) == 1 else named
    if len(inputs) == len(every) == 1 and (shape := columns[every[0]].shape[1:]):
        raise InputMismatch(
            f"{_describe_inputs(signature)}, and the column {show(every[0])} has {' x '.join(map(str, shape))}; "
            f"{SHAPE_REMEDY}"
        )
    raise InputMismatch(
        f"{_describe_inputs(signature)}, and there are {len(every)} columns, {enumerate_values(every, most=24)}; "
        f"list those it takes, in its order: {_remedy(signature)}"
    )


def _check_declared(signature: Signature, columns: Columns, declared: Inputs) -> None:
    tensors = {tensor.name: tensor for tensor in signature.inputs}
    if len(tensors) == 1 and set(declared) == {""}:
        declared = {signature.inputs[0].name: declared[""]}
    for name in declared:
        if name not in tensors:
            what = f"no input {show(name)}" if name else "several inputs"
            raise InputMismatch(
                f"the model has {what}: {_describe_inputs(signature)}{suggest(name, tensors)}; list the columns "
                f"that each of them takes: {_remedy(signature)}"
            )
    for name, tensor in tensors.items():
        if name not in declared or not _fits(tensor, columns, declared[name]):
            given = f"gets {enumerate_values(declared[name], most=24)}" if name in declared else "gets no columns"
            raise InputMismatch(
                f"{_describe_inputs(signature)}, and {show(name)} {given}; list those it takes, in its order: "
                f"{_remedy(signature)}"
            )


def _fits(tensor: Tensor, columns: Columns, names: Sequence[str]) -> bool:
    """Return whether columns have the shape that an input takes; the runtime checks their dtypes."""
    shapes = [columns[name].shape[1:] for name in names]
    if len(names) > 1 and any(shapes):
        return False  # an input that takes a tensor takes no other column
    shape = shapes[0] or (len(names),)
    if tensor.shape is None or (tensor.shape == () and shape == (1,)):  # a scalar a row is one column
        return True
    return len(tensor.shape) == len(shape) and all(
        wanted in (None, size) for wanted, size in zip(tensor.shape, shape, strict=True)
    )


def _columns_named(name: str, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the column of a name, or all columns of the feature of that name, such as `Embarked=C` of `Embarked`."""
    return tuple(column for column in columns if column == name or column.partition("=")[0] == name)


def _describe_inputs(signature: Signature) -> str:
    return "the model takes " + " and ".join(
        f"{_describe_shape(tensor)} as {show(tensor.name)}" for tensor in signature.inputs
    )


def _describe_shape(tensor: Tensor) -> str:
    if tensor.shape is None:
        return "anything"
    if not tensor.shape:
        return "one number a row"
    sizes = " x ".join("any" if size is None else str(size) for size in tensor.shape)
    return f"{sizes} number{'' if sizes == '1' else 's'} a row"


def _remedy(signature: Signature) -> str:
    if len(signature.inputs) == 1:
        return "--columns NAME,NAME,…"
    return " ".join(f"--input {tensor.name}=NAME,…" for tensor in signature.inputs)


def choose_output(outputs: Mapping[str, Array], name: str | None, kind: str = "KIND") -> Array:
    """Return the output of that name, or the only one.

    Args:
        outputs: the model's outputs, by name.
        name: as an output contract has it.
        kind: its kind, for the remedy.

    Raises:
        AdditionRefused: there is no output of that name, or no name and several outputs.
    """
    if name is None and len(outputs) == 1:
        return next(iter(outputs.values()))
    if name is not None and name in outputs:
        return outputs[name]
    near = "" if name is None else suggest(name, outputs)
    what = "several outputs" if name is None else f"no output {show(name)}"
    example = f'{{"kind": "{kind}", "name": "{next(iter(outputs))}"}}'
    raise _unclear(f"the model has {what}: {enumerate_values(outputs)}{near}", f"choose one, such as '{example}'")


def infer_output(task: Task, values: Array) -> Output:
    """Return what an output means, if it can only mean one thing.

    Args:
        task: the ensemble's.
        values: the model's output for the golden rows.

    Raises:
        InvalidOutput: it is no output that an ensemble can take.
        AdditionRefused: it can mean several things, or nothing that fits the task.
    """
    values = check_output(values, len(values))
    width, classes = 1 if values.ndim == 1 else values.shape[1], name_classes(task)
    kind = "text" if values.dtype.kind == "U" else "numbers"
    if kind == "numbers" and width == 1 and isinstance(task, RegressionTask):
        return Value()
    if kind == "text" and width == 1 and np.isin(values, classes).all():
        return Label()
    if kind == "numbers" and classes and width in {1, len(classes)}:
        suspicion = _suspect_probability(task, values) if width == 1 else _suspect_probabilities(values)
        if suspicion is None:
            return Probability() if width == 1 else Probabilities()
        raise _unclear(*suspicion)
    if isinstance(task, RegressionTask):
        raise _unclear(f"the model gives {kind}, {width} a row", "use a model that gives one number a row")
    raise _unclear(
        f"the model gives {kind}, {width} a row, and the task has the classes {enumerate_values(classes)}",
        "use a model that gives a probability, a number for each class, or the name of a class",
    )


def _suspect_probability(task: Task, values: Array) -> Suspicion | None:
    low, high = values.min(), values.max()
    seen = f"the model gives one number a row, from {low:.6g} to {high:.6g}"
    if not isinstance(task, BinaryTask):
        return Suspicion(
            f"{seen}, and the task has more than two classes", 'give "label" if it is the index of a class'
        )
    if values.dtype.kind != "f" or np.isin(values, (0, 1)).all():
        return Suspicion(
            f"{seen}, and never between", 'give "label" if it is the index of a class, "probability" if it is that'
        )
    if low < 0 or high > 1:
        return Suspicion(
            f"{seen}, which is not a probability",
            'give "logit" if it is the log-odds, before a sigmoid, or "label" if it is the index of a class',
        )
    if len(values) < MIN_ROWS_TO_INFER:
        return Suspicion(f"{seen}, on only {len(values)} golden rows", 'give "probability", "logit" or "label"')
    return None


def _suspect_probabilities(values: Array) -> Suspicion | None:
    low, high, totals = values.min(), values.max(), row_sum(values.astype(np.float64))
    if low >= 0 and high <= 1 and np.abs(totals - 1).max() <= TOLERANCE:
        return None
    return Suspicion(
        f"the model gives {values.shape[1]} numbers a row, from {low:.6g} to {high:.6g}, with sums from "
        f"{totals.min():.6g} to {totals.max():.6g}, which are not probabilities",
        'give "logits" if the model has no softmax, or "probabilities" with a "tolerance" if they are rounded',
    )


def describe_inferred(task: Task, output: Output, values: Array) -> str:
    """Describe the inferred meaning of an output, with the reason."""
    rows = f"on {len(values)} rows"
    classes = name_classes(task)
    match output:
        case Probability():
            return f"the probability of {show(classes[1])}: one number a row, in [0, 1] {rows}"
        case Probabilities():
            order = enumerate_values(classes)
            return f"probabilities in the order {order}: numbers in [0, 1] with sums of 1 {rows}"
        case Label():
            return f"the name of a class {rows}"
        case _:
            return f"a value: one number a row {rows}"


def _unclear(reason: str, remedy: str) -> AdditionRefused:
    return AdditionRefused([Problem("--output", reason, remedy)])
