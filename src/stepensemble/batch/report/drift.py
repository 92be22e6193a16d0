"""How far a run's rows and answers lie from those of the run before: the population stability index.

With p and q the shares of the rows that fall into each bin, before and now, it is Σ (p - q) · ln(p / q): zero where
all shares are equal, the same in both directions, and never negative, since both factors of a term have the same sign.
It is the symmetrised divergence of S. Kullback and R. A. Leibler (On Information and Sufficiency, 1951); as an index of
drift N. Siddiqi describes it (Credit Risk Scorecards, Wiley 2006): below 0.1 the shift is little, up to 0.25 moderate,
above large. An empty bin counts as a share of `LEAST_SHARE`, or the index were infinite.

Bins of numbers come from an ensemble's first run (`choose_edges`) and go from run to run, so that like is compared with
like; `tally` counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from stepensemble.core.arrays import Floats
from stepensemble.core.schema.manifest import BooleanFeature, CategoryFeature, Feature, NumberFeature
from stepensemble.core.schema.task import MulticlassTask, RegressionTask, Task

BINS = 10
"""Of numbers, as many rows in each of them in the first run; ties make them fewer."""

MOST_CATEGORIES = 100
"""Each category has a bin of its own, up to so many."""

PROBABILITIES = tuple(round(0.05 * number, 2) for number in range(1, 20))
"""Edges for probabilities."""

_POSITIVE = tuple(float(10 ** (number / 20)) for number in range(-60, 181))
MAGNITUDES = (*(-edge for edge in reversed(_POSITIVE)), 0.0, *_POSITIVE)
"""Edges for a regression's answers, which nobody knows before the first run: a thousandth to a billion, and below zero
as well, in steps of a twentieth of a decade."""

PREDICTION = ""
"""What the prediction is called among the features."""

LEAST_SHARE = 1e-4
"""Of an empty bin."""


def stability_index(before: Sequence[int] | npt.NDArray[np.int64], now: Sequence[int] | npt.NDArray[np.int64]) -> float:
    """Return the population stability index of two histograms with the same bins.

    Args:
        before: rows a bin; at least one row.
        now: the same.

    Raises:
        ValueError: there are not as many bins, or no rows in one of them.
    """
    counts = np.array([before, now], np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    if not totals.all():
        raise ValueError("a histogram without rows has no shares")
    p, q = np.maximum(counts / totals, LEAST_SHARE)
    return float(np.sum((p - q) * np.log(p / q)))


def choose_edges(values: Floats) -> tuple[float, ...]:
    """Return the edges between bins that share the values equally, ascending; each edge belongs to the bin above it.

    Where there are at most `BINS` different values, such as zeros and ones, each has a bin of its own.

    Args:
        values: NaN is left out: it is no number.

    Returns:
        at most `BINS - 1` edges; none where all values are equal or there are none.
    """
    different = np.unique(values[~np.isnan(values)])
    if len(different) > BINS:
        shares = np.linspace(0, 1, BINS + 1)[1:-1]
        different = np.unique([different[0], *np.nanquantile(values, shares, method="inverted_cdf")])
    return tuple(different[1:].tolist())


def first_edges(features: Sequence[Feature], task: Task, values: Mapping[str, Floats]) -> dict[str, tuple[float, ...]]:
    """Return the edges by which an ensemble's first run is counted.

    Args:
        features: of the release; a tensor is not counted.
        task: what is predicted; multiclass answers are counted by the class's index.
        values: of some rows, by feature, as `encoding.Encoded` has them: of a category its place in the vocabulary.
    """
    edges: dict[str, tuple[float, ...]] = {}
    for feature in features:
        some = values.get(feature.name, np.empty(0))
        if isinstance(feature, BooleanFeature):
            edges[feature.name] = (1.0,)
        elif isinstance(feature, CategoryFeature):
            places = len(feature.vocabulary) + (feature.unknown == "other")
            edges[feature.name] = _between(places) if places <= MOST_CATEGORIES else choose_edges(some)
        elif isinstance(feature, NumberFeature):
            edges[feature.name] = choose_edges(some)
    if isinstance(task, RegressionTask):
        edges[PREDICTION] = MAGNITUDES
    elif isinstance(task, MulticlassTask):
        edges[PREDICTION] = _between(len(task.classes))
    else:
        edges[PREDICTION] = PROBABILITIES
    return edges


def _between(places: int) -> tuple[float, ...]:
    return tuple(float(place) for place in range(1, places))
