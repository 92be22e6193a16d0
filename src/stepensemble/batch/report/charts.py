"""Charts of a run's numbers, as SVG elements for a page.

Matplotlib draws them. Its SVG is then adapted to a page with several charts: generated ids and the style sheet, which
would apply to the whole page, are removed; the font is the page's; and colours are the page's custom properties
(`COLOURS`), so that they follow its light or dark scheme. Equal numbers give equal bytes. Text from data is escaped,
never parsed as mathematics, and has no control characters.
"""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import Colormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from stepensemble.core.arrays import Floats

COLOURS: Mapping[str, str] = {
    "ink": "#222222",
    "faint": "#767676",
    "line": "#cccccb",
    "prediction": "#0072b2",
    "previous": "#d55e00",
    "member-0": "#e69f00",
    "member-1": "#56b4e9",
    "member-2": "#009e73",
    "member-3": "#cc79a7",
}
"""The page's custom properties and their values in the light scheme; the last six are Okabe and Ito's, which
colour-blind readers can distinguish."""

MEMBER_COLOURS = tuple(colour for name, colour in COLOURS.items() if name.startswith("member-"))
DASHES = ("-", "--", ":", "-.")
"""Line styles: together with the colours, they distinguish sixteen members."""

HEAT = "YlGnBu"
"""The colour map of the matrix; its lightness is monotonic, so that it is readable in grey, too."""

MISSING = "#bbbbbb"
"""Colour of a cell of the matrix without a number."""

NAME_LENGTH = 22
"""Characters of a name in a chart; longer names are cut, since the page's tables have them in full."""

MATRIX_NUMBERS = 24
"""Up to so many members, the matrix's cells show their numbers."""

MAX_BARS = 24
"""Bars of a histogram whose bins are chosen from its values."""

MAX_TICKS = 10
"""Ticks of a histogram."""

ROWS_BELOW = 6
"""Ratio of the height of a calibration chart to the height of the bars of its rows."""

SHIFT_COLUMNS, SHIFT_TICKS, SHIFT_NAME = 2, 5, 10
"""Of distributions beside each other: charts in a row, ticks of each, characters of a bin's name."""

WIDEN = 1.6
"""CSS pixels per point at most, so that charts do not grow with a wide page."""

