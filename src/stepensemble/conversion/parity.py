"""Parity: how far the outputs of a converted model are from those of the original."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from stepensemble.core.arrays import Array
from stepensemble.core.errors import InputMismatch
from stepensemble.core.problems import show
from stepensemble.core.tolerance import TOLERANCE, scale_of
from stepensemble.runtimes import Signature
from stepensemble.runtimes.model import STRING, Tensor

DRAWN_ROWS = 16
"""Rows to compare on by default."""
FREE_SIZE = 32
"""The size drawn for a dimension of any size; an image of this size still passes through a few strides."""

Labels = Callable[[Array], Array]
"""Returns the label of every row of an output."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a converted model may be from the original.

    Attributes:
        deviation: of any number of any output, relative to the scale of that output; see `core.tolerance`.
        labels: how many rows may change their label.
    """

    deviation: float = TOLERANCE
    labels: int = 0


@dataclass(frozen=True, slots=True)
class Parity:
    """How a converted model compares.

    Attributes:
        max_difference: greatest absolute difference of any number; infinite if only one of two numbers is finite, or if
            the shapes differ.
        deviation: greatest difference of any number relative to the scale of its output; infinite likewise.
        labels_changed: how many rows have another label.
        rows: how many were compared.
    """

    max_difference: float
    deviation: float
    labels_changed: int
    rows: int

    def holds(self, tolerance: Tolerance) -> bool:
        """Return whether it is within a tolerance."""
        return self.deviation <= tolerance.deviation and self.labels_changed <= tolerance.labels

    def __str__(self) -> str:
        labels = f", {self.labels_changed} labels changed" if self.labels_changed else ""
        return (
            f"at most {self.max_difference:.1e} apart, {self.deviation:.1e} of the output's scale, on {self.rows} "
            f"rows{labels}"
        )


def compare_outputs(original: Mapping[str, Array], converted: Mapping[str, Array], labels: Labels | None) -> Parity:
    """Compare outputs, by name.

    Args:
        original: the original's outputs.
        converted: the converted model's outputs.
        labels: returns the label of every row of an output. By default, text is the label itself, several numbers a row
            have the index of the greatest as their label, and a single number has none.
    """
    read_labels = labels or choose_labels
    differences, deviations = [0.0], [0.0]
    changed = np.zeros(len(next(iter(original.values()))), dtype=bool)
    for name, expected in original.items():
        actual = converted.get(name)
        if (
            actual is None
            or actual.shape != expected.shape
            or (actual.dtype.kind == "U") != (expected.dtype.kind == "U")
        ):
            return Parity(float("inf"), float("inf"), len(changed), len(changed))
        if expected.dtype.kind != "U":
            differences.append(_difference(expected, actual))
            deviations.append(differences[-1] / scale_of(expected))
        changed |= read_labels(expected) != read_labels(actual)
    return Parity(max(differences), max(deviations), int(changed.sum()), len(changed))


def choose_labels(output: Array) -> Array:
    """Return text as it is (several joined), the index of the greatest of several numbers, else zeros."""
    flat = output.reshape(len(output), -1)
    if output.dtype.kind == "U":
        return np.array(["\0".join(row) for row in flat])
    if flat.shape[1] < 2:
        return np.zeros(len(output), dtype=int)
    return np.asarray(flat.argmax(axis=1))


def _difference(expected: Array, actual: Array) -> float:
    """Return the greatest distance of two numbers; equal infinities and two NaN have the distance 0."""
    one, other = expected.astype(np.float64), actual.astype(np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        distance = np.where(same, 0.0, np.abs(one - other))
    return float(np.nan_to_num(distance, nan=np.inf, posinf=np.inf).max(initial=0.0))


def draw_inputs(signature: Signature) -> dict[str, Array]:
    """Draw inputs for a model of which only the signature is known, always the same ones.

    Floats are standard normal; integers are 0 and 1, which index any table; bytes have any value.

    Raises:
        InputMismatch: an input is text, or of no known shape.
    """
    rows = signature.batch if signature.batch not in (None, 1) else DRAWN_ROWS
    generator = np.random.default_rng(0)
    return {tensor.name: _draw(tensor, rows or DRAWN_ROWS, generator) for tensor in signature.inputs}


def _draw(tensor: Tensor, rows: int, generator: np.random.Generator) -> Array:
    if tensor.dtype == STRING or tensor.shape is None:
        what = "text" if tensor.dtype == STRING else "of no known shape"
        raise InputMismatch(
            f"the input {show(tensor.name)} is {what}, so no rows can be drawn for it: give golden rows"
        )
    shape = (rows, *(FREE_SIZE if size is None else size for size in tensor.shape))
    kind = np.dtype(tensor.dtype).kind
    if kind == "f" or tensor.quantization is not None:
        return generator.standard_normal(shape).astype(np.float32 if tensor.quantization else tensor.dtype)
    if tensor.dtype == "uint8":
        return generator.integers(0, 256, shape, dtype=np.uint8)
    return generator.integers(0, 2, shape).astype(tensor.dtype)
