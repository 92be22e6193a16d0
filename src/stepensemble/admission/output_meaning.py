"""Meaning: do a member's numbers look like something else than what the manifest declares?

What cannot be what is declared is refused (`core.aggregation.canonical.canonical`). What can be, and looks like
another kind all the
same, is computed without an error into a wrong probability: a sigmoid of a sigmoid lies between 0.5 and 0.73.
"""

from __future__ import annotations

import numpy as np

from stepensemble.core.aggregation.probability import row_sum
from stepensemble.core.arrays import Array
from stepensemble.core.schema.outputs import TOLERANCE, Logit, Logits, Output, Probability

Doubt = tuple[str, str]
"""What speaks against the declared kind, and what to do."""


def doubt_meaning(said: Array, output: Output) -> Doubt | None:
    """Return what speaks against the kind that is declared of some answers; None where nothing does.

    Logarithms of probabilities are logits: their softmax is the probabilities. A logit cannot be
    distinguished from the logarithm of one class's probability.

    Args:
        said: as `core.aggregation.canonical.canonical` accepts them under that kind.
        output: as declared.
    """
    low, high = (float(said.min()), float(said.max())) if said.dtype.kind != "U" else (0.0, 0.0)
    seen = f"all {len(said)} golden answers are numbers from {low:.4g} to {high:.4g}"
    match output:
        case Logit() if low >= 0 and high <= 1:
            return (
                f"{seen}, as probabilities are",
                'declare "probability" if the sigmoid is part of the model; ignore this if they are log-odds',
            )
        case Logits() if low >= 0 and np.abs(row_sum(said.astype(np.float64)) - 1).max() <= TOLERANCE:
            return (
                f"{seen}, with a sum of 1 a row, as probabilities are",
                'declare "probabilities" if the softmax is part of the model; ignore this if they are logits',
            )
        case Probability() if np.isin(said, (0, 1)).all():
            return (
                f"{seen}, and none between 0 and 1",
                'declare "label" if it is the index of a class, or give "golden" rows of which the model is less sure',
            )
    return None
