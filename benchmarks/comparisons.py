"""Read the claims that the benchmarks wrote into benchmarks/results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from timing import Comparison

BENCHMARKS_WITH_GOALS = ("in_process", "serving", "million", "growth", "footprint")
"""Benchmarks with claims, in the order in which they are reported."""

SELF_COMPARISONS = frozenset({"growth", "footprint"})
"""Benchmarks whose claims compare this project with itself."""


def read_result(folder: Path, name: str) -> Mapping[str, Any]:
    """Return a benchmark's result."""
    result: Mapping[str, Any] = msgspec.json.decode((folder / f"{name}.json").read_bytes())
    return result


def read_comparisons(folder: Path) -> dict[str, Sequence[Comparison]]:
    """Return every claim, by the name of its benchmark."""
    return {
        name: msgspec.convert(read_result(folder, name)["claims"], list[Comparison]) for name in BENCHMARKS_WITH_GOALS
    }


def name_ratio_unit(claim: Comparison) -> str:
    """Return the unit of a ratio: times as fast, as long, or as large."""
    if claim.of == "size":
        return "times as large"
    return "times as long" if claim.slower else "times as fast"


def format_comparison(claim: Comparison) -> str:
    """Return a claim as a sentence."""
    bound = "at most" if claim.slower else "at least"
    ratio = f"{claim.ratio.median:,.4g} {name_ratio_unit(claim)} as {claim.against}"
    return f"{claim.what}: {ratio} (goal {bound} {claim.goal:g})"
