"""Compares results computed here with results written on another machine.

The same float32 model gives other last bits on another processor, as its kernels add in another order and approximate
exponentials otherwise. So the files beside `events/`, and the numbers that the docs show, hold within a tolerance, and
everything that is no such number exactly: keys, labels, names, counts, statuses. Two ways into one machine are compared
bit by bit, and not with this.

The tolerance. A sum of n products is off by at most n u of the sum of their magnitudes, whatever the order of its
additions, where u is half of float32's eps (N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed. 2002,
section 3.1); what a layer hands on, the next adds up again. To the first order a model is so off by N u, where N counts
the products on the way through all of its layers, and two machines are apart by twice that: N eps. `ADDITIONS` is the N
of the largest shipped model; magnitudes are of the order of 1 (columns are scaled, probabilities are within 1), and the
slope of a sigmoid or softmax, at most 1/4, leaves room for those above. What is seen is far below it, 1.5e-7, since
errors cancel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ADDITIONS = 737
"""Of the ensemble of digits, member deep: 9 + 8 * 9 + 16 * 9 for its filters, and 512 for its last layer."""

TOLERANCE = ADDITIONS * float(np.finfo(np.float32).eps)
"""8.8e-5; of numbers beyond 1 relative to them."""

TRAINED = 10 * TOLERANCE
"""Of a model that is trained once more: 300 steps of Adam move a weight by at most 0.01 each, 3 in all, and what a
gradient is off by moves with it; so weights are off by three times as much as an output is, and the outputs of a model
with such weights by as much again for its layers, of which none has more than five. Within one kind of processor
training gives the same bytes."""

NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?![\w.]*\w)")


def assert_as_written(computed: Any, written: Any, path: str = "$") -> None:
    """Compare two JSON documents: floats within the tolerance, all else exactly."""
    if isinstance(written, Mapping):
        assert isinstance(computed, Mapping), path
        assert computed.keys() == written.keys(), path
        for key, value in written.items():
            assert_as_written(computed[key], value, f"{path}.{key}")
    elif isinstance(written, Sequence) and not isinstance(written, str):
        assert isinstance(computed, Sequence), path
        assert len(computed) == len(written), path
        for place, value in enumerate(written):
            assert_as_written(computed[place], value, f"{path}[{place}]")
    elif isinstance(written, float) and isinstance(computed, int | float) and not isinstance(computed, bool):
        assert abs(computed - written) <= TOLERANCE * max(1.0, abs(written)), f"{path}: {computed}, not {written}"
    else:
        assert type(computed) is type(written), path
        assert computed == written, f"{path}: {computed!r}, not {written!r}"


def assert_as_shown(printed: Sequence[str], shown: Sequence[str]) -> None:
    """Compare lines of text: a decimal fraction may be rounded to the next last digit, all else is exact."""
    assert [_blank(line) for line in printed] == [_blank(line) for line in shown]
    for line, other in zip(printed, shown, strict=True):
        for number, expected in zip(_fractions(line), _fractions(other), strict=True):
            unit = 10.0 ** -len(expected.partition(".")[2])
            one, two = (float(text.replace(",", "")) for text in (number, expected))
            assert abs(one - two) <= unit * 1.001 + TOLERANCE * max(1.0, abs(two)), f"{line!r}, not {other!r}"


def _fractions(line: str) -> list[str]:
    return [number for number in NUMBER.findall(line) if "." in number]


def _blank(line: str) -> str:
    """Replace a decimal fraction by the number of its decimal places."""
    return NUMBER.sub(lambda found: re.sub(r"-?\d[\d,]*\.(\d+)", lambda digits: "#" * len(digits[1]), found[0]), line)
