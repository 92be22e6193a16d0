"""A sample of a run's rows does not depend on how they are split into shards."""

from __future__ import annotations

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from stepensemble.batch.report.sampling import SAMPLED, Sample, compute_keys, merge_samples, take_sample

ROWS = 3 * SAMPLED
NUMBERS = np.arange(1, ROWS + 1)
VALUES = NUMBERS / 7
TRUTH = np.where(NUMBERS % 3 == 0, np.nan, NUMBERS.astype(np.float64))


def sample(start: int, end: int, file: str = "a.csv") -> Sample:
    part = slice(start, end)
    return take_sample(compute_keys(file, NUMBERS[part]), VALUES[part], TRUTH[part])


@given(st.lists(st.integers(0, ROWS), max_size=4), st.booleans())
def test_samples_of_parts_are_merged_to_the_sample_of_the_whole(cuts: list[int], reverse: bool) -> None:
    parts = [sample(start, end) for start, end in pairwise(sorted({0, *cuts, ROWS}))]
    together = Sample()
    for part in reversed(parts) if reverse else parts:
        together = merge_samples(together, part)
    assert together == sample(0, ROWS)
    assert len(together.rows) == SAMPLED


def test_all_rows_are_equally_likely_to_be_sampled() -> None:
    rows = np.array([value for _, value, _ in sample(0, ROWS).rows]) * 7
    # A third of the 500 sampled rows, 167, is expected in each third; the hypergeometric standard deviation is 8.6.
    for third in range(3):
        there = np.count_nonzero((rows > third * SAMPLED) & (rows <= (third + 1) * SAMPLED))
        assert abs(there - SAMPLED / 3) < 5 * 8.6
    keys = compute_keys("a.csv", NUMBERS)
    assert len(set(keys.tolist())) == ROWS
    assert not set(keys.tolist()) & set(compute_keys("b.csv", NUMBERS).tolist())
    assert all((true is None) == (round(value * 7) % 3 == 0) for _, value, true in sample(0, ROWS).rows)
