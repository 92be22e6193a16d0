"""Draw the charts of docs/performance.md from benchmarks/results: ratios beside their goals, growth, cost.

The same results give the same bytes. Each chart names the digest of the results that it was drawn from.

    python benchmarks/charts.py
"""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cost
import matplotlib as mpl
import msgspec
import numpy as np
from comparisons import SELF_COMPARISONS, read_comparisons, read_result
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from timing import Comparison

from stepensemble.batch.report.charts import COLOURS, MEMBER_COLOURS
from stepensemble.batch.report.charts import STYLE as REPORTS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FOLDER = ROOT / "docs" / "charts"

INK, FAINT, MET, MISSED = COLOURS["ink"], COLOURS["faint"], COLOURS["prediction"], COLOURS["previous"]
OURS, OTHERS = "-", "--"
LABEL_WIDTH = 46
ROW_INCHES = 0.42
STYLE: Any = REPORTS | {
    "svg.fonttype": "path",  # text looks the same everywhere
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "figure.facecolor": "white",  # readable on a dark page, too
}
PLAIN = FuncFormatter(lambda number, _: f"{number:,g}")


def draw_ratios(folder: Path) -> Figure:
    """Draw every ratio as a bar that starts at 1, with a line for its quartiles and a marker for its goal."""
    claims = [claim for name, of in read_comparisons(folder).items() if name not in SELF_COMPARISONS for claim in of]
    faster, slower = ([claim for claim in claims if claim.slower == wanted] for wanted in (False, True))
    figure = Figure(figsize=(7.2, 1.4 + ROW_INCHES * len(claims)))
    above, below = figure.subplots(2, 1, height_ratios=(max(len(faster), 1), max(len(slower), 1)))
    _draw_bars(above, faster, "times as fast: right of the marker is better")
    _draw_bars(below, slower, "times as long: left of the marker is better")
    return figure


def _draw_bars(axes: Axes, claims: Sequence[Comparison], title: str) -> None:
    for place, claim in enumerate(claims):
        ratio = claim.ratio
        axes.barh(place, ratio.median - 1, left=1, height=0.6, color=MET if claim.met else MISSED)
        axes.plot([ratio.low, ratio.high], [place, place], color=INK, linewidth=1)
        axes.plot([claim.goal] * 2, [place - 0.42, place + 0.42], color=INK, linewidth=2)
        farthest = max(ratio.high, claim.goal, 1)
        axes.annotate(
            f"{ratio.median:,.3g}", (farthest, place), (4, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.axvline(1, color=FAINT, linewidth=0.8)
    labels = [f"{claim.what}\nagainst {textwrap.shorten(claim.against, LABEL_WIDTH)}" for claim in claims]
    axes.set_yticks(range(len(claims)), labels, fontsize=7)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(PLAIN)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.set_title(title)


def draw_growth(folder: Path) -> Figure:
    """Draw seconds over count, as multiples of the smallest of each, and the line of linear growth."""
    series = read_result(folder, "growth")["series"]
    figure = Figure(figsize=(7.2, 3.8))
    axes = figure.add_subplot()
    largest = 1.0
    for (name, one), colour in zip(series.items(), (MET, *MEMBER_COLOURS), strict=False):
        counts = [number / one["counts"][0] for number in one["counts"]]
        seconds = [spread["median"] / one["seconds"][0]["median"] for spread in one["seconds"]]
        label = f"{name}, from {one['counts'][0]:,}: slope {one['slope']['median']:.2f}"
        axes.plot(counts, seconds, color=colour, marker="o", markersize=3, label=label)
        largest = max(largest, counts[-1])
    axes.plot([1, largest], [1, largest], color=FAINT, linewidth=0.8, linestyle="--", label="linear: slope 1")
    for axis, set_scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        set_scale("log", base=2)
        axis.set_major_formatter(PLAIN)
    axes.set(xlabel="times as many", ylabel="times as long")
    axes.legend(loc="upper left", fontsize=8)
    return figure


def draw_cost(folder: Path) -> Figure:
    """Draw dollars a month over predictions a month, and the break-even points with the alternatives."""
    result = msgspec.convert(read_result(folder, "cost"), cost.Result)
    figure = Figure(figsize=(7.2, 4.4))
    axes = figure.add_subplot()
    ours = (cost.EXPRESS, cost.STANDARD, cost.BATCH)
    for (name, monthly), colour in zip(result.monthly.items(), (MET, MISSED, *MEMBER_COLOURS), strict=True):
        axes.plot(result.volumes, monthly, color=colour, linestyle=OURS if name in ours else OTHERS, label=name)
    crossings = sorted((one.predictions, one.other) for one in result.break_even if one.predictions is not None)
    for place, (predictions, other) in enumerate(crossings):
        dollars = _interpolate(result.volumes, result.monthly[other], predictions)
        aside, side = ((-3, "right"), (3, "left"))[place % 2]
        axes.plot(predictions, dollars, "o", color=INK, markersize=4)
        axes.annotate(
            f"{predictions:,.0f}", (predictions, dollars), (aside, -11), textcoords="offset points", ha=side, fontsize=8
        )
    axes.set(xscale="log", yscale="log", xlabel="predictions a month", ylabel="dollars a month")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
    axes.yaxis.set_major_formatter(PLAIN)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelsize=7)
    axes.legend(loc="upper left", fontsize=8)
    axes.set_title(f"computed from list prices of {result.looked_up}, not measured", color=FAINT)
    return figure


def _interpolate(volumes: Sequence[int], dollars: Sequence[float], volume: float) -> float:
    """Return the dollars at a volume between two computed ones, on a straight line in the chart."""
    return float(np.exp(np.interp(np.log(volume), np.log(volumes), np.log(dollars))))


CHARTS: Mapping[str, tuple[Callable[[Path], Figure], Sequence[str]]] = {
    "performance-ratios": (draw_ratios, ("in_process", "serving", "million")),
    "performance-growth": (draw_growth, ("growth",)),
    "performance-cost": (draw_cost, ("cost",)),
}
"""The function that draws each chart, and its results."""


def digest_results(folder: Path, names: Sequence[str]) -> str:
    """Return the SHA-256 of results."""
    return hashlib.sha256(b"".join((folder / f"{name}.json").read_bytes() for name in names)).hexdigest()


def write_charts(results: Path, folder: Path) -> None:
    """Draw all charts as SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (draw, sources) in CHARTS.items():
        metadata = {"Title": name, "Source": f"results {digest_results(results, sources)}", "Date": None}
        with mpl.rc_context(STYLE):
            figure = draw(results)
            figure.savefig(folder / f"{name}.svg", metadata={**metadata, "Creator": "benchmarks/charts.py"})


def main() -> None:
    """Draw all charts."""
    write_charts(RESULTS, FOLDER)
    print(*(FOLDER / f"{name}.svg" for name in CHARTS), sep="\n")


if __name__ == "__main__":
    main()
