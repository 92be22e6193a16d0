"""What a model tells of itself, so that nobody has to write it: which columns its inputs take, what its numbers mean.

Nothing is taken for granted that could be something else as well; what cannot be told is asked for.
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
from stepensemble.core.problems import Problem, enumerate_values, show, suggest
from stepensemble.core.schema.outputs import TOLERANCE, Label, Output, Probabilities, Probability, Value
from stepensemble.core.schema.task import BinaryTask, RegressionTask, Task, name_classes
from stepensemble.runtimes import Signature, Tensor

Inputs = Mapping[str, Sequence[str]]
"""Input name to the columns it takes; the input of a model that has one is named ""."""

SHAPE_REMEDY = (
    'give the feature the shape that the model takes: by "shape", or, of a picture, by "size", "mode" and "layout", '
    'which is "HWC", "CHW", "HW" for a model without channels, or "flat"'
)
"""What to do about a tensor or a picture of another shape than a model takes."""

TELLING_ROWS = 8
"""Fewer rows in [0, 1] may be there by chance."""


@dataclass(frozen=True, slots=True)
class GoldenColumns:
    """Golden rows by column, for a model whose inputs are not known yet.

    Attributes:
        inputs: which columns each input takes, where it is said.
    """

    columns: Columns
    inputs: Inputs | None = None

    def bind(self, signature: Signature) -> dict[str, Array]:
        """Return the rows as a model takes them; see `choose_inputs`."""
        return bind_columns(self.columns, choose_inputs(signature, self.columns, self.inputs))


def choose_inputs(signature: Signature, columns: Columns, said: Inputs | None = None) -> Inputs:
    """Tell which columns each of a model's inputs takes.

    An only input takes all columns, if they fit; else each input takes the column of its name, or all columns of the
    feature of its name.

    Args:
        signature: the model's.
        columns: all there are.
        said: what was said of it; it is only checked.

    Raises:
        InputMismatch: what was said does not fit, or nothing was said and it cannot be told; with what to say.
    """
    if said is not None:
        _check(signature, columns, said)
        return said
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
        f"{_describe_inputs(signature)}, and there are {len(every)} columns, {enumerate_values(every, most=24)}; say "
        f"which of them it takes, in its order: {_remedy(signature)}"
    )


def _check(signature: Signature, columns: Columns, said: Inputs) -> None:
    tensors = {tensor.name: tensor for tensor in signature.inputs}
    if len(tensors) == 1 and set(said) == {""}:
        said = {signature.inputs[0].name: said[""]}
    for name in said:
        if name not in tensors:
            what = f"no input {show(name)}" if name else "several inputs"
            raise InputMismatch(
                f"the model has {what}: {_describe_inputs(signature)}{suggest(name, tensors)}; say which columns each "
                f"of them takes: {_remedy(signature)}"
            )
    for name, tensor in tensors.items():
        if name not in said or not _fits(tensor, columns, said[name]):
            given = f"is given {enumerate_values(said[name], most=24)}" if name in said else "is given no columns"
            raise InputMismatch(
                f"{_describe_inputs(signature)}, and {show(name)} {given}; say which it takes, in its order: "
                f"{_remedy(signature)}"
            )


def _fits(tensor: Tensor, columns: Columns, names: Sequence[str]) -> bool:
    """Tell whether columns have the shape that an input takes; of what type they are is the runtime's to judge."""
    shapes = [columns[name].shape[1:] for name in names]
    if len(names) > 1 and any(shapes):
        return False  # a tensor is taken alone
    shape = shapes[0] or (len(names),)
    if tensor.shape is None or (tensor.shape == () and shape == (1,)):  # a bare number a row is one column
        return True
    return len(tensor.shape) == len(shape) and all(
        wanted in (None, size) for wanted, size in zip(tensor.shape, shape, strict=True)
    )


def _columns_named(name: str, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the column of a name, or the columns of the feature of that name: `Embarked=C` is one of `Embarked`."""
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
    """Return the output that is wanted: the one of that name, or the only one.

    Args:
        outputs: output name to what the model said.
        name: as an output contract has it.
        kind: what is said of it, for the remedy.

    Raises:
        AdditionRefused: there is none of that name, or several.
    """
    if name is None and len(outputs) == 1:
        return next(iter(outputs.values()))
    if name is not None and name in outputs:
        return outputs[name]
    near = "" if name is None else suggest(name, outputs)
    what = "several outputs" if name is None else f"no output {show(name)}"
    example = f'{{"kind": "{kind}", "name": "{next(iter(outputs))}"}}'
    raise _unclear(f"the model has {what}: {enumerate_values(outputs)}{near}", f"say which, such as '{example}'")


def infer_output(task: Task, said: Array) -> Output:
    """Tell what an output means, where it can mean one thing only.

    Args:
        task: what is asked.
        said: what the model said to golden rows.

    Raises:
        InvalidOutput: it is nothing that an ensemble can take.
        AdditionRefused: it may mean several things, or nothing that answers the task.
    """
    said = check_output(said, len(said))
    width, classes = 1 if said.ndim == 1 else said.shape[1], name_classes(task)
    kind = "text" if said.dtype.kind == "U" else "numbers"
    if kind == "numbers" and width == 1 and isinstance(task, RegressionTask):
        return Value()
    if kind == "text" and width == 1 and np.isin(said, classes).all():
        return Label()
    if kind == "numbers" and classes and width in {1, len(classes)}:
        suspicion = _doubt_probability(task, said) if width == 1 else _doubt_probabilities(said)
        if suspicion is None:
            return Probability() if width == 1 else Probabilities()
        raise _unclear(*suspicion)
    if isinstance(task, RegressionTask):
        raise _unclear(f"the model gives {kind}, {width} a row", "use a model that gives one number a row")
    raise _unclear(
        f"the model gives {kind}, {width} a row, and the task has the classes {enumerate_values(classes)}",
        "use a model that gives a probability, a number for each class, or the name of a class",
    )


Suspicion = tuple[str, str]
"""What speaks against a meaning, and what to say instead."""


def _doubt_probability(task: Task, said: Array) -> Suspicion | None:
    low, high = said.min(), said.max()
    seen = f"the model gives one number a row, from {low:.6g} to {high:.6g}"
    if not isinstance(task, BinaryTask):
        return f"{seen}, and the task has more than two classes", 'give "label" if it is the index of a class'
    if said.dtype.kind != "f" or np.isin(said, (0, 1)).all():
        return f"{seen}, and never between", 'give "label" if it is the index of a class, "probability" if it is that'
    if low < 0 or high > 1:
        return (
            f"{seen}, which is no probability",
            'give "logit" if it is the log-odds, before a sigmoid, or "label" if it is the index of a class',
        )
    if len(said) < TELLING_ROWS:
        return f"{seen}, on {len(said)} golden rows only", 'give "probability", "logit" or "label"'
    return None


def _doubt_probabilities(said: Array) -> Suspicion | None:
    low, high, totals = said.min(), said.max(), row_sum(said.astype(np.float64))
    if low >= 0 and high <= 1 and np.abs(totals - 1).max() <= TOLERANCE:
        return None
    return (
        f"the model gives {said.shape[1]} numbers a row, from {low:.6g} to {high:.6g}, with sums from "
        f"{totals.min():.6g} to {totals.max():.6g}, which are no probabilities",
        'give "logits" if the softmax is still to come, or "probabilities" with a "tolerance" if they are rounded',
    )


def describe_inferred(task: Task, output: Output, said: Array) -> str:
    """Say what an output was taken for, and why."""
    rows = f"on {len(said)} rows"
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
