"""Compares predictions with the ground truth: accuracy, error, and calibration in bins that have enough rows."""

from __future__ import annotations

import math
from typing import NamedTuple

from msgspec import Struct, structs

from stepensemble.batch.report.statistics import Accuracy, ShardStatistics
from stepensemble.core.releases.release import Release
from stepensemble.core.schema.task import RegressionTask

JOINED_BINS, MIN_ROWS = 10, 20
"""How many bins a calibration has at most, and how many rows each bin has at least, if there are so many."""

NORMAL = 1.959964
"""The normal distribution's 97.5 % quantile: bounds with it cover the true share in 95 of 100 cases."""


class Calibration(Struct, frozen=True):
    """How the predictions of a member, or of the ensemble, compare with the ground truth.

    Attributes:
        rows: rows whose ground truth is known.
        accuracy: share of them with the right label; None for a regression.
        brier_score: mean of the squared differences that `statistics.Accuracy` sums; None for a regression, and without
            probabilities.
        mean_absolute_error: for a regression; otherwise None.
        calibration_error: the expected calibration error: the mean distance of `mean_predicted` from `observed`,
            weighted by rows (M. Naeini, G. Cooper, M. Hauskrecht, Obtaining Well Calibrated Probabilities Using
            Bayesian Binning, 2015); None without probabilities.
        counts: rows by bins of a probability, ascending, with about as many rows in each (see `_join_bins`); empty
            without probabilities, as are the next two.
        mean_predicted: the mean probability in each bin.
        observed: the share of each bin's rows whose true class is the one that the probability is of.
    """

    rows: int
    accuracy: float | None = None
    brier_score: float | None = None
    mean_absolute_error: float | None = None
    calibration_error: float | None = None
    counts: tuple[int, ...] = ()
    mean_predicted: tuple[float, ...] = ()
    observed: tuple[float, ...] = ()

    @property
    def error(self) -> float | None:
        """The Brier score, or the mean absolute error of a regression; smaller is better."""
        return self.brier_score if self.mean_absolute_error is None else self.mean_absolute_error


class CalibrationSummary(Struct, frozen=True):
    """The calibration of the ensemble, and of its members by id, in the release's order."""

    ensemble: Calibration
    members: dict[str, Calibration] = {}


class Bin(NamedTuple):
    """Rows whose probability is in a range: how many, the sum of probabilities, and how often the class was true."""

    rows: int = 0
    probability_sum: float = 0.0
    observed: int = 0

    def join(self, other: Bin) -> Bin:
        """Return the bin of the rows of both."""
        return Bin(self.rows + other.rows, self.probability_sum + other.probability_sum, self.observed + other.observed)


def calibrate(release: Release, statistics: ShardStatistics) -> CalibrationSummary | None:
    """Return the calibration of the ensemble and of the members; None without ground truth."""
    if not statistics.accuracy.rows:
        return None
    regression = isinstance(release.task, RegressionTask)
    members = {
        member.id: statistics.members[member.id].accuracy
        for member in release.members
        if member.id in statistics.members
    }
    return CalibrationSummary(
        _calibrate_one(statistics.accuracy, regression=regression),
        {id_: _calibrate_one(accuracy, regression=regression) for id_, accuracy in members.items()},
    )


def _calibrate_one(accuracy: Accuracy, *, regression: bool) -> Calibration:
    error = _divide(accuracy.error_sum, accuracy.scored)
    if regression:
        return Calibration(rows=accuracy.rows, mean_absolute_error=error)
    measured = Calibration(rows=accuracy.rows, accuracy=_divide(accuracy.correct, accuracy.rows), brier_score=error)
    scored = sum(accuracy.counts)
    if not scored:
        return measured
    bins = _join_bins(accuracy)
    return structs.replace(
        measured,
        calibration_error=sum(abs(one.probability_sum - one.observed) for one in bins) / scored,
        counts=tuple(one.rows for one in bins),
        mean_predicted=tuple(one.probability_sum / one.rows for one in bins),
        observed=tuple(one.observed / one.rows for one in bins),
    )


def _join_bins(accuracy: Accuracy) -> list[Bin]:
    """Join neighbouring bins until each has its share of the rows.

    There are at most `JOINED_BINS`, and fewer if these would have less than `MIN_ROWS` rows each. A bin of the
    statistics is never split, so a probability that many rows share stays in one bin.
    """
    least = sum(accuracy.counts) / max(1, min(JOINED_BINS, sum(accuracy.counts) // MIN_ROWS))
    joined: list[Bin] = []
    current = Bin()
    for one in zip(accuracy.counts, accuracy.probability_sums, accuracy.observed_counts, strict=True):
        current = current.join(Bin(*one))
        if current.rows >= least:
            joined.append(current)
            current = Bin()
    if current.rows and joined and 2 * current.rows < least:
        current = joined.pop().join(current)
    return [*joined, current] if current.rows else joined


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
