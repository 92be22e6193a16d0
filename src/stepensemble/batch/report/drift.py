"""Measures how far a run's rows and predictions are from those of an earlier run: the population stability index.

With p and q the shares of the rows in each bin, in the earlier run and in this one, the index is Σ (p - q) · ln(p / q).
It is zero if all shares are equal, the same in both directions, and never negative, since both factors of a term have
the same sign. It is the symmetrised divergence of S. Kullback and R. A. Leibler (On Information and Sufficiency, 1951).
N. Siddiqi describes it as an index of drift (Credit Risk Scorecards, Wiley 2006): a shift below 0.1 is small, from 0.1
to 0.25 moderate, from 0.25 on large. An empty bin counts as a share of `MIN_SHARE`, since the index would be infinite.

The bins of numbers are chosen in an ensemble's first run (`choose_edges`) and passed on from run to run, so that all
runs are compared by the same bins. `statistics` counts the rows in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from stepensemble.batch.documents import BinEdges
from stepensemble.core.arrays import Floats
from stepensemble.core.schema.manifest import BooleanFeature, CategoryFeature, Feature, NumberFeature
from stepensemble.core.schema.task import MulticlassTask, RegressionTask, Task

BINS = 10
"""Bins of a number, with as many rows in each of them in the first run; ties make them fewer."""

MAX_CATEGORIES = 100
"""Up to so many categories, each has a bin of its own."""

PROBABILITIES = tuple(round(0.05 * number, 2) for number in range(1, 20))
"""Edges for probabilities."""

_POSITIVE = tuple(float(10 ** (number / 20)) for number in range(-60, 181))
MAGNITUDES = (*(-edge for edge in reversed(_POSITIVE)), 0.0, *_POSITIVE)
"""Edges for a regression's predictions, whose range is unknown before the first run: from a thousandth to a billion,
and the same below zero, in steps of a twentieth of a decade."""

MIN_SHARE = 1e-4
"""The share that an empty bin counts as."""


def stability_index(before: Sequence[int] | npt.NDArray[np.int64], now: Sequence[int] | npt.NDArray[np.int64]) -> float:
    """Return the population stability index of two histograms with the same bins.

    Args:
        before: rows in each bin; at least one row in all.
        now: the same, of the other run.

    Raises:
        ValueError: the numbers of bins differ, or a histogram has no rows.
    """
    counts = np.array([before, now], np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    if not totals.all():
        raise ValueError("a histogram without rows has no shares")
    p, q = np.maximum(counts / totals, MIN_SHARE)
    return float(np.sum((p - q) * np.log(p / q)))


def choose_edges(values: Floats) -> tuple[float, ...]:
    """Return ascending edges between bins with equally many values; each edge belongs to the bin above it.

    If there are at most `BINS` distinct values, such as zeros and ones, each has a bin of its own.

    Args:
        values: NaN is ignored.

    Returns:
        At most `BINS - 1` edges; none if all values are equal or there are none.
    """
    distinct = np.unique(values[~np.isnan(values)])
    if len(distinct) > BINS:
        shares = np.linspace(0, 1, BINS + 1)[1:-1]
        distinct = np.unique([distinct[0], *np.nanquantile(values, shares, method="inverted_cdf")])
    return tuple(distinct[1:].tolist())


def first_edges(features: Sequence[Feature], task: Task, values: Mapping[str, Floats]) -> BinEdges:
    """Return the edges of the bins for an ensemble's first run.

    Args:
        features: of the release; tensors and images have no histogram.
        task: the task; multiclass predictions are counted by the class's index.
        values: of some rows, by feature, as in `frame_encoder.EncodedRows`: a category as its index in the vocabulary.
    """
    edges: dict[str, tuple[float, ...]] = {}
    for feature in features:
        some = values.get(feature.name, np.empty(0))
        if isinstance(feature, BooleanFeature):
            edges[feature.name] = (1.0,)
        elif isinstance(feature, CategoryFeature):
            categories = len(feature.vocabulary) + (feature.unknown == "other")
            edges[feature.name] = _between(categories) if categories <= MAX_CATEGORIES else choose_edges(some)
        elif isinstance(feature, NumberFeature):
            edges[feature.name] = choose_edges(some)
    if isinstance(task, RegressionTask):
        return BinEdges(MAGNITUDES, edges)
    return BinEdges(_between(len(task.classes)) if isinstance(task, MulticlassTask) else PROBABILITIES, edges)


def _between(codes: int) -> tuple[float, ...]:
    """Return the edges between the codes 0, 1, …, each in a bin of its own."""
    return tuple(float(code) for code in range(1, codes))
