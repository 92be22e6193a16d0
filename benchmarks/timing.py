"""Timing that is robust on a busy machine: compared tasks run in turns, and ratios are computed turn by turn."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from msgspec import Struct

Seconds = Sequence[float]


class Spread(Struct, frozen=True):
    """The median of several measurements, and their quartiles."""

    median: float
    low: float
    high: float


class Machine(Struct, frozen=True):
    """The machine and versions that the times depend on."""

    processor: str
    cores: int
    system: str
    python: str
    versions: Mapping[str, str]


class Comparison(Struct, frozen=True):
    """A measured comparison and its goal.

    Attributes:
        what: the measured part of this project.
        against: the alternative.
        ratio: how many times as fast as the alternative; if `slower`, how many times as long.
        goal: the smallest ratio that meets the goal; if `slower`, the largest.
        of: the measured quantity.
    """

    what: str
    against: str
    ratio: Spread
    goal: float
    slower: bool = False
    of: Literal["time", "size"] = "time"

    @property
    def met(self) -> bool:
        """Whether the median reaches the goal."""
        return self.ratio.median <= self.goal if self.slower else self.ratio.median >= self.goal


def run_in_turns(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Run every task once a round, one after the other, after a round that is not counted.

    Each round has an order of its own, so that no task always profits from the caches of the same other task.

    Returns the seconds of each task by its name, one value for each round.
    """
    for task in tasks.values():
        task()
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    order, generator = list(tasks), np.random.default_rng(rounds)
    for _ in range(rounds):
        generator.shuffle(order)
        for name in order:
            started = time.perf_counter()
            tasks[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def summarize(numbers: Sequence[float]) -> Spread:
    """Return median and quartiles, to four digits."""
    low, median, high = (float(f"{number:.4g}") for number in np.quantile(numbers, (0.25, 0.5, 0.75)))
    return Spread(median, low, high)


def show(spread: Spread, digits: int = 2) -> str:
    """Return a median with its quartiles."""
    median, low, high = (f"{number:,.{digits}f}" for number in (spread.median, spread.low, spread.high))
    return f"{median} [{low}, {high}]"


def compare(seconds: Seconds, reference: Seconds) -> Spread:
    """Return how many times as long as the reference something took, turn by turn."""
    return summarize([one / other for one, other in zip(seconds, reference, strict=True)])


def rate(seconds: Seconds, count: int) -> Spread:
    """Return the rate of `count` items a second."""
    return summarize([count / one for one in seconds])


def describe_machine(*packages: str) -> Machine:
    """Describe the machine, and the versions of these packages."""
    return Machine(
        processor=_name_processor(),
        cores=os.cpu_count() or 1,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions={package: version(package) for package in packages},
    )


def _name_processor() -> str:
    """Return the processor's name from Linux, or elsewhere from Python."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
