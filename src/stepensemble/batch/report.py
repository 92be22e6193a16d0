"""A run to look at: one HTML file that needs nothing else, neither network nor script, in light and dark and on paper.

Equal summaries give equal pages, to the byte. All text in them that comes from data is escaped, and the page forbids
itself scripts and requests besides (Content-Security-Policy).
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from stepensemble.batch.charts import (
    COLOURS,
    Curve,
    clean,
    draw_bars,
    draw_histogram,
    draw_matrix,
    draw_reliability,
)
from stepensemble.batch.drift import PREDICTION
from stepensemble.batch.summary import Calibration, Summary, describe_truth
from stepensemble.batch.tally import Bins

MODERATE, LARGE = 0.1, 0.25
"""Population stability indices from which a shift is called so."""

SOURCE = "N. Siddiqi, Credit Risk Scorecards, Wiley 2006"
"""Of these words and their bounds."""

MOST = 50
"""Lines of a table of which there may be any number."""

MOST_BARS = 40
"""Of a regression's histogram."""

CURVES = 16
"""Members whose calibration is drawn; the table has all."""

DARK = {
    "ink": "#e8e6e3",
    "faint": "#a09c96",
    "line": "#45423e",
    "answer": "#3d9ad6",
    "before": "#ff8a3d",
    "member-0": "#e69f00",
    "member-1": "#56b4e9",
    "member-2": "#1fbf93",
    "member-3": "#d98fb8",
}
"""`charts.COLOURS` on a dark page."""


def draw_report(summary: Summary) -> str:
    """Return the page."""
    sections = (
        _draw_predictions(summary),
        _draw_members(summary),
        _draw_agreement(summary),
        _draw_calibration(summary),
        _draw_drift(summary),
        _draw_rejected(summary),
        _draw_failures(summary),
        _draw_slowest(summary),
        _draw_cost(summary),
    )
    title = f"{summary.ensemble}, {summary.date}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'  # else browsers ask for one
        f"<title>{_escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{_draw_header(summary)}{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def name_shift(index: float) -> str:
    """Return the usual word for a population stability index."""
    return "little" if index < MODERATE else "moderate" if index < LARGE else "large"


