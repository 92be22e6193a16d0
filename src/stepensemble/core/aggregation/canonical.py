"""Converts a member's raw output to the one form that all members share.

A runtime checks the form of an output right after the model has computed it (`shape_output`). The aggregation checks
each row against the declared output and converts it to class probabilities or values (`read_output`). If the form is
wrong, the member fails; if a row is wrong, it fails for that row only. `check_output` and `canonical` do the same, and
raise on the first wrong row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from stepensemble.core.aggregation.probability import complement, normalize_rows, row_sum, softmax
from stepensemble.core.arrays import Array, Flags, Floats, Integers
from stepensemble.core.errors import InvalidOutput
from stepensemble.core.number_limits import MAX_VALUE
from stepensemble.core.problems import enumerate_values, show
from stepensemble.core.schema.outputs import (
    OUTPUT_KINDS,
    Label,
    Logit,
    Logits,
    Output,
    Probabilities,
    Probability,
    Value,
    name_kind,
    output_width,
)
from stepensemble.core.schema.task import BinaryTask, RegressionTask, Task, name_classes

INFINITE = "is not finite"


@dataclass(frozen=True, slots=True)
class Fault:
    """Rows that are wrong for one reason.

    Attributes:
        rows: their numbers, ascending; at least one.
        shown: for every row of the output, the entry that a message shows; None where the reason needs none.
    """

    rows: Integers
    shown: Array | None
    reason: str

    def describe(self, row: int) -> str:
        """Return the reason for one row, with its entry."""
        if self.shown is None:
            return f" {self.reason}"
        entry = self.shown[row]
        text = show(str(entry)) if isinstance(entry, str) else np.array2string(entry, precision=6, threshold=6)
        return f", {text}, {self.reason}"


@dataclass(frozen=True, slots=True)
class Faults:
    """The rows of an output that are not what was declared, by reason.

    Attributes:
        found: at least one; each row is in one of them.
        rows: how many rows the output has.
    """

    found: tuple[Fault, ...]
    rows: int

    @property
    def count(self) -> int:
        """How many rows are wrong."""
        return sum(len(fault.rows) for fault in self.found)

    def explain(self, rows: Integers) -> list[str | None]:
        """Return the reason for each of some rows; None for a valid one."""
        reasons: list[str | None] = [None] * len(rows)
        for fault in self.found:
            for place in np.flatnonzero(np.isin(rows, fault.rows)).tolist():
                reasons[place] = f"its output{fault.describe(int(rows[place]))}"
        return reasons

    def describe(self) -> str:
        """Return the reason for the first wrong row, and how many rows are wrong."""
        first = min(self.found, key=lambda fault: int(fault.rows[0]))
        row = int(first.rows[0])
        return f"the output of row {row}{first.describe(row)} ({self.count} of {self.rows} rows)"


def check_output(output: Array, rows: int) -> Array:
    """Check a model's raw output as `shape_output` does, and that its numbers are finite and its text is UTF-8.

    Raises:
        InvalidOutput: with the first offending row.
    """
    if output.dtype.kind in "SO":
        output = _decode_text(output, "strict")
    shaped = shape_output(output, rows)
    infinite = _find_infinite(shaped)
    if infinite is not None:
        raise InvalidOutput(Faults((Fault(np.flatnonzero(infinite), None, INFINITE),), rows).describe())
    return shaped


def shape_output(output: Array, rows: int) -> Array:
    """Check the form of a model's raw output: one entry a row; numbers, or text (a class's name).

    Returns `(rows,)` where a row has one entry, else `(rows, numbers)`. Text becomes NumPy's `str`; U+FFFD stands for
    bytes that are not UTF-8.

    Raises:
        InvalidOutput: it has another form.
    """
    if output.shape == (1, 1) and rows == 1 and type(output.item()) is float:
        return output.reshape(1)  # for one number, the checks below take ten times as long
    kind = output.dtype.kind
    if kind in "SO":
        output, kind = _decode_text(output, "replace"), "U"
    if kind not in "iufU":
        raise InvalidOutput(f"the output is of type {output.dtype}, neither numbers nor text")
    shape = output.shape
    if not shape or shape[0] != rows:
        raise InvalidOutput(f"the output has shape {list(shape)} for {rows} rows")
    flat = output if len(shape) == 2 else output.reshape(rows, -1)
    return flat[:, 0] if flat.shape[1] == 1 else flat


def list_entries(outputs: Array) -> list[Any]:
    """Return outputs as plain data that JSON carries exactly; null stands for a number that is not finite."""
    if outputs.dtype.kind != "f" or np.isfinite(outputs).all():
        return list(outputs.tolist())
    entries = outputs.astype(np.object_)
    entries[~np.isfinite(outputs)] = None
    return list(entries.tolist())


def read_entries(entries: Sequence[Any]) -> Array:
    """Reverse `list_entries`; null becomes NaN."""
    array = np.asarray(entries)
    return array.astype(np.float64) if array.dtype == np.object_ else array


def _find_infinite(entries: Array) -> Flags | None:
    """Return the rows in which a number is not finite; None where there are none."""
    if entries.dtype.kind != "f" or np.isfinite(entries).all():
        return None
    return _any(~np.isfinite(entries))


def _any(flags: Flags) -> Flags:
    """Return the rows in which a flag is set."""
    rows: Flags = np.any(flags.reshape(len(flags), -1), axis=1)
    return rows


def _decode_text(output: Array, errors: Literal["strict", "replace"]) -> Array:
    """Decode TensorFlow's strings, which are bytes."""
    entries = output.ravel().tolist()
    if not all(isinstance(entry, str | bytes) for entry in entries):
        raise InvalidOutput(f"the output is of type {output.dtype}, neither numbers nor text")
    try:
        decoded = [entry.decode(errors=errors) if isinstance(entry, bytes) else entry for entry in entries]
    except UnicodeDecodeError:
        raise InvalidOutput("the output is text, and not in UTF-8") from None
    return np.array(decoded, dtype=np.str_).reshape(output.shape)