STYLE: Any = {
    "svg.hashsalt": "stepensemble",  # ids in the file are hashes of what they name, and of this
    "svg.fonttype": "none",  # text stays text: small, searchable, accessible
    "text.parse_math": False,
    "font.family": "DejaVu Sans",  # is part of Matplotlib, and wider than the fonts of pages
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": COLOURS["faint"],
    "axes.labelcolor": COLOURS["ink"],
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["faint"],
    "ytick.color": COLOURS["faint"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
    "legend.frameon": False,
}

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that XML forbids, or that a page should not have."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A calibration curve: mean predicted probability, observed share, and number of rows, by bin.

    `bounds` are those of `observed`, if they are drawn.
    """

    name: str
    predicted: Sequence[float]
    observed: Sequence[float]
    counts: Sequence[int]
    bounds: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True, slots=True)
class Distribution:
    """Rows by bins, in this run and in the previous one.

    Attributes:
        name: of the feature.
        between: the labels between the bins and at both ends, one more than bins; empty if the bins have names.
        bins: the names of the bins; empty if there are labels between them.
        counts: rows in each bin.
        previous: the same for the previous run.
    """

    name: str
    between: Sequence[str]
    bins: Sequence[str]
    counts: Sequence[int]
    previous: Sequence[int]


@dataclass(frozen=True, slots=True)
class ValueBins:
    """Rows by ranges of a number.

    Attributes:
        between: the labels between the bins and at both ends, one more than counts.
        counts: rows in each bin.
        previous: the same for the previous run; None if there is none.
    """

    between: Sequence[str]
    counts: Sequence[int]
    previous: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class HistogramText:
    """The axis label and the title of a histogram."""

    label: str
    title: str = "Distribution of predictions"


def draw_histogram(name: str, bins: ValueBins, text: HistogramText) -> str:
    """Draw the distribution of numbers as bars, and that of the previous run as an outline, in shares of their rows.

    Args:
        name: of the chart, unique in its page; bars are `NAME-bar-0` and so on, all equally wide.
        bins: the rows.
        text: label and title.
    """
    counts, between = bins.counts, bins.between
    shares = _share(counts)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.8))
        axes = figure.add_subplot()
        for index, share in enumerate(shares.tolist()):
            _draw_bar(axes, f"{name}-bar-{index}", (index, 0), 1, share)
        tallest = float(shares.max(initial=0.0))
        if bins.previous is not None and any(bins.previous):
            outline = _share(bins.previous)
            tallest = max(tallest, float(outline.max()))
            axes.stairs(
                outline, color=COLOURS["previous"], linewidth=1.4, label="the previous run", gid=f"{name}-previous"
            )
            axes.legend(loc="best")
        step = -(-len(counts) // MAX_TICKS)
        axes.set_xticks(range(0, len(between), step), [clean(one) for one in between[::step]])
        axes.set(xlim=(0, len(counts)), ylim=(0, tallest * 1.06 or 1), xlabel=clean(text.label), ylabel="share of rows")
        axes.yaxis.set_major_formatter(_format_share)
        ranges = (f"{low} to {high}: {count:,}" for (low, high), count in zip(pairwise(between), counts, strict=True))
        return _write(figure, name, text.title, f"Rows by {text.label}. {'; '.join(ranges)}")


def draw_shifts(name: str, distributions: Sequence[Distribution], text: str) -> str:
    """Draw distributions beside each other: this run as bars, `NAME-0-bar-0` and so on, the previous as outlines."""
    rows = -(-len(distributions) // SHIFT_COLUMNS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.75 * rows))
        for number, one in enumerate(distributions):
            axes = figure.add_subplot(rows, SHIFT_COLUMNS, number + 1)
            shares, outline = _share(one.counts), _share(one.previous)
            for index, share in enumerate(shares.tolist()):
                _draw_bar(axes, f"{name}-{number}-bar-{index}", (index, 0), 1, share)
            axes.stairs(outline, color=COLOURS["previous"], linewidth=1.4, gid=f"{name}-{number}-previous")
            step = -(-len(one.counts) // SHIFT_TICKS)
            if one.bins:
                last = len(one.bins) - 1  # always named: it may be the bin of missing values
                named = [*range(0, max(1, last - step + 1), step), *([last] if last else [])]
                labels = [_shorten(one.bins[index])[:SHIFT_NAME] for index in named]
                axes.set_xticks([index + 0.5 for index in named], labels)
            else:
                axes.set_xticks(range(0, len(one.between), step), [clean(label) for label in one.between[::step]])
            axes.tick_params(labelsize=7)
            tallest = float(max(shares.max(initial=0.0), outline.max(initial=0.0)))
            axes.set(xlim=(0, len(one.counts)), ylim=(0, tallest * 1.06 or 1))
            axes.yaxis.set_major_formatter(_format_share)
            axes.set_title(_shorten(one.name), fontsize=9, loc="left", color=COLOURS["ink"])
        return _write(figure, name, "Distributions in this run and the previous one", text)


def choose_bounds(*samples: Floats) -> Floats:
    """Return round bounds of bins of equal width for nearly all numbers of all samples together.

    One number in a hundred, at both ends together, may be outside the bounds, so that a few outliers do not widen the
    bins of the others.
    """
    low, high = np.quantile(np.concatenate(samples), (0.005, 0.995))
    bounds = np.asarray(MaxNLocator(MAX_BARS).tick_values(float(low), float(high)))
    return bounds if len(bounds) > 1 else np.array([low - 0.5, low + 0.5])


def draw_scatter(name: str, predicted: Floats, actual: Floats, text: str) -> str:
    """Draw actual over predicted values, one point for each row (`NAME-points`); on the diagonal both are equal."""
    ends = np.array([min(predicted.min(), actual.min()), max(predicted.max(), actual.max())])
    margin = float(ends[1] - ends[0]) * 0.03 or 1.0
    limits = (float(ends[0]) - margin, float(ends[1]) + margin)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 4.2))
        axes = figure.add_subplot()
        axes.plot(limits, limits, color=COLOURS["faint"], linewidth=0.8, linestyle="--")
        axes.plot(
            predicted,
            actual,
            linestyle="none",
            marker="o",
            markersize=3,
            markeredgewidth=0,
            color=COLOURS["prediction"],
            alpha=0.5,
            gid=f"{name}-points",
        )
        axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel="predicted", ylabel="actual")
        return _write(figure, name, "Actual over predicted", text)


def draw_bars(name: str, names: Sequence[str], counts: Sequence[int], of: int, text: str) -> str:
    """Draw how often each class was predicted, as shares of all `of` rows; bars are `NAME-bar-0` and so on."""
    shares = np.asarray(counts, np.float64) / of
    places = np.arange(len(names))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.6 + 0.32 * max(len(names), 2)))
        axes = figure.add_subplot()
        for place, share in zip(places, shares, strict=True):
            _draw_bar(axes, f"{name}-bar-{place}", (0, place - 0.36), share, 0.72)
            axes.annotate(f" {share:.1%}", (share, place), va="center", fontsize=8)
        axes.set(xlim=(0, float(shares.max(initial=0.0)) * 1.15 + 0.05), ylim=(len(names) - 0.5, -0.5))
        axes.set_xticks([tick for tick in axes.get_xticks() if tick <= min(1.0, axes.get_xlim()[1])])
        axes.set_yticks(places, [_shorten(one) for one in names])
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter(_format_share)
        axes.set_xlabel("share of rows")
        return _write(figure, name, "Predictions by class", text)


def draw_matrix(name: str, members: Sequence[str], values: Floats, low: float, text: str) -> str:
    """Draw a heat map of shares with its numbers: cell `NAME-cell-ROW-COLUMN` for each pair of members.

    Args:
        name: of the chart, unique in its page.
        members: names of rows and columns.
        values: `(members, members)`, 0 to 1; NaN where there is no number, as for members without common rows.
        low: where the scale of colours begins; it ends at 1.
        text: the chart's text alternative.
    """
    number = len(members)
    font_size = min(8.0, 108 / number) if number <= MATRIX_NUMBERS else None
    with mpl.rc_context(STYLE):
        side = min(1.4 + 0.46 * number, 9.0)
        figure = Figure(figsize=(side + 0.9, side))
        axes = figure.add_subplot()
        for row, column in np.ndindex(number, number):
            _draw_cell(axes, f"{name}-cell-{row}-{column}", (row, column), float(values[row, column]), low, font_size)
        axes.set(xlim=(-0.5, number - 0.5), ylim=(number - 0.5, -0.5), aspect="equal")
        short = [_shorten(one) for one in members]
        axes.set_yticks(range(number), short)
        axes.set_xticks(range(number), short, rotation=45, ha="left", rotation_mode="anchor")
        axes.xaxis.tick_top()  # a slanted name then begins at its column, in any font
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        _draw_scale(axes, low)
        return _write(figure, name, "Agreement of members", text)


def heat_colour(value: float, low: float) -> str:
    """Return the colour of a share in the matrix, as `#rrggbb`."""
    return to_hex(_read_colours()(Normalize(low, 1.0, clip=True)(value)))


@cache
def _read_colours() -> Colormap:
    return mpl.colormaps[HEAT]  # each access builds a new map with its table


def draw_reliability(name: str, members: Sequence[Curve], ensemble: Curve | None, text: str) -> str:
    """Draw the observed share over the predicted probability: the closer to the diagonal, the better calibrated.

    Curves are `NAME-curve-0` and so on for the members, and `NAME-curve-ensemble`. The ensemble's curve has its bounds
    (`NAME-bounds-0` and so on), and below it the rows in each of its bins (`NAME-rows-0` and so on).
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.4 if ensemble is None else 5.2))
        if ensemble is None:
            axes = figure.add_subplot()
        else:
            axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(ROWS_BELOW, 1))
            _draw_rows(below, name, ensemble)
        axes.plot([0, 1], [0, 1], color=COLOURS["faint"], linewidth=0.8, linestyle="--")
        for place, curve in enumerate(members):
            axes.plot(
                curve.predicted,
                curve.observed,
                color=MEMBER_COLOURS[place % len(MEMBER_COLOURS)],
                linestyle=DASHES[place // len(MEMBER_COLOURS) % len(DASHES)],
                linewidth=1.2,
                marker="o",
                markersize=3,
                label=_shorten(curve.name),
                gid=f"{name}-curve-{place}",
            )
        if ensemble is not None:
            for place, (x, (low, high)) in enumerate(zip(ensemble.predicted, ensemble.bounds, strict=False)):
                gid = f"{name}-bounds-{place}"
                axes.plot([x, x], [low, high], color=COLOURS["ink"], linewidth=1.0, zorder=1.5, gid=gid)
            axes.plot(
                ensemble.predicted,
                ensemble.observed,
                color=COLOURS["ink"],
                linewidth=2.2,
                marker="o",
                markersize=4.5,
                label=_shorten(ensemble.name),
                gid=f"{name}-curve-ensemble",
            )
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set(ylabel="observed share")
        (axes if ensemble is None else below).set_xlabel("mean predicted probability")
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
        return _write(figure, name, "Calibration", text)


def _draw_rows(axes: Axes, name: str, curve: Curve) -> None:
    for place, (predicted, count) in enumerate(zip(curve.predicted, curve.counts, strict=True)):
        _draw_bar(axes, f"{name}-rows-{place}", (predicted - 0.006, 0), 0.012, count)
    axes.set_box_aspect(1 / ROWS_BELOW)  # as wide as the square above it
    axes.set(xlim=(-0.02, 1.02), ylim=(0, max(curve.counts, default=0) * 1.1 or 1), ylabel="rows")
    axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))


