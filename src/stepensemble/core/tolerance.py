"""The tolerance within which two outputs of one model count as equal.

A model's last bits depend on the processor, on the runtime and on how many rows it predicts at once. Conversion, the
gate and `ensemble verify` all use this tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stepensemble.core.arrays import Array
from stepensemble.core.problems import show

TOLERANCE = 1e-4
"""How far an output may be from the expected one, relative to the scale of that output (see `scale_of`).

A float32 has seven digits (1.2e-7); sums in another order and the layers of a model add such errors up to 1e-6 or less.
A swapped column, another artifact, wrong arithmetic or a row that depends on other rows causes far larger deviations.
The tolerance is relative to the scale, since a price of 300,000 has as many digits as a probability.
"""


def compare(expected: Sequence[Any], actual: Sequence[Any], *, labels: bool, tolerance: float = TOLERANCE) -> list[str]:
    """List in words how two outputs of one model differ; nothing where they are equal.

    Args:
        expected: one entry a row.
        actual: likewise.
        labels: the outputs are labels, and must be identical.
        tolerance: relative to the scale of the expected outputs.
    """
    want, got = _read(expected), _read(actual)
    if want.shape != got.shape:
        return [f"has shape {list(got.shape)}, not {list(want.shape)}"]
    textual = "U" in want.dtype.kind + got.dtype.kind
    if textual and want.dtype.kind != got.dtype.kind:
        return [f"holds {_kind(got)}, not {_kind(want)}"]
    with np.errstate(invalid="ignore"):  # infinity less infinity
        if textual or labels:
            differing, bound = got != want, ""
        else:
            differing = (np.isnan(got) != np.isnan(want)) | (np.abs(got - want) > tolerance * scale_of(want))
            bound = f"; {tolerance:g} of their scale, {scale_of(want):.3g}, is allowed"
    rows = np.flatnonzero(differing.reshape(len(want), -1).any(axis=1)) if differing.size else np.arange(0)
    if not len(rows):
        return []
    first = int(rows[0])
    return [
        f"row {first} is {show(got[first].tolist())}, not {show(want[first].tolist())} "
        f"({len(rows)} of {len(want)} rows differ{bound})"
    ]


def place_rows(expected: Sequence[Any], numbers: Sequence[int], actual: Sequence[Any]) -> Sequence[Any]:
    """Return the expected outputs with those of some rows replaced by actual ones, to compare on the scale of all rows.

    Args:
        expected: one entry a row.
        numbers: of the rows with actual outputs.
        actual: their entries, in that order. If their shape differs from the expected one, they are returned alone, so
            that `compare` reports the shape.
    """
    if np.shape(actual) != (len(numbers), *np.shape(expected)[1:]):
        return actual
    placed = list(expected)
    for number, entry in zip(numbers, actual, strict=True):
        placed[number] = entry
    return placed


def measure_deviation(expected: Sequence[Any], actual: Sequence[Any]) -> float | None:
    """Return the greatest distance of two outputs, relative to the scale; None where it has no meaning."""
    want, got = _read(expected), _read(actual)
    if want.shape != got.shape or "U" in want.dtype.kind + got.dtype.kind:
        return None
    finite = np.isfinite(want) & np.isfinite(got)
    distances = np.abs(got[finite] - want[finite])
    return float(np.max(distances, initial=0.0) / scale_of(want))


def scale_of(outputs: Array) -> float:
    """Return the greatest magnitude of the finite numbers; 1 where all of them are 0 or there are none."""
    finite = outputs[np.isfinite(outputs)]
    return float(np.max(np.abs(finite), initial=0.0)) or 1.0


def _read(outputs: Sequence[Any]) -> Array:
    array = np.asarray(outputs)
    return (
        array if array.dtype.kind == "U" else array.astype(np.float64)
    )  # null, which stands for NaN in JSON, becomes NaN


def _kind(array: Array) -> str:
    return "names" if array.dtype.kind == "U" else "numbers"
