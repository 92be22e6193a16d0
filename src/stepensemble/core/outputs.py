"""What a member's output means, and how it is brought to the one form that all members share.

A member declares its output in the manifest: the structures here. Its raw output is checked where it is made
(`check_output`); what arrives at the aggregation is checked against the declaration and becomes class probabilities or
values (`canonical`). A violation is that member's failure.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from stepensemble.core.aggregation.probability import complement, normalize_rows, row_sum, softmax
from stepensemble.core.errors import InvalidOutput
from stepensemble.core.problems import enumerate_values, show
from stepensemble.core.task import BinaryTask, MulticlassTask, RegressionTask, Task, name_classes

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

TOLERANCE = 1e-3
"""How far, by default, probabilities may be from [0, 1] and their sum from 1: what float16 arithmetic costs."""

Temperature = Annotated[
    float,
    Meta(
        gt=0,
        description="Divides the logits (of a probability, its log-odds): above 1 makes the member less certain, below "
        "1 more.",
    ),
]
Tolerance = Annotated[
    float,
    Meta(
        gt=0,
        le=0.1,
        description="How far probabilities may be from [0, 1] and their sum from 1; quantized models need more.",
    ),
]
ClassOrder = Annotated[
    tuple[str, ...] | None,
    Meta(description="The task's classes in the order of this member's outputs; the task's own order by default."),
]
ClassName = Annotated[str | None, Meta(description="The class it is for; the task's second by default.")]


class _Output(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", kw_only=True):
    name: Annotated[str | None, Meta(description="Which of the model's outputs, where it has several.")] = None


class Probability(_Output, frozen=True, tag="probability", kw_only=True):
    """Of one class of a binary task: one number in [0, 1] a row."""

    of: ClassName = None
    temperature: Temperature = 1.0
    tolerance: Tolerance = TOLERANCE


class Probabilities(_Output, frozen=True, tag="probabilities", kw_only=True):
    """Of every class: numbers in [0, 1] that sum to 1."""

    classes: ClassOrder = None
    temperature: Temperature = 1.0
    tolerance: Tolerance = TOLERANCE


class Logit(_Output, frozen=True, tag="logit", kw_only=True):
    """The log-odds of one class of a binary task: one number a row, to which we apply the sigmoid."""

    of: ClassName = None
    temperature: Temperature = 1.0


class Logits(_Output, frozen=True, tag="logits", kw_only=True):
    """One number a class, to which we apply the softmax."""

    classes: ClassOrder = None
    temperature: Temperature = 1.0


class Label(_Output, frozen=True, tag="label", kw_only=True):
    """A class and nothing else: its index, or its name."""

    classes: ClassOrder = None
    one_hot: Annotated[
        bool,
        Meta(description="Let methods that average probabilities take a label for certainty: 1 for its class."),
    ] = False


class Value(_Output, frozen=True, tag="value", kw_only=True):
    """The number of a regression; scale * number + offset is in the ensemble's unit."""

    scale: Annotated[float, Meta(description="Not 0.")] = 1.0
    offset: float = 0.0


Output = Probability | Probabilities | Logit | Logits | Label | Value

OUTPUT_KINDS: dict[type, frozenset[str]] = {
    BinaryTask: frozenset({"probability", "probabilities", "logit", "logits", "label"}),
    MulticlassTask: frozenset({"probabilities", "logits", "label"}),
    RegressionTask: frozenset({"value"}),
}
"""Which kinds of output can answer which task."""


def name_kind(output: Output) -> str:
    """Return the name that the manifest gives a kind of output."""
    return str(output.__struct_config__.tag)


def check_output(output: Array, rows: int) -> Array:
    """Check a model's raw output: one entry a row; finite numbers, or text (a class's name).

    Returns it as `(rows,)` where an entry is single, else as `(rows, numbers)`; text as NumPy's `str`.

    Raises:
        InvalidOutput: with the first offending row.
    """
    if output.shape == (1, 1) and rows == 1 and type(number := output.item()) is float and math.isfinite(number):
        return output.reshape(1)  # of one number the rest takes ten times as long
    kind = output.dtype.kind
    if kind in "SO":
        output, kind = _decode_text(output), "U"
    if kind not in "iufU":
        raise InvalidOutput(f"the output is of type {output.dtype}, neither numbers nor text")
    shape = output.shape
    if not shape or shape[0] != rows:
        raise InvalidOutput(f"the output has shape {list(shape)} for {rows} rows")
    flat = output if len(shape) == 2 else output.reshape(rows, -1)
    if kind == "f" and not np.isfinite(flat).all():
        infinite: Flags = np.any(~np.isfinite(flat), axis=1)
        row = int(np.flatnonzero(infinite)[0])
        raise InvalidOutput(f"the output of row {row} is not finite ({np.count_nonzero(infinite)} of {rows} rows)")
    return flat[:, 0] if flat.shape[1] == 1 else flat


def _decode_text(output: Array) -> Array:
    """Decode TensorFlow's strings, which are bytes."""
    entries = output.ravel().tolist()
    if not all(isinstance(entry, str | bytes) for entry in entries):
        raise InvalidOutput(f"the output is of type {output.dtype}, neither numbers nor text")
    try:
        decoded = [entry.decode() if isinstance(entry, bytes) else entry for entry in entries]
    except UnicodeDecodeError:
        raise InvalidOutput("the output is text, and not in UTF-8") from None
    return np.array(decoded, dtype=np.str_).reshape(output.shape)


