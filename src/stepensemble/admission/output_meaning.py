"""Suspicious outputs: numbers that look like another kind than the manifest declares.

`core.aggregation.canonical.canonical` rejects numbers that cannot be of the declared kind. Numbers that can be, and
look like another kind, become a wrong probability without any error: a sigmoid of a sigmoid is between 0.5 and 0.73.
"""

from __future__ import annotations

import numpy as np

from stepensemble.core.aggregation.probability import row_sum
from stepensemble.core.arrays import Array
from stepensemble.core.problems import Suspicion
from stepensemble.core.schema.outputs import TOLERANCE, Logit, Logits, Output, Probability


def suspect_kind(values: Array, output: Output) -> Suspicion | None:
    """Return why a declared kind of output looks wrong; None if nothing is suspicious.

    Logarithms of probabilities are logits: their softmax is the probabilities. A logit cannot be distinguished from
    the logarithm of one class's probability.

    Args:
        values: outputs that `core.aggregation.canonical.canonical` accepts under that kind.
        output: the declaration.
    """
    low, high = (float(values.min()), float(values.max())) if values.dtype.kind != "U" else (0.0, 0.0)
    seen = f"all {len(values)} golden outputs are numbers from {low:.4g} to {high:.4g}"
    match output:
        case Logit() if low >= 0 and high <= 1:
            return Suspicion(
                f"{seen}, like probabilities",
                'declare "probability" if the sigmoid is part of the model; ignore this if they are log-odds',
            )
        case Logits() if low >= 0 and np.abs(row_sum(values.astype(np.float64)) - 1).max() <= TOLERANCE:
            return Suspicion(
                f"{seen}, and each row sums to 1, like probabilities",
                'declare "probabilities" if the softmax is part of the model; ignore this if they are logits',
            )
        case Probability() if np.isin(values, (0, 1)).all():
            return Suspicion(
                f"{seen}, and none between 0 and 1",
                'declare "label" if it is the index of a class, or give "golden" rows of which the model is less sure',
            )
    return None
