"""Limits of the numbers in a manifest, chosen so that no arithmetic on them overflows float64.

`LARGEST` is 1e50. A float32 output is at most 3.4e38, so at most 3.5e88 after scaling; a value beyond `MAX_VALUE` =
1e90 is rejected. A stack adds at most 1e50 * 1e90 for each voter, so the sum of a million voters is at most 1e146.
Its square, in a variance or a sum of squares over all rows, stays below 1e300; float64 ends at 1.8e308. Weights are
summed and divided by their sum. Probabilities are divided by a threshold, samples by `scale` and `std`, numbers by
`std` or by the range of `min_max`; no divisor is below `SMALLEST` = 1e-50.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

LARGEST = 1e50
SMALLEST = 1e-50
MAX_VALUE = 1e90

Number = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
Divisor = Annotated[float, Meta(ge=SMALLEST, le=LARGEST)]
