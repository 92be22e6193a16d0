"""Which class was answered for which label, and whether that looks like labels or classes in another order.

What can be seen in the counts is said here. Where labels that are indexes and the classes are reversed alike, nothing
can: all answers look right, and mean the opposite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

LEAST_DEVIATIONS = 4.0
"""Standard deviations by which something must lie beyond chance to be reported: of 30,000 runs one would, by chance."""

LEAST_RATIO = 2.0
"""So many times as many answers must be right in the other order."""


def find_suspicion(classes: Sequence[str], confusion: Mapping[str, Mapping[str, int]]) -> str | None:
    """Say what is strange about answers and labels; None where nothing is.

    - Each class's labels are mostly answered as another class, a different one each: then these classes may be in
      another order. Compared is how many rows of the classes that change are right before and after, by a sign test (Q.
      McNemar, Note on the sampling error of the difference between correlated proportions or percentages, 1947).
    - Fewer answers are right than would be if answers and labels had nothing to do with one another: the share by
      chance is that of J. Cohen (A coefficient of agreement for nominal scales, 1960).

    Args:
        classes: of the task.
        confusion: rows by the true class and, within that, by the answered one (`tally.Tally.confusion`).
    """
    counts = np.array([[confusion.get(true, {}).get(said, 0) for said in classes] for true in classes], np.float64)
    total = counts.sum()
    if not total:
        return None
    right = np.trace(counts) / total
    order = counts.argmax(axis=1)
    order = np.where(counts.any(axis=1), order, np.arange(len(classes)))
    moved = np.flatnonzero(order != np.arange(len(classes)))
    if len(moved) and len(set(order.tolist())) == len(classes):
        before, after = counts[moved, moved].sum(), counts[moved, order[moved]].sum()
        if after >= LEAST_RATIO * before and after - before >= LEAST_DEVIATIONS * np.sqrt(after + before):
            swapped = ", ".join(
                f"{classes[true]} as {classes[said]}" for true, said in enumerate(order) if true in moved
            )
            return (
                f"labels and classes seem to be in different orders: with {swapped} "
                f"{(right + (after - before) / total):.1%} would be right instead of {right:.1%}"
            )
    chance = float(counts.sum(axis=0) @ counts.sum(axis=1)) / total**2
    if right < chance - LEAST_DEVIATIONS * np.sqrt(chance * (1 - chance) / total):
        return (
            f"{right:.1%} right is less than the {chance:.1%} of answers that have nothing to do with the labels; look "
            "at the order of the classes, and at the column of the labels"
        )
    return None