def _draw_bar(axes: Axes, gid: str, corner: tuple[float, float], width: float, height: float) -> None:
    axes.add_patch(Rectangle(corner, width, height, facecolor=COLOURS["prediction"], edgecolor="none", gid=gid))


def _share(counts: Sequence[int]) -> Floats:
    return np.asarray(counts, np.float64) / max(sum(counts), 1)


def _format_share(value: float, _: float) -> str:
    return f"{100 * value:.3g}%"


def _draw_cell(axes: Axes, gid: str, cell: tuple[int, int], value: float, low: float, font_size: float | None) -> None:
    row, column = cell
    known = bool(np.isfinite(value))
    colour = heat_colour(value, low) if known else MISSING
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor="none", gid=gid))
    if font_size is not None:
        written = f"{value:.2f}" if known else "–"
        ink = "#000000" if _lightness(colour) > 0.55 else "#ffffff"
        axes.annotate(written, (column, row), ha="center", va="center", fontsize=font_size, color=ink)


def _draw_scale(axes: Axes, low: float, steps: int = 32) -> None:
    """Draw the scale of colours as rectangles: Matplotlib's own colour bar is a bitmap."""
    scale = axes.inset_axes((1.04, 0, 0.03, 1))
    for bottom, top in zip(np.linspace(low, 1, steps + 1)[:-1], np.linspace(low, 1, steps + 1)[1:], strict=True):
        colour = heat_colour((bottom + top) / 2, low)
        scale.add_patch(Rectangle((0, bottom), 1, top - bottom, facecolor=colour, edgecolor=colour, linewidth=0.5))
    scale.set(xlim=(0, 1), ylim=(low, 1), xticks=[])
    scale.yaxis.tick_right()
    scale.spines[:].set_visible(False)