def output_width(task: Task, output: Output) -> int:
    """Return how many entries a member's output has a row."""
    return len(name_classes(task)) if isinstance(output, Probabilities | Logits) else 1


def canonical(raw: Array, task: Task, output: Output) -> Floats:
    """Bring a checked output to the form all members share.

    Args:
        raw: as `check_output` returns it.
        task: what is asked.
        output: what the member's numbers mean.

    Returns `(rows,)` values for a regression; for a classification `(rows, classes)` probabilities in the task's order,
    each row summing to 1. A label becomes probability 1 for its class.

    Raises:
        InvalidOutput: the output is not what was declared.
    """
    width, actual = output_width(task, output), 1 if raw.ndim == 1 else raw.shape[1]
    if actual != width:
        raise InvalidOutput(f'the output has {actual} numbers a row, and "{name_kind(output)}" means {width}')
    if raw.dtype.kind == "U" and not isinstance(output, Label):
        raise InvalidOutput(f'the output is text, and "{name_kind(output)}" means numbers')
    if isinstance(task, RegressionTask):
        return _scale(raw.astype(np.float64), output)
    order = _class_order(task.classes, output)
    match output:
        case Label():
            return _one_hot(raw, task.classes, order)
        case Logit() | Logits():
            logits = raw.astype(np.float64)
            if isinstance(output, Logit):  # log-odds are against a logit of 0
                logits = np.stack([np.zeros_like(logits), logits], axis=1)
            probabilities = softmax(_reorder(logits, order, task.classes), output.temperature)
        case Probability():
            pair = complement(_within(raw, "probability", output.tolerance))
            probabilities = _temper(_reorder(pair, order, task.classes), output.temperature)
        case Probabilities():
            numbers = _within(raw, "probabilities", output.tolerance)
            totals = row_sum(numbers)
            off = np.abs(totals - 1.0) > output.tolerance
            _refuse(off, f"sums to something other than 1, by more than {output.tolerance:g}", totals)
            # Put in order first: a sum's rounding depends on its order.
            probabilities = _temper(normalize_rows(_reorder(numbers, order, task.classes)), output.temperature)
        case _:
            raise InvalidOutput(f'"{name_kind(output)}" does not answer a question of classes')
    # Of two classes the first is exactly what the second leaves, as everywhere.
    return complement(probabilities[:, 1]) if isinstance(task, BinaryTask) else probabilities


def _scale(numbers: Floats, output: Output) -> Floats:
    if not isinstance(output, Value):
        raise InvalidOutput(f'"{name_kind(output)}" does not answer a regression')
    with np.errstate(over="ignore"):
        values: Floats = numbers if output == Value() else numbers * output.scale + output.offset
    _refuse(~np.isfinite(values), "is not finite once scaled", numbers)
    return values


def _within(raw: Array, kind: str, tolerance: float) -> Floats:
    numbers = raw.astype(np.float64)
    if numbers.size and (numbers.min() < 0 or numbers.max() > 1):
        outside = (numbers < -tolerance) | (numbers > 1 + tolerance)
        _refuse(outside, f"is no {kind}: outside [0, 1] by more than {tolerance:g}", numbers)
        return np.clip(numbers, 0.0, 1.0)
    return numbers


def _temper(probabilities: Floats, temperature: float) -> Floats:
    """Divide the logits behind probabilities: p ** (1 / T), normalized (Guo et al., On Calibration, 2017, sec. 4.2)."""
    if temperature == 1.0:
        return probabilities
    # Through logarithms, so that a small temperature leaves no row with zeros alone.
    with np.errstate(divide="ignore"):
        logs = np.log(probabilities)
    return softmax(logs, temperature)


def _class_order(classes: tuple[str, ...], output: Output) -> tuple[str, ...]:
    """Name the classes in the order of a member's numbers; of a single number the other class comes first."""
    if isinstance(output, Probability | Logit):
        of = classes[1] if output.of is None else output.of
        return (*(name for name in classes if name != of), of)
    return classes if isinstance(output, Value) or output.classes is None else output.classes


def _reorder(numbers: Floats, order: tuple[str, ...], classes: tuple[str, ...]) -> Floats:
    if order == classes:
        return numbers
    return np.ascontiguousarray(numbers[:, [order.index(name) for name in classes]])


def _one_hot(raw: Array, classes: tuple[str, ...], order: tuple[str, ...]) -> Floats:
    places = np.array([classes.index(name) for name in order])
    if raw.dtype.kind == "U":
        known = np.isin(raw, classes)
        _refuse(~known, f"is no label: not one of {enumerate_values(classes)}", raw)
        indices = np.array([classes.index(name) for name in raw.tolist()], dtype=np.int64)
    else:
        whole = (raw == np.floor(raw)) & (raw >= 0) & (raw < len(order))
        _refuse(~whole, f"is no label: not one of 0 … {len(order) - 1}", raw)
        indices = places[raw.astype(np.int64)]
    return np.eye(len(classes))[indices]


def _refuse(bad: Flags, reason: str, entries: Array) -> None:
    if bad.any():
        rows: Flags = np.any(bad.reshape(len(bad), -1), axis=1)
        row = int(np.flatnonzero(rows)[0])
        entry = entries[row]
        shown = show(str(entry)) if entries.dtype.kind == "U" else np.array2string(entry, precision=6, threshold=6)
        count = np.count_nonzero(rows)
        raise InvalidOutput(f"the output of row {row}, {shown}, {reason} ({count} of {len(rows)} rows)")