def find_usable(numbers: Floats) -> Flags:
    """Return whether each row has a usable output, given what `read_output` returns."""
    return ~np.isnan(numbers if numbers.ndim == 1 else numbers[:, 0])


def convert_output(raw: Array, task: Task, output: Output) -> Floats:
    """Convert an output to the form that all members share, as `read_output` does.

    Raises:
        InvalidOutput: the output is not what was declared, as a whole or in any row.
    """
    numbers, faults = read_output(raw, task, output)
    if faults is not None:
        raise InvalidOutput(faults.describe())
    return numbers


def read_output(raw: Array, task: Task, output: Output) -> tuple[Floats, Faults | None]:
    """Convert an output to the form that all members share, row by row.

    Args:
        raw: as `shape_output` returns it.
        task: what is predicted.
        output: what the member's numbers mean.

    Returns `(rows,)` values for a regression; for a classification `(rows, classes)` probabilities in the task's order,
    each row summing to 1. A label becomes probability 1 for its class. A row that is not what was declared becomes NaN
    and is one of the faults; no other row has NaN.

    Raises:
        InvalidOutput: the output as a whole is of another form than was declared.
    """
    width, actual = output_width(task, output), 1 if raw.ndim == 1 else raw.shape[1]
    if actual != width:
        raise InvalidOutput(f'the output has {actual} numbers a row, and "{name_kind(output)}" means {width}')
    if raw.dtype.kind == "U" and not isinstance(output, Label):
        raise InvalidOutput(f'the output is text, and "{name_kind(output)}" means numbers')
    if name_kind(output) not in OUTPUT_KINDS[type(task)]:
        needed = "a regression" if isinstance(task, RegressionTask) else "a classification"
        raise InvalidOutput(f'"{name_kind(output)}" is not an output of {needed}')
    faults = _find_faults(raw, task, output)
    if faults is None:
        return _convert(raw, task, output), None
    valid = np.ones(len(raw), dtype=np.bool_)
    for fault in faults.found:
        valid[fault.rows] = False
    classes = len(name_classes(task))
    numbers = np.full((len(raw), classes) if classes else len(raw), np.nan)
    numbers[valid] = _convert(raw[valid], task, output)
    return numbers, faults


def _find_faults(raw: Array, task: Task, output: Output) -> Faults | None:
    found: list[Fault] = []
    bad = np.zeros(len(raw), dtype=np.bool_)
    for flags, shown, reason in _check_rows(raw, task, output):
        rows = np.flatnonzero(flags & ~bad)
        if len(rows):
            found.append(Fault(rows, shown, reason))
            bad[rows] = True
    return Faults(tuple(found), len(raw)) if found else None


class _RowCheck(NamedTuple):
    """One check of every row: whether it fails, the entries that a message shows, and the reason."""

    fails: Flags
    shown: Array | None
    reason: str


def _check_rows(raw: Array, task: Task, output: Output) -> Iterator[_RowCheck]:
    """Yield the checks of rows. The reason for a row is the first check that it fails."""
    infinite = _find_infinite(raw)
    if infinite is not None:
        yield _RowCheck(infinite, None, INFINITE)
    with np.errstate(invalid="ignore", over="ignore"):  # numbers that are not finite have been found
        match output:
            case Value():
                yield from _check_values(raw, output)
            case Label():
                yield _check_labels(raw, name_classes(task))
            case Probability() | Probabilities():
                yield from _check_probabilities(raw.astype(np.float64), output)
            case _:  # every finite number is a logit
                pass