def narrow(bins: Bins, before: Bins | None) -> tuple[list[str], list[int], list[int] | None]:
    """Leave out the bins beyond the first and the last that have rows, and join the others to at most `MOST_BARS`.

    Args:
        bins: with at least one row.
        before: the same of the run before; one of other edges is not looked at.

    Returns:
        Between which numbers the bins lie, one more than bins, empty where there is no end; rows; rows before.
    """
    compared = before if before is not None and before.edges == bins.edges and any(before.counts) else None
    both = np.array([bins.counts, bins.counts if compared is None else compared.counts])
    occupied = np.flatnonzero(both.any(axis=0))
    first, last = int(occupied[0]), int(occupied[-1])
    step = -(-(last + 1 - first) // MOST_BARS)
    starts = np.arange(first, last + 1, step)
    joined = np.add.reduceat(both[:, : last + 1], starts, axis=1)
    ends = ["", *(f"{edge:.4g}" for edge in bins.edges), ""]
    names = [ends[place] for place in (*starts.tolist(), last + 1)]
    return names, joined[0].tolist(), None if compared is None else joined[1].tolist()


def _draw_header(summary: Summary) -> str:
    facts = (
        ("run", summary.run),
        ("release", summary.release),
        ("dataset", summary.dataset),
        ("finished", summary.finished_at),
    )
    named = "".join(f"<dt>{name}</dt><dd><code>{_escape(value)}</code></dd>" for name, value in facts)
    cause = f'<p class="cause" role="alert">{_escape(summary.cause)}</p>\n' if summary.cause else ""
    notes = "".join(f'<p class="note">{_escape(note)}</p>\n' for note in summary.notes)
    status = summary.status.lower()
    return (
        f'<header>\n<h1>{_escape(summary.ensemble)} <span class="date">{_escape(summary.date)}</span> '
        f'<span class="status {status}">{status}</span></h1>\n{cause}'
        f"<dl>{named}</dl>\n{_draw_counts(summary)}{notes}</header>\n"
    )


def _draw_counts(summary: Summary) -> str:
    counts = [
        ("rows in", f"{summary.rows:,}", ""),
        ("answered", f"{summary.rows_out:,}", _share(summary.rows_out, summary.rows)),
        ("rejected", f"{summary.rows_rejected:,}", _share(summary.rows_rejected, summary.rows)),
    ]
    abstained = summary.decisions.get("abstain", 0)
    if abstained:
        counts.append(("abstained", f"{abstained:,}", _share(abstained, summary.rows_out)))
    degraded = summary.statuses.get("DEGRADED", 0)
    if degraded:
        counts.append(("degraded", f"{degraded:,}", _share(degraded, summary.rows_out)))
    if summary.needs_review:
        counts.append(("for review", f"{summary.needs_review:,}", _share(summary.needs_review, summary.rows_out)))
    failed = f"{summary.failed_shards:,} failed" if summary.failed_shards else "none failed"
    if summary.rows_failed:
        counts.append(("without answer", f"{summary.rows_failed:,}", "in failed shards"))
    counts.append(("shards", f"{summary.shards:,}", failed if summary.shards else ""))
    rate = f"{summary.rows_in / summary.seconds:,.0f} rows/s" if summary.seconds > 0 and summary.rows_in else ""
    counts.append(("time", _duration(summary.seconds), rate))
    tiles = "".join(
        f'<div><span class="number">{number}</span> <span class="name">{name}</span> <small>{beside}</small></div>'
        for name, number, beside in counts
    )
    return f'<div class="counts">{tiles}</div>\n'


def _draw_predictions(summary: Summary) -> str:
    if not summary.rows_out:
        return _section("predictions", "Predictions", _none("No row was answered."))
    pictures = []
    if summary.labels:
        pictures.append(_draw_labels(summary))
    bins = summary.histograms.get(PREDICTION)
    if summary.task != "multiclass" and bins is not None and any(bins.counts):
        pictures.append(_draw_values(summary, bins))
    content = "".join(f"<figure>{picture}</figure>\n" for picture in pictures)
    return _section("predictions", "Predictions", content or _none("Nothing was counted."))


def _draw_labels(summary: Summary) -> str:
    counts = {name: summary.labels.get(name, 0) for name in summary.classes}
    shown = sorted(counts, key=lambda name: -counts[name])[:MOST] if len(counts) > MOST else list(counts)
    text = f"Answers by class, of {summary.rows_out:,} rows. " + "; ".join(
        f"{name}: {counts[name]:,}" for name in shown
    )
    return draw_bars("classes", shown, [counts[name] for name in shown], summary.rows_out, text)


def _draw_values(summary: Summary, bins: Bins) -> str:
    if summary.task == "binary":
        label = f"probability of “{summary.classes[1]}”"
        between = ["0", *(f"{edge:.4g}" for edge in bins.edges), "1"]
        counts: Sequence[int] = bins.counts
        same = summary.before is not None and summary.before.edges == bins.edges
        before: Sequence[int] | None = summary.before.counts if summary.before is not None and same else None
    else:
        label = "prediction (bins are not equally wide)"
        between, counts, before = narrow(bins, summary.before)
    named = (
        f"{low or 'below'} to {high or 'above'}: {count:,}"
        for (low, high), count in zip(pairwise(between), counts, strict=True)
    )
    text = f"Rows by {label}. " + "; ".join(named)
    return draw_histogram("values", between, counts, before, label, text)


def _draw_members(summary: Summary) -> str:
    lines = (
        (
            _escape(member.id),
            _escape(member.version),
            _escape(member.role),
            f"{member.rows:,}",
            _name_failures(member.failures),
            _duration(member.seconds) if member.shards else "–",
            _number(member.mean),
            "–" if member.pivotal is None else f"{member.pivotal:.1%}",
        )
        for member in summary.members
    )
    heads = ("member", "version", "role", "rows", "failures", "time", "mean", "tips the answer")
    table = _table("What each member did; time is that of all its invocations together", heads, lines, texts=3)
    return _section("members", "Members", table if summary.members else _none("No member was asked."))


def _name_failures(failures: Mapping[str, int]) -> str:
    """Write in how many shards a member did not answer, and why."""
    named = ", ".join(f"{_escape(error)} {count:,}" for error, count in sorted(failures.items()))
    return f'<strong class="bad">{named}</strong>' if named else "none"


def _draw_agreement(summary: Summary) -> str:
    names = [member.id for member in summary.members]
    if summary.task == "regression":
        return _section("agreement", "Agreement", _none("Numbers have no labels to agree on; each row has its spread."))
    if len(names) < 2 or not summary.agreement:
        alone = "One member has nobody to agree with." if len(names) == 1 else "There is nothing to compare."
        return _section("agreement", "Agreement", _none(alone))
    values = np.array([[np.nan if value is None else value for value in row] for row in summary.agreement], np.float64)
    pairs = [
        (float(values[row, column]), names[row], names[column])
        for row, column in zip(*np.triu_indices(len(names), 1), strict=True)
        if np.isfinite(values[row, column])
    ]
    if not pairs:
        return _section("agreement", "Agreement", _none("No two members answered the same row."))
    (least, one, other), (most, this, that) = min(pairs), max(pairs)
    text = (
        f"Share of rows for which two members say the same. Least: {one} and {other}, {least:.1%}. "
        f"Most: {this} and {that}, {most:.1%}."
    )
    picture = draw_matrix("agreement", names, values, min(0.9, math.floor(least * 10) / 10), text)
    figure = f"<figure>{picture}<figcaption>{_escape(text)}</figcaption></figure>\n"
    return _section("agreement", "Agreement", figure)


def _draw_calibration(summary: Summary) -> str:
    told = _draw_truth(summary)
    if not summary.calibration:
        return _section("calibration", "Against the labels", told) if told else ""
    ordered = sorted(summary.calibration, key=lambda one: one.name != PREDICTION)
    probable = any(one.said for one in ordered)
    heads = ("", "rows with label", "right", *(("ECE", "Brier score") if probable else ("mean absolute error",)))
    lines = (
        (
            _escape(one.name) if one.name else "<em>the ensemble</em>",
            f"{one.rows:,}",
            "–" if one.right is None else f"{one.right:.1%}",
            *((_number(one.expected),) if probable else ()),
            _number(one.error),
        )
        for one in ordered
    )
    table = _table("What was said against the labels", heads, lines, texts=1)
    members = [_curve(one) for one in ordered if one.name and one.said][:CURVES]
    ensemble = next((_curve(one) for one in ordered if not one.name and one.said), None)
    if not members and ensemble is None:
        return _section("calibration", "Against the labels", told + table)
    text = "How often what was said came true, over what was said; on the diagonal both are equal. " + "; ".join(
        f"{one.name or 'the ensemble'}: ECE {_number(one.expected)}" for one in ordered if one.said
    )
    picture = draw_reliability("calibration", members, ensemble, text)
    note = '<p class="note">ECE, the expected calibration error, is the mean distance of a bin from the diagonal, '
    note += "weighted by its rows. Of both scores smaller is better.</p>\n"
    return _section("calibration", "Calibration", f"{told}<figure>{picture}</figure>\n{table}{note}")


def _draw_truth(summary: Summary) -> str:
    if summary.truth is None:
        return ""
    lines = describe_truth(summary.truth, summary.classes)
    return "".join(f'<p class="{"cause" if serious else "note"}">{_escape(line)}</p>\n' for line, serious in lines)


def _curve(calibration: Calibration) -> Curve:
    """Return the bins that have rows."""
    bins = [
        (said, true, count)
        for said, true, count in zip(calibration.said, calibration.true, calibration.counts, strict=True)
        if said is not None and true is not None
    ]
    said, true, counts = zip(*bins, strict=True) if bins else ((), (), ())
    return Curve(calibration.name or "the ensemble", said, true, counts)


def _draw_drift(summary: Summary) -> str:
    if summary.previous is None:
        return _section("drift", "Drift", _none("There is no earlier run to compare with."))
    ordered = sorted(summary.drift, key=lambda drift: (drift.index is None, -(drift.index or 0), drift.name))
    lines = (
        (
            _escape(drift.name) if drift.name else "<em>the prediction</em>",
            _number(drift.index),
            "unknown" if drift.index is None else _flag(name_shift(drift.index), bad=drift.index >= LARGE),
        )
        for drift in ordered[:MOST]
    )
    table = _table(f"Against {summary.previous}", ("feature", "PSI", "shift"), lines, texts=1)
    note = (
        f'<p class="note">PSI, the population stability index: below {MODERATE:g} little shift, below {LARGE:g} '
        f"moderate, from there on large ({SOURCE}).</p>\n"
    )
    return _section("drift", "Drift", table + _others(len(ordered)) + note)


def _draw_rejected(summary: Summary) -> str:
    if not summary.rejections:
        return _section("rejected", "Rejected rows", _none("No row was rejected."))
    ordered = sorted(
        ((column, reason, told) for column, reasons in summary.rejections.items() for reason, told in reasons.items()),
        key=lambda one: (-one[2].rows, one[:2]),
    )
    lines = (
        (
            _escape(column) if column else "<em>the row</em>",
            _escape(reason),
            _escape(", ".join(f"{file} {row:,}" for file, row in told.places)),
            f"{told.rows:,}",
        )
        for column, reason, told in ordered[:MOST]
    )
    heads = ("column", "reason", "for instance, file and row", "rows")
    table = _table("A row may have several reasons", heads, lines, texts=3)
    return _section("rejected", "Rejected rows", table + _others(len(ordered)))


def _draw_failures(summary: Summary) -> str:
    if not summary.failures:
        return ""
    lines = (
        (
            f"{shard.number}",
            _escape(shard.file),
            _escape(f"{shard.error}: {shard.cause}"),
            "–" if shard.rows is None else f"{shard.rows:,}",
        )
        for shard in summary.failures[:MOST]
    )
    table = _table("Shards without an answer", ("shard", "file", "cause", "rows"), lines, texts=3)
    return _section("failures", "Failed shards", table + _others(summary.failed_shards))


def _draw_slowest(summary: Summary) -> str:
    if not summary.slowest:
        return ""
    lines = (
        (f"{shard.number}", _escape(shard.file), f"{shard.rows:,}", _duration(shard.seconds))
        for shard in summary.slowest[:MOST]
    )
    table = _table("The shards that took longest", ("shard", "file", "rows", "time"), lines, texts=2)
    return _section("slowest", "Slowest shards", table)


def _draw_cost(summary: Summary) -> str:
    cost = summary.cost
    lines = [
        (
            _escape(used.function),
            f"{used.memory:,} MB",
            f"{used.requests:,}",
            _duration(used.seconds),
            f"{used.gb_seconds:,.1f}",
        )
        for used in cost.used
    ]
    lines.append(("<em>all</em>", "", f"{cost.requests:,}", "", f"{cost.gb_seconds:,.1f}"))
    heads = ("function", "memory", "requests", "time", "GB-seconds")
    note = (
        f'<p class="note">With {cost.state_transitions:,} state transitions about ${_dollars(cost.dollars)} by list '
        "prices; storage, requests to S3 and logs are not in it.</p>\n"
    )
    return _section("cost", "Cost", _table("What the run used", heads, lines, texts=1) + note)


def _dollars(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 1 or not amount else f"{amount:.2g}" if amount >= 1e-4 else f"{amount:.6f}"


def _section(name: str, title: str, content: str) -> str:
    return (
        f'<section id="{name}" aria-labelledby="{name}-head">\n<h2 id="{name}-head">{title}</h2>\n{content}</section>\n'
    )


def _table(caption: str, heads: Sequence[str], lines: Iterable[Sequence[str]], texts: int) -> str:
    """Lay out cells that are HTML already; the first `texts` columns are text, the others numbers."""

    def cells(tag: str, line: Sequence[str]) -> str:
        kinds = ("" if place < texts else ' class="right"' for place in range(len(line)))
        return "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, line, strict=True))

    rows = "".join(f"<tr>{cells('td', line)}</tr>\n" for line in lines)
    head = cells("th", [_escape(one) for one in heads]).replace("<th", '<th scope="col"')
    return (
        f'<div class="wide"><table>\n<caption>{_escape(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    )


def _others(lines: int) -> str:
    return f'<p class="note">and {lines - MOST:,} more, in summary.json</p>\n' if lines > MOST else ""


def _none(text: str) -> str:
    return f'<p class="none">{text}</p>\n'


def _flag(text: str, *, bad: bool) -> str:
    return f'<strong class="bad">{text}</strong>' if bad else text


def _escape(text: str) -> str:
    return html.escape(clean(text))


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    if 0 < abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:,.3f}" if abs(value) < 1000 else f"{value:,.0f}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _properties(colours: dict[str, str]) -> str:
    return "".join(f" --{name}: {colour};" for name, colour in colours.items())


STYLE = f"""\
:root {{ color-scheme: light;{_properties(dict(COLOURS))} --paper: #fdfdfc; --card: #ffffff; --bad: #b3261e; \
--good: #00694a }}
@media screen and (prefers-color-scheme: dark) {{
:root {{ color-scheme: dark;{_properties(DARK)} --paper: #191816; --card: #23211f; --bad: #ff8a80; --good: #52d6a8 }}
}}
* {{ box-sizing: border-box }}
body {{ margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif }}
main {{ max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem }}
h1 {{ font-size: 1.7rem; font-weight: 650; margin: 0 0 .5rem; overflow-wrap: anywhere }}
h1 .date {{ color: var(--faint); font-weight: 400 }}
h2 {{ font-size: 1.05rem; font-weight: 650; margin: 0 0 .75rem }}
.status {{ font-size: .8rem; font-weight: 600; padding: .2em .7em; border: 1.5px solid; border-radius: 1em; \
vertical-align: middle; white-space: nowrap }}
.succeeded {{ color: var(--good) }}
.failed, .bad, .cause {{ color: var(--bad) }}
.cause {{ margin: .5rem 0; padding-left: .75rem; border-left: 3px solid; overflow-wrap: anywhere }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: 0 0 1.25rem; font-size: .85rem }}
dt, .note, .none, .name, small, caption, figcaption {{ color: var(--faint) }}
dd {{ margin: 0; overflow-wrap: anywhere }}
code {{ font: .95em ui-monospace, "DejaVu Sans Mono", monospace }}
.counts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(7.4rem, 1fr)); gap: .75rem }}
.counts div, section {{ background: var(--card); border: 1px solid var(--line); border-radius: 10px }}
.counts div {{ padding: .7rem .9rem }}
.number, .name {{ display: block }}
.number {{ font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums }}
section {{ margin-top: 1.25rem; padding: 1.1rem 1.25rem; break-inside: avoid }}
figure {{ margin: 0 }}
.picture {{ display: block; width: 100%; height: auto; margin: 0 auto; overflow: visible; stroke-linejoin: round; \
stroke-linecap: butt }}
.picture text {{ white-space: pre }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums }}
caption {{ text-align: left; padding-bottom: .4rem }}
th, td {{ text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; \
overflow-wrap: anywhere }}
th {{ font-weight: 600 }}
tbody tr:last-child td {{ border-bottom: 0 }}
.right {{ text-align: right; padding-right: 0; padding-left: .8rem; white-space: nowrap }}
.note, figcaption {{ font-size: .82rem; margin: .6rem 0 0 }}
.none {{ margin: 0 }}
@media print {{
body {{ background: none; font-size: 10pt; print-color-adjust: exact; -webkit-print-color-adjust: exact }}
main {{ max-width: none; padding: 0 }}
.picture {{ max-height: 14cm }}
}}
"""
