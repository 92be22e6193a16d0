"""Arithmetic of probabilities. No row's result depends on the other rows."""

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
    """Return exp(x / T) / sum(exp(x / T)) of each row; its maximum is subtracted first, to avoid overflow."""
    with np.errstate(over="ignore"):  # an overflow gives -inf, and exp(-inf) is 0 as required
        below = (logits - row_max(logits)[:, None]) / temperature
    powers = np.exp(below)
    result: Floats = powers / row_sum(powers)[:, None]
    return result


def normalize_rows(supports: Floats) -> Floats:
    """Divide each row of numbers >= 0 by its sum; a row of zeros becomes uniform."""
    totals = row_sum(supports)[:, None]
    zero = totals == 0
    result: Floats = np.where(zero, 1.0 / supports.shape[1], supports / np.where(zero, 1.0, totals))
    return result


def entropy(probabilities: Floats) -> Floats:
    """Return each row's Shannon entropy in nats, 0 to ln(classes); 0 ln 0 is 0."""
    logs = np.log(np.maximum(probabilities, LEAST))
    logs *= probabilities
    result: Floats = np.abs(row_sum(logs))  # a minus would turn 0.0 into -0.0
    return result


def row_sum(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return each row's sum, added up from the first column to the last.

    Column by column, the order is the same for any number of rows, and a few columns take half the time.
    """
    return reduce(np.add, numbers.T)


def row_max(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return each row's greatest number, column by column as well."""
    return reduce(np.maximum, numbers.T)


def complement(second: Floats) -> Floats:
    """Return `(rows, 2)` from the second class's probability; the first class gets the rest.

    Each class is contiguous in memory, since every later step works column by column.
    """
    both = np.empty((len(second), 2), order="F")
    np.subtract(1.0, second, out=both[:, 0])
    both[:, 1] = second
    return both