def _check_values(raw: Array, output: Value) -> Iterator[_RowCheck]:
    values = _scale(raw.astype(np.float64), output)
    if values.size and not (values.min() >= -MAX_VALUE and values.max() <= MAX_VALUE):
        reason = f"is beyond {MAX_VALUE:g}{'' if output == Value() else ' once scaled'}"
        yield _RowCheck(~(np.abs(values) <= MAX_VALUE), raw, reason)


def _check_labels(raw: Array, classes: tuple[str, ...]) -> _RowCheck:
    if raw.dtype.kind == "U":
        return _RowCheck(~np.isin(raw, classes), raw, f"is not one of the labels {enumerate_values(classes)}")
    count = len(classes)
    known = (raw == np.floor(raw)) & (raw >= 0) & (raw < count)
    return _RowCheck(~known, raw, f"is not one of the labels 0 … {count - 1}")


def _check_probabilities(numbers: Floats, output: Probability | Probabilities) -> Iterator[_RowCheck]:
    low, high = -output.tolerance, 1 + output.tolerance
    if numbers.size and not (numbers.min() >= low and numbers.max() <= high):
        outside = _any((numbers < low) | (numbers > high))
        reason = f"is outside [0, 1] by more than {output.tolerance:g}"
        yield _RowCheck(outside, numbers, reason)
    if isinstance(output, Probabilities):
        totals = row_sum(_clip(numbers))
        off = np.abs(totals - 1.0) > output.tolerance
        yield _RowCheck(off, totals, f"sums to something other than 1, by more than {output.tolerance:g}")


def _convert(raw: Array, task: Task, output: Output) -> Floats:
    """Convert valid rows to the form that all members share."""
    if isinstance(output, Value):
        return _scale(raw.astype(np.float64), output)
    classes = name_classes(task)
    order = _class_order(classes, output)
    match output:
        case Label():
            return _one_hot(raw, classes, order)
        case Logit() | Logits():
            logits = raw.astype(np.float64)
            if isinstance(output, Logit):  # log-odds are against a logit of 0
                logits = np.stack([np.zeros_like(logits), logits], axis=1)
            probabilities = softmax(_reorder(logits, order, classes), output.temperature)
        case Probability():
            pair = complement(_clip(raw))
            probabilities = _temper(_reorder(pair, order, classes), output.temperature)
        case Probabilities():
            # Reordered first: a sum's rounding depends on its order.
            probabilities = _temper(normalize_rows(_reorder(_clip(raw), order, classes)), output.temperature)
    # Of two classes, the first is exactly 1 less the second, as everywhere.
    return complement(probabilities[:, 1]) if isinstance(task, BinaryTask) else probabilities


def _scale(numbers: Floats, output: Value) -> Floats:
    return numbers if output == Value() else numbers * output.scale + output.offset


def _clip(raw: Array) -> Floats:
    numbers: Floats = raw.astype(np.float64)
    within = not numbers.size or (numbers.min() >= 0 and numbers.max() <= 1)
    return numbers if within else np.clip(numbers, 0.0, 1.0)


def _temper(probabilities: Floats, temperature: float) -> Floats:
    """Divide the logits behind probabilities: p ** (1 / T), normalized (Guo et al., On Calibration, 2017, sec. 4.2)."""
    if temperature == 1.0:
        return probabilities
    # Through logarithms: otherwise a small temperature could turn a row into zeros.
    with np.errstate(divide="ignore"):
        logs = np.log(probabilities)
    return softmax(logs, temperature)


def _class_order(classes: tuple[str, ...], output: Output) -> tuple[str, ...]:
    """Name the classes in the order of a member's numbers; for a single number, the other class comes first."""
    if isinstance(output, Probability | Logit):
        of = classes[1] if output.of is None else output.of
        return (*(name for name in classes if name != of), of)
    return classes if isinstance(output, Value) or output.classes is None else output.classes


def _reorder(numbers: Floats, order: tuple[str, ...], classes: tuple[str, ...]) -> Floats:
    if order == classes:
        return numbers
    return np.ascontiguousarray(numbers[:, [order.index(name) for name in classes]])


def _one_hot(raw: Array, classes: tuple[str, ...], order: tuple[str, ...]) -> Floats:
    if raw.dtype.kind == "U":
        indices = np.array([classes.index(name) for name in raw.tolist()], dtype=np.int64)
    else:
        indices = np.array([classes.index(name) for name in order])[raw.astype(np.int64)]
    return np.eye(len(classes))[indices]
