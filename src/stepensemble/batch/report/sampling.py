"""A sample of a run's rows that does not depend on how they were cut into shards: those with the smallest keys.

A row's key is a hash of its file and number, so samples of shards add up to that of all of their rows, in any order
(a "bottom-k" sample: E. Cohen and H. Kaplan, Summarizing data using bottom-k sketches, 2007).
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from stepensemble.core.arrays import Floats, Hashes

SAMPLED = 500
"""Rows in a sample at most."""


class Sample(Struct, frozen=True):
    """Predictions of some rows, with their keys, ascending, and the truth where it is known."""

    rows: tuple[tuple[int, float, float | None], ...] = ()


def compute_keys(file: str, numbers: npt.NDArray[np.int64]) -> Hashes:
    """Return a key for each row of a file: the finalizer of SplitMix64 (G. Steele, D. Lea, C. Flood, 2014)."""
    seed = np.uint64(int.from_bytes(hashlib.sha256(file.encode()).digest()[:8], "little"))
    keys = seed + numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def take_sample(keys: Hashes, values: Floats, truth: Floats | None) -> Sample:
    """Return the sample of some rows: `SAMPLED` of them at most; the truth is NaN where it is not known."""
    least = np.argsort(keys, kind="stable")[:SAMPLED]
    known = np.full(len(values), np.nan) if truth is None else truth
    entries = zip(keys[least].tolist(), values[least].tolist(), known[least].tolist(), strict=True)
    return Sample(tuple((key, value, None if np.isnan(true) else true) for key, value, true in entries))


def add_samples(one: Sample, other: Sample) -> Sample:
    """Return the sample of the rows of both."""
    by_key = {entry[0]: entry for entry in (*one.rows, *other.rows)}
    return Sample(tuple(by_key[key] for key in sorted(by_key)[:SAMPLED]))
