"""What a member says, checked and brought to one form.

A model's raw output is checked where it is made (`check_output`); what arrives at the aggregation is checked against
the declared kind and becomes class probabilities or values (`canonical`). A violation is that member's failure.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stepensemble.core.errors import InvalidOutput
from stepensemble.core.manifest import BinaryTask, OutputKind, RegressionTask, Task

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

TOLERANCE = 1e-3
"""How far probabilities may be from [0, 1] and their sum from 1: what float16 or int8 arithmetic costs."""


def check_output(output: Array, rows: int) -> Array:
    """Check a model's raw output: one entry a row, numbers, finite.

    Returns it as `(rows,)` where an entry is a single number, else as `(rows, numbers)`.

    Raises:
        InvalidOutput: with the first offending row.
    """
    if output.dtype.kind not in "iuf":
        raise InvalidOutput(f"the output is of type {output.dtype}, not numbers")
    if output.ndim == 0 or output.shape[0] != rows:
        raise InvalidOutput(f"the output has shape {list(output.shape)} for {rows} rows")
    flat = output.reshape(rows, -1)
    infinite: Flags = np.any(~np.isfinite(flat), axis=1)
    if infinite.any():
        row = int(np.flatnonzero(infinite)[0])
        raise InvalidOutput(f"the output of row {row} is not finite ({np.count_nonzero(infinite)} of {rows} rows)")
    return flat[:, 0] if flat.shape[1] == 1 else flat


def output_width(task: Task, kind: OutputKind) -> int:
    """Return how many numbers a member's output has a row."""
    return len(task.classes) if kind == "probabilities" and not isinstance(task, RegressionTask) else 1


def canonical(output: Array, task: Task, kind: OutputKind) -> Floats:
    """Bring a checked output to the form all members share.

    Returns `(rows,)` values for a regression, `(rows, classes)` probabilities for a classification; a label becomes
    probability 1 for its class.

    Raises:
        InvalidOutput: the output is not of the declared kind.
    """
    width = output_width(task, kind)
    actual = 1 if output.ndim == 1 else output.shape[1]
    if actual != width:
        raise InvalidOutput(f'the output has {actual} numbers a row, and "{kind}" means {width}')
    numbers = output.astype(np.float64)
    if isinstance(task, RegressionTask):
        return numbers
    if kind == "label":
        return _one_hot(numbers, len(task.classes))
    _refuse((numbers < -TOLERANCE) | (numbers > 1 + TOLERANCE), f"is no {kind}: outside [0, 1]", numbers)
    numbers = np.clip(numbers, 0.0, 1.0)
    if isinstance(task, BinaryTask):
        return np.stack([1.0 - numbers, numbers], axis=1)
    totals = numbers.sum(axis=1)
    _refuse(np.abs(totals - 1.0) > TOLERANCE, "sums to something other than 1", totals)
    return numbers


def _one_hot(numbers: Floats, classes: int) -> Floats:
    whole = (numbers == np.floor(numbers)) & (numbers >= 0) & (numbers < classes)
    _refuse(~whole, f"is no label: not one of 0 … {classes - 1}", numbers)
    return np.eye(classes)[numbers.astype(np.int64)]


def _refuse(bad: Flags, reason: str, numbers: Floats) -> None:
    if bad.any():
        rows: Flags = np.any(bad.reshape(len(bad), -1), axis=1)
        row = int(np.flatnonzero(rows)[0])
        shown = np.array2string(numbers[row], precision=6, threshold=6)
        count = np.count_nonzero(rows)
        raise InvalidOutput(f"the output of row {row}, {shown}, {reason} ({count} of {len(rows)} rows)")
