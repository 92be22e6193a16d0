"""Arithmetic of probabilities, one row beside the other: no row's result depends on its neighbours'."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from stepensemble.core.arrays import Floats

LEAST = 5e-324
"""The smallest positive number: it has a logarithm."""


def sigmoid(logits: Floats) -> Floats:
    """Return 1 / (1 + exp(-x)), without overflow at either end."""
    small = np.exp(-np.abs(logits))
    result: Floats = np.where(logits >= 0, 1.0, small) / (1.0 + small)
    return result


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Return exp(x / T) / sum(exp(x / T)) of each row, its maximum taken off first so that nothing overflows."""
    with np.errstate(over="ignore"):  # below all floats is -inf, whose power is 0 as it should be
        below = (logits - row_max(logits)[:, None]) / temperature
    powers = np.exp(below)
    result: Floats = powers / row_sum(powers)[:, None]
    return result


def normalize_rows(supports: Floats) -> Floats:
    """Divide each row of numbers >= 0 by its sum; a row of zeros, which prefers no class, becomes uniform."""
    totals = row_sum(supports)[:, None]
    nothing = totals == 0
    result: Floats = np.where(nothing, 1.0 / supports.shape[1], supports / np.where(nothing, 1.0, totals))
    return result


def entropy(probabilities: Floats) -> Floats:
    """Return each row's Shannon entropy in nats, 0 to ln(classes); 0 ln 0 is 0."""
    logs = np.log(np.maximum(probabilities, LEAST))
    logs *= probabilities
    result: Floats = np.abs(row_sum(logs))  # not by a minus, which makes -0.0 of 0.0
    return result


def row_sum(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return each row's sum, added up from the first column to the last.

    Column by column the order is the same for any number of rows; and of a few columns it takes half the time.
    """
    return reduce(np.add, numbers.T)


def row_max(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return each row's greatest number; column by column, too."""
    return reduce(np.maximum, numbers.T)


def complement(second: Floats) -> Floats:
    """Return `(rows, 2)` from the second class's probability; the first is what it leaves.

    Each class by itself in memory, since all that is done with them is done column by column.
    """
    both = np.empty((len(second), 2), order="F")
    np.subtract(1.0, second, out=both[:, 0])
    both[:, 1] = second
    return both
