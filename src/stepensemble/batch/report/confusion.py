"""Warns about a confusion matrix that looks as if labels and classes were in different orders.

Only what the counts show can be found. If the indexes in the labels and the classes of the manifest are reversed in the
same way, every prediction looks right and means the opposite: the counts do not show that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

MIN_DEVIATIONS = 4.0
"""Standard deviations from chance at which a warning is given: by chance alone one run in 30,000 gets one."""

MIN_RATIO = 2.0
"""In the other order, at least this many times as many predictions must be right."""


def find_warning(classes: Sequence[str], confusion: Mapping[str, Mapping[str, int]]) -> str | None:
    """Return a warning about predictions and labels; None if nothing is unusual.

    - The rows of each class are mostly predicted as another class, a different one for each: these classes may be in
      another order. The rows of these classes that are right before and after reordering are compared by a sign test
      (Q. McNemar, Note on the sampling error of the difference between correlated proportions or percentages, 1947).
    - Fewer predictions are right than if predictions and labels were independent. The share expected by chance is that
      of J. Cohen (A coefficient of agreement for nominal scales, 1960).

    Args:
        classes: of the task.
        confusion: rows by true class, then by predicted class (`statistics.ShardStatistics.confusion`).
    """
    counts = np.array(
        [[confusion.get(true, {}).get(predicted, 0) for predicted in classes] for true in classes], np.float64
    )
    total = counts.sum()
    if not total:
        return None
    accuracy = np.trace(counts) / total
    order = counts.argmax(axis=1)
    order = np.where(counts.any(axis=1), order, np.arange(len(classes)))
    moved = np.flatnonzero(order != np.arange(len(classes)))
    if len(moved) and len(set(order.tolist())) == len(classes):
        before, after = counts[moved, moved].sum(), counts[moved, order[moved]].sum()
        if after >= MIN_RATIO * before and after - before >= MIN_DEVIATIONS * np.sqrt(after + before):
            swapped = ", ".join(
                f"{classes[true]} as {classes[predicted]}" for true, predicted in enumerate(order) if true in moved
            )
            return (
                f"labels and classes seem to be in different orders: with {swapped}, "
                f"{(accuracy + (after - before) / total):.1%} of the predictions would be right instead of "
                f"{accuracy:.1%}"
            )
    chance = float(counts.sum(axis=0) @ counts.sum(axis=1)) / total**2
    if accuracy < chance - MIN_DEVIATIONS * np.sqrt(chance * (1 - chance) / total):
        return (
            f"{accuracy:.1%} of the predictions are right, fewer than the {chance:.1%} expected by chance; check the "
            "order of the classes and the column of the labels"
        )
    return None
