"""What was said against what was true, in bins that have rows enough to say something."""

from __future__ import annotations

import math

from msgspec import Struct, structs

from stepensemble.batch.report.drift import PREDICTION
from stepensemble.batch.report.statistics import Accuracy, ShardStatistics
from stepensemble.core.releases.release import Release
from stepensemble.core.schema.task import RegressionTask

JOINED_BINS, LEAST_ROWS = 10, 20
"""Of a calibration: how many bins, and how many rows each has at least, where there are so many."""

NORMAL = 1.959964
"""The normal distribution's 97.5 % quantile: bounds with it hold the truth in 95 of 100 cases."""


class Calibration(Struct, frozen=True):
    """What was said against what was true, of a member or, named "", of the ensemble.

    Attributes:
        rows: whose truth is known.
        right: share of them with the right label; None of a regression.
        error: mean of what `tally.Accuracy` says; None where nothing has it.
        expected: expected calibration error: the mean distance of `said` from `true`, weighted by rows (M. Naeini, G.
            Cooper, M. Hauskrecht, Obtaining Well Calibrated Probabilities Using Bayesian Binning, 2015); None without
            probabilities.
        counts: rows by bins of a probability, ascending, with about as many rows in each (see `_join_bins`); empty
            without probabilities, as are the other two.
        said, true: by the same bins, the mean probability, and the share of rows for which it was so.
    """

    name: str
    rows: int
    right: float | None
    error: float | None
    expected: float | None = None
    counts: tuple[int, ...] = ()
    said: tuple[float, ...] = ()
    true: tuple[float, ...] = ()


def calibrate(release: Release, tally: ShardStatistics) -> tuple[Calibration, ...]:
    """Return the calibration of the members and, last, of the ensemble; nothing without labels."""
    if not tally.accuracy.rows:
        return ()
    regression = isinstance(release.task, RegressionTask)
    measured = {
        member.id: tally.members[member.id].accuracy for member in release.members if member.id in tally.members
    }
    return tuple(
        _calibrate_one(name, accuracy, regression=regression)
        for name, accuracy in [*measured.items(), (PREDICTION, tally.accuracy)]
    )


def _calibrate_one(name: str, accuracy: Accuracy, *, regression: bool) -> Calibration:
    known = Calibration(
        name=name,
        rows=accuracy.rows,
        right=None if regression else _divide(accuracy.right, accuracy.rows),
        error=_divide(accuracy.error, accuracy.scored),
    )
    scored = sum(accuracy.counts)
    if not scored:
        return known
    bins = _join_bins(accuracy)
    return structs.replace(
        known,
        expected=sum(abs(said - true) for _, said, true in bins) / scored,
        counts=tuple(rows for rows, _, _ in bins),
        said=tuple(said / rows for rows, said, _ in bins),
        true=tuple(true / rows for rows, _, true in bins),
    )


def _join_bins(accuracy: Accuracy) -> list[tuple[int, float, int]]:
    """Join neighbouring bins until each has its share of the rows, and return rows, sum of what was said, and hits.

    There are at most `JOINED_BINS`, fewer where these would have less than `LEAST_ROWS` rows each. A bin of the tally
    is never cut, so probabilities that many rows share stay together.
    """
    least = sum(accuracy.counts) / max(1, min(JOINED_BINS, sum(accuracy.counts) // LEAST_ROWS))
    joined: list[tuple[int, float, int]] = []
    rows, said, true = 0, 0.0, 0
    for one in zip(accuracy.counts, accuracy.said, accuracy.true, strict=True):
        rows, said, true = rows + one[0], said + one[1], true + one[2]
        if rows >= least:
            joined.append((rows, said, true))
            rows, said, true = 0, 0.0, 0
    if rows and joined and 2 * rows < least:
        last = joined.pop()
        rows, said, true = rows + last[0], said + last[1], true + last[2]
    return [*joined, (rows, said, true)] if rows else joined


def bound_share(hits: float, rows: int) -> tuple[float, float]:
    """Return the bounds of a share at 95 %, by the score interval of E. Wilson (Probable inference, 1927).

    Args:
        hits: 0 to rows.
        rows: at least one.
    """
    share, spread = hits / rows, NORMAL**2 / rows
    middle = (share + spread / 2) / (1 + spread)
    half = NORMAL * math.sqrt(share * (1 - share) / rows + spread / (4 * rows)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def _divide(part: float, whole: int) -> float | None:
    return part / whole if whole else None
