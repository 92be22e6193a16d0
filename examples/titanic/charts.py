"""Draw the charts of docs/aggregation.md from the shipped models, and write the tables beside them.

The same models give the same bytes. Each chart names the release it was drawn from.

    python examples/titanic/charts.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from confidence import (
    Evaluated,
    Group,
    evaluate_passengers,
    format_tables,
    group_by_agreement,
    group_by_margin,
    measure_reliability,
    sort_band,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from passengers import read_passengers, split

from stepensemble import Ensemble

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "models" / "manifest.json"
FOLDER = ROOT / "docs" / "charts"
PAGE = ROOT / "docs" / "aggregation.md"
BEGIN, END = "<!-- held-out passengers -->\n", "<!-- end of held-out passengers -->\n"

BINS = 6
# Okabe and Ito's colours, which colour-blind readers can distinguish.
DIED, SURVIVED, MEMBERS = "#0072B2", "#D55E00", ("#E69F00", "#56B4E9", "#009E73", "#CC79A7")
INK, FAINT, BAND = "#222222", "#777777", "#cccccc"

STYLE: Any = {
    "svg.hashsalt": "stepensemble",  # the ids in the file are hashes with this salt
    "svg.fonttype": "path",  # text looks the same everywhere
    "font.family": "DejaVu Sans",  # comes with Matplotlib
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "white",  # readable on a dark page, too
    "figure.constrained_layout.use": True,
    "legend.frameon": False,
}


def draw_decisions(evaluated: Evaluated) -> Figure:
    """Draw the passengers sorted by the ensemble's probability, with the range of the members' probabilities."""
    band = sort_band(evaluated)
    ranks = list(range(1, len(band.probability) + 1))
    figure = Figure(figsize=(7.2, 3.6))
    axes = figure.add_subplot()
    axes.fill_between(
        ranks, band.low, band.high, step="mid", color=BAND, linewidth=0, label="range of the four members"
    )
    for outcome, colour, name in ((False, DIED, "died"), (True, SURVIVED, "survived")):
        points = [(rank, p) for rank, p, s in zip(ranks, band.probability, band.survived, strict=True) if s == outcome]
        axes.plot(*zip(*points, strict=True), "o", markersize=2.6, color=colour, label=f"{name} ({len(points)})")
    axes.axhline(evaluated.threshold, color=INK, linewidth=0.8, linestyle="--")
    axes.annotate("“survived” is predicted at or above this threshold", (3, evaluated.threshold + 0.015), fontsize=8)
    axes.set(xlim=(0, len(ranks) + 1), ylim=(0, 1), ylabel="probability of “survived”")
    axes.set_xlabel(f"{len(ranks)} held-out passengers, sorted by the ensemble's probability")
    axes.legend(loc="upper left", bbox_to_anchor=(0, 1.0))
    return figure


def draw_reliability(evaluated: Evaluated) -> Figure:
    """Draw the share of survivors over the predicted probability, for the ensemble and each member."""
    figure = Figure(figsize=(5.2, 4.8))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle="--")
    for (name, probabilities), colour in zip(evaluated.members.items(), MEMBERS, strict=False):
        bins = measure_reliability(probabilities, evaluated.survived, BINS)
        shares = [one.survived.value for one in bins]
        axes.plot(
            [one.predicted for one in bins], shares, color=colour, linewidth=1, marker="o", markersize=3, label=name
        )
    bins = measure_reliability(evaluated.probability, evaluated.survived, BINS)
    predicted, shares = [one.predicted for one in bins], [one.survived.value for one in bins]
    errors = [[abs(getattr(one.survived, end) - one.survived.value) for one in bins] for end in ("low", "high")]
    axes.errorbar(
        predicted, shares, yerr=errors, color=INK, linewidth=2, elinewidth=1, marker="o", label="ensemble (mean)"
    )
    for one in bins:
        axes.annotate(f"{one.survived.total}", (one.predicted, -0.07), fontsize=7, ha="center")
    axes.set(xlim=(0, 1), ylim=(-0.09, 1.02), xlabel="mean probability of “survived” in a bin", aspect="equal")
    axes.set_ylabel("share that survived")
    axes.set_title(
        "ensemble: 95 % intervals; at the bottom, the number of passengers in each bin", fontsize=8, color=FAINT
    )
    axes.legend(loc="upper left")
    return figure


def draw_confidence(evaluated: Evaluated) -> Figure:
    """Draw the accuracy, by agreement and by margin."""
    figure = Figure(figsize=(7.2, 3.4))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 5))
    _draw_groups(left, group_by_agreement(evaluated), len(evaluated.correct), "members with the predicted label")
    _draw_groups(right, group_by_margin(evaluated), len(evaluated.correct), "margin")
    left.set_ylabel("accuracy")
    return figure


def _draw_groups(axes: Axes, groups: Sequence[Group], rows: int, label: str) -> None:
    places = list(range(len(groups)))
    shares = [group.correct.value for group in groups]
    errors = [[abs(getattr(group.correct, end) - group.correct.value) for group in groups] for end in ("low", "high")]
    axes.bar(places, shares, width=0.66, color=MEMBERS[1], yerr=errors, ecolor=INK, error_kw={"linewidth": 1})
    for place, group in zip(places, groups, strict=True):
        text = f"{group.correct.total}\n{group.correct.total / rows:.0%}"
        axes.annotate(text, (place, 0.02), fontsize=8, ha="center", va="bottom")
    axes.set_xticks(places, [group.name for group in groups])
    axes.set(ylim=(0, 1.02), xlabel=label)


CHARTS: Mapping[str, Callable[[Evaluated], Figure]] = {
    "decisions": draw_decisions,
    "reliability": draw_reliability,
    "confidence": draw_confidence,
}


def write_charts(evaluated: Evaluated, folder: Path) -> None:
    """Draw all charts as SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in CHARTS.items():
        metadata = {"Title": name, "Source": f"release {evaluated.release}", "Creator": "examples/titanic/charts.py"}
        with mpl.rc_context(STYLE):
            draw(evaluated).savefig(folder / f"{name}.svg", metadata={**metadata, "Date": None})


def write_tables(evaluated: Evaluated, page: Path) -> None:
    """Write the tables between their two markers in a page."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    page.write_text(before + BEGIN + "\n" + format_tables(evaluated) + "\n" + END + after, encoding="utf-8")


def main() -> None:
    """Predict the held-out passengers; draw the charts and write the tables."""
    _, held_out = split(read_passengers())
    evaluated = evaluate_passengers(Ensemble.load(MANIFEST), held_out)
    write_charts(evaluated, FOLDER)
    write_tables(evaluated, PAGE)
    print(format_tables(evaluated), end="")


if __name__ == "__main__":
    main()
