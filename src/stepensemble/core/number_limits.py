"""How great and how small the numbers of a manifest may be, so that no arithmetic on them leaves float64.

With `LARGEST` = 1e50: a float32 output, at most 3.4e38, is at most 3.5e88 once scaled, and no value may be beyond
`MOST_VALUE` = 1e90. A stack adds at most 1e50 * 1e90 a voter, so an ensemble of a million is at most 1e146. What
squares such a number, a variance or a sum of squares over all rows, stays below 1e300, and float64 ends at 1.8e308.
Weights are added and divided by their sum. A probability is divided by a threshold, a sample by `scale` and `std`, a
number by `std` or by the range of `min_max`, of which none is below `SMALLEST` = 1e-50.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

LARGEST = 1e50
SMALLEST = 1e-50
MOST_VALUE = 1e90

Number = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
Divisor = Annotated[float, Meta(ge=SMALLEST, le=LARGEST)]