def _lightness(colour: str) -> float:
    """Return the perceived lightness of a colour, 0 to 1: luma of Rec. 709."""
    red, green, blue = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _shorten(name: str) -> str:
    cleaned = clean(name)
    return cleaned if len(cleaned) <= NAME_LENGTH else cleaned[: NAME_LENGTH - 1] + "…"


def clean(text: str) -> str:
    """Return a text as one line, with a replacement for characters that XML forbids."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", " ".join(text.split()))


def _write(figure: Figure, name: str, title: str, text: str) -> str:
    """Return a figure as an `svg` element of a page."""
    written = io.StringIO()
    with warnings.catch_warnings():
        # Letters that DejaVu Sans does not have are measured wrongly, but shown correctly by the page's own fonts.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing", category=UserWarning)
        _lay_out(figure)
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ET.fromstring(written.getvalue())  # noqa: S314 written one line above
    for parent in root.iter():
        for child in list(parent):
            if _local(child.tag) in {"metadata", "style"}:
                parent.remove(child)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', written.getvalue()))
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = dict(_rewrite(element.attrib, name, used))
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "class": "chart",
        "style": f"max-width: {WIDEN * float(root.attrib['viewBox'].split()[2]):.0f}px",
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-text",
    }
    for place, (tag, content) in enumerate((("title", title), ("desc", text))):
        element = ET.Element(tag, {"id": f"{name}-{'text' if place else 'title'}"})
        element.text = clean(content)
        root.insert(place, element)
    return ET.tostring(root, encoding="unicode")


def _lay_out(figure: Figure) -> None:
    """Compute the layout as `savefig` does, but without drawing the whole figure, which halves the time."""
    FigureCanvasSVG(figure)
    figure.set_dpi(72)  # that of SVG
    ConstrainedLayoutEngine().execute(figure)


def _rewrite(attributes: Mapping[str, str], name: str, used: set[str]) -> Iterator[tuple[str, str]]:
    """Rewrite an element's attributes; ids that nothing refers to are kept only if a chart has set them."""
    for key, value in attributes.items():
        local = _local(key)
        if local == "id":
            if value in used:
                yield "id", f"{name}-{value}"
            elif value.startswith(f"{name}-"):
                yield "id", value
        elif local == "href":
            yield "href", f"#{name}-{value.removeprefix('#')}"
        else:
            written = value.replace("url(#", f"url(#{name}-")
            written = re.sub(r"#[0-9a-f]{6}\b", lambda found: PROPERTIES.get(found[0], found[0]), written)
            written = re.sub(r"font: ([0-9.]+px)[^;]*", r"font-size: \1", written)
            yield local, re.sub(r"font-family:[^;]*; ?", "", written)


PROPERTIES: Mapping[str, str] = {colour: f"var(--{name})" for name, colour in COLOURS.items()}


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
