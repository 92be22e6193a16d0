"""A sample of a run's rows that does not depend on how they are split into shards: the rows with the smallest keys.

A row's key is a hash of its file's name and its number. So the samples of shards can be merged, in any order, to the
sample of all their rows (a "bottom-k" sample: E. Cohen and H. Kaplan, Summarizing data using bottom-k sketches, 2007).
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from stepensemble.core.arrays import Floats, Hashes

SAMPLED = 500
"""Rows in a sample at most."""


class SampledRow(NamedTuple):
    """The key of a row, its prediction, and its ground truth; None where that is not known."""

    key: int
    predicted: float
    actual: float | None


class Sample(Struct, frozen=True):
    """Some rows, by ascending key."""

    rows: tuple[SampledRow, ...] = ()


def compute_keys(file: str, numbers: npt.NDArray[np.int64]) -> Hashes:
    """Return a key for each row of a file: the finalizer of SplitMix64 (G. Steele, D. Lea, C. Flood, 2014)."""
    seed = np.uint64(int.from_bytes(hashlib.sha256(file.encode()).digest()[:8], "little"))
    keys = seed + numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def take_sample(keys: Hashes, values: Floats, truth: Floats | None) -> Sample:
    """Return a sample of at most `SAMPLED` rows.

    Args:
        keys: `(rows,)`.
        values: `(rows,)`, the predictions.
        truth: `(rows,)`, NaN where it is not known; None if it is not known for any row.
    """
    smallest = np.argsort(keys, kind="stable")[:SAMPLED]
    known = np.full(len(values), np.nan) if truth is None else truth
    entries = zip(keys[smallest].tolist(), values[smallest].tolist(), known[smallest].tolist(), strict=True)
    return Sample(tuple(SampledRow(key, value, None if np.isnan(true) else true) for key, value, true in entries))


def merge_samples(one: Sample, other: Sample) -> Sample:
    """Return the sample of the rows of both."""
    by_key = {row.key: row for row in (*one.rows, *other.rows)}
    return Sample(tuple(by_key[key] for key in sorted(by_key)[:SAMPLED]))
