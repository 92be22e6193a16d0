"""Read the claims that the benchmarks wrote into benchmarks/results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from timing import Claim

CLAIMING = ("in_process", "serving", "million", "growth", "footprint")
"""Benchmarks with claims, in the order in which they are reported."""

APART = frozenset({"growth", "footprint"})
"""Benchmarks whose claims compare this project with itself."""


def read_result(folder: Path, name: str) -> Mapping[str, Any]:
    """Return a benchmark's result."""
    result: Mapping[str, Any] = msgspec.json.decode((folder / f"{name}.json").read_bytes())
    return result


def read_claims(folder: Path) -> dict[str, Sequence[Claim]]:
    """Return every claim, by the name of its benchmark."""
    return {name: msgspec.convert(read_result(folder, name)["claims"], list[Claim]) for name in CLAIMING}


def describe_claim(claim: Claim) -> str:
    """Return the unit of a ratio: times as fast, as long, or as large."""
    if claim.of == "size":
        return "times as large"
    return "times as long" if claim.slower else "times as fast"


def format_claim(claim: Claim) -> str:
    """Return a claim as a sentence."""
    bound = "at most" if claim.slower else "at least"
    ratio = f"{claim.ratio.median:,.4g} {describe_claim(claim)} as {claim.against}"
    return f"{claim.what}: {ratio} (goal {bound} {claim.goal:g})"
