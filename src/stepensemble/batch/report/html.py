"""A run to look at: one HTML file that needs nothing else, neither network nor script, in light and dark and on paper.

Equal summaries give equal pages, to the byte. All text in them that comes from data is escaped, and the page forbids
itself scripts and requests besides (Content-Security-Policy).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from stepensemble.batch.report.calibration import Calibration, bound_share
from stepensemble.batch.report.charts import (
    Curve,
    Distribution,
    choose_bounds,
    draw_bars,
    draw_histogram,
    draw_matrix,
    draw_reliability,
    draw_scatter,
    draw_shifts,
)
from stepensemble.batch.report.drift import PREDICTION
from stepensemble.batch.report.html_elements import (
    MOST,
    STYLE,
    count_others,
    escape,
    flag,
    lay_out_section,
    lay_out_table,
    say_none,
    write_duration,
    write_number,
    write_share,
)
from stepensemble.batch.report.label_summary import describe_truth
from stepensemble.batch.report.statistics import Histogram
from stepensemble.batch.report.summary import Summary
from stepensemble.core.arrays import Floats

MODERATE, LARGE = 0.1, 0.25
"""Population stability indices from which a shift is called so."""

SOURCE = "N. Siddiqi, Credit Risk Scorecards, Wiley 2006"
"""Of these words and their bounds."""


FEW_MEMBERS = 3
"""Members up to which their pairs are a table, and no picture."""

CURVES = 16
"""Members whose calibration is drawn; the table has all."""


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
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{_draw_header(summary)}{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def name_shift(index: float) -> str:
    """Return the usual word for a population stability index."""
    return "little" if index < MODERATE else "moderate" if index < LARGE else "large"


def share_out(values: Floats, bounds: Floats) -> list[int]:
    """Count numbers by bins between bounds; what lies beyond belongs to the first and the last."""
    places = np.clip(np.searchsorted(bounds, values, "right") - 1, 0, len(bounds) - 2)
    counts: list[int] = np.bincount(places, minlength=len(bounds) - 1).tolist()
    return counts


def _draw_header(summary: Summary) -> str:
    facts = (
        ("run", summary.run),
        ("release", summary.release),
        ("dataset", summary.dataset),
        ("finished", summary.finished_at),
    )
    named = "".join(f"<dt>{name}</dt><dd><code>{escape(value)}</code></dd>" for name, value in facts)
    cause = f'<p class="cause" role="alert">{escape(summary.cause)}</p>\n' if summary.cause else ""
    notes = "".join(f'<p class="note">{escape(note)}</p>\n' for note in summary.notes)
    status = summary.status.lower()
    return (
        f'<header>\n<h1>{escape(summary.ensemble)} <span class="date">{escape(summary.date)}</span> '
        f'<span class="status {status}">{status}</span></h1>\n{cause}'
        f"<dl>{named}</dl>\n{_draw_counts(summary)}{notes}</header>\n"
    )


def _draw_counts(summary: Summary) -> str:
    counts = [
        ("rows in", f"{summary.rows:,}", ""),
        ("answered", f"{summary.rows_out:,}", write_share(summary.rows_out, summary.rows)),
        ("rejected", f"{summary.rows_rejected:,}", write_share(summary.rows_rejected, summary.rows)),
    ]
    abstained = summary.decisions.get("abstain", 0)
    if abstained:
        counts.append(("abstained", f"{abstained:,}", write_share(abstained, summary.rows_out)))
    degraded = summary.statuses.get("DEGRADED", 0)
    if degraded:
        counts.append(("degraded", f"{degraded:,}", write_share(degraded, summary.rows_out)))
    if summary.needs_review:
        counts.append(("for review", f"{summary.needs_review:,}", write_share(summary.needs_review, summary.rows_out)))
    counts += _count_truth(summary)
    failed = f"{summary.failed_shards:,} failed" if summary.failed_shards else "none failed"
    if summary.rows_failed:
        counts.append(("without answer", f"{summary.rows_failed:,}", "in failed shards"))
    counts.append(("shards", f"{summary.shards:,}", failed if summary.shards else ""))
    rate = f"{summary.rows_in / summary.seconds:,.0f} rows/s" if summary.seconds > 0 and summary.rows_in else ""
    counts.append(("time", write_duration(summary.seconds), rate))
    tiles = "".join(
        f'<div><span class="number">{number}</span> <span class="name">{name}</span> <small>{beside}</small></div>'
        for name, number, beside in counts
    )
    return f'<div class="counts">{tiles}</div>\n'


def _count_truth(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """Return what is known of the ensemble's answers from labels: how many are right, how far they are off."""
    ensemble = next((one for one in summary.calibration if one.name == PREDICTION), None)
    if ensemble is not None:
        labels = f"of {ensemble.rows:,} labels"
        if ensemble.right is not None:
            low, high = bound_share(ensemble.right * ensemble.rows, ensemble.rows)
            yield "right", f"{ensemble.right:.1%}", f"{100 * low:.1f} to {high:.1%} {labels}"
        if ensemble.error is not None:
            yield "Brier score" if ensemble.right is not None else "mean error", write_number(ensemble.error), labels
    if summary.truth is not None and summary.truth.unknown:
        share = write_share(summary.truth.unknown, summary.truth.given)
        yield "labels not understood", f"{summary.truth.unknown:,}", share


def _draw_predictions(summary: Summary) -> str:
    if not summary.rows_out:
        return lay_out_section("predictions", "Predictions", say_none("No row was answered."))
    pictures = []
    if summary.labels:
        pictures.append(_draw_labels(summary))
    bins = summary.histograms.get(PREDICTION)
    if bins is not None and any(bins.counts) and (summary.task == "binary" or summary.sample):
        pictures.append(_draw_values(summary, bins))
    content = "".join(f"<figure>{picture}</figure>\n" for picture in pictures)
    return lay_out_section("predictions", "Predictions", content or say_none("Nothing was counted."))


def _draw_labels(summary: Summary) -> str:
    counts = {name: summary.labels.get(name, 0) for name in summary.classes}
    shown = sorted(counts, key=lambda name: -counts[name])[:MOST] if len(counts) > MOST else list(counts)
    text = f"Answers by class, of {summary.rows_out:,} rows. " + "; ".join(
        f"{name}: {counts[name]:,}" for name in shown
    )
    return draw_bars("classes", shown, [counts[name] for name in shown], summary.rows_out, text)


def _draw_values(summary: Summary, bins: Histogram) -> str:
    if summary.task == "binary":
        label = f"probability of “{summary.classes[1]}”"
        between = ["0", *(f"{edge:.4g}" for edge in bins.edges), "1"]
        same = summary.before is not None and summary.before.edges == bins.edges
        before: Sequence[int] | None = summary.before.counts if summary.before is not None and same else None
        return draw_histogram(
            "values", between, bins.counts, before, label, _describe_bins(label, between, bins.counts)
        )
    values, earlier = np.array([value for value, _ in summary.sample]), np.array(summary.sample_before)
    label = f"prediction{_describe_sample(summary)}"
    return _draw_numbers("values", values, earlier, label, "Distribution of predictions")


def _draw_numbers(name: str, values: Floats, earlier: Floats, label: str, title: str) -> str:
    """Draw numbers in bins of equal width on a linear scale, and those of the run before by the same bins."""
    bounds = choose_bounds(values, earlier)
    between = [f"{bound:.6g}" for bound in bounds]
    counts = share_out(values, bounds)
    before = share_out(earlier, bounds) if len(earlier) else None
    return draw_histogram(name, between, counts, before, label, _describe_bins(label, between, counts), title)


def _describe_bins(label: str, between: Sequence[str], counts: Sequence[int]) -> str:
    named = (f"{low} to {high}: {count:,}" for (low, high), count in zip(pairwise(between), counts, strict=True))
    return f"Rows by {label}. " + "; ".join(named)


def _describe_sample(summary: Summary) -> str:
    return f", a sample of {len(summary.sample):,} rows" if len(summary.sample) < summary.rows_out else ""


def _draw_members(summary: Summary) -> str:
    classes = summary.task != "regression"
    lines = (
        (
            escape(member.id),
            escape(member.version),
            escape(member.role),
            f"{member.rows:,}",
            _name_failures(member.failures, member.unusable),
            write_duration(member.seconds) if member.shards else "–",
            write_number(member.mean),
            *((("–" if member.pivotal is None else f"{member.pivotal:.1%}"),) if classes else ()),
        )
        for member in summary.members
    )
    tips = ("tips the answer",) if classes else ()
    heads = ("member", "version", "role", "rows", "failures", "time", "mean", *tips)
    table = lay_out_table("What each member did; time is that of all its invocations together", heads, lines, texts=3)
    return lay_out_section("members", "Members", table if summary.members else say_none("No member was asked."))


def _name_failures(failures: Mapping[str, int], unusable: int) -> str:
    """Write in how many shards a member failed, and why; and for how many other rows it gave nothing usable."""
    told = [f"{escape(error)} {count:,}" for error, count in sorted(failures.items())]
    named = ", ".join(told + ([f"{unusable:,} row{'' if unusable == 1 else 's'} unusable"] if unusable else []))
    return f'<strong class="bad">{named}</strong>' if named else "none"


def _draw_agreement(summary: Summary) -> str:
    if summary.task == "regression":
        return ""  # numbers have no labels to agree on
    names = [member.id for member in summary.members]
    if len(names) < 2 or not summary.agreement:
        alone = "One member has nobody to agree with." if len(names) == 1 else "There is nothing to compare."
        return lay_out_section("agreement", "Agreement", say_none(alone))
    values = np.array([[np.nan if value is None else value for value in row] for row in summary.agreement], np.float64)
    pairs = [
        (float(values[row, column]), names[row], names[column])
        for row, column in zip(*np.triu_indices(len(names), 1), strict=True)
        if np.isfinite(values[row, column])
    ]
    if not pairs:
        return lay_out_section("agreement", "Agreement", say_none("No two members answered the same row."))
    (least, one, other), (most, this, that) = min(pairs), max(pairs)
    if len(names) <= FEW_MEMBERS:
        lines = ((escape(first), escape(second), f"{share:.1%}") for share, first, second in sorted(pairs))
        table = lay_out_table(
            "Share of rows for which two members say the same", ("member", "and", "same"), lines, texts=2
        )
        return lay_out_section("agreement", "Agreement", table)
    text = (
        f"Share of rows for which two members say the same. Least: {one} and {other}, {least:.1%}. "
        f"Most: {this} and {that}, {most:.1%}."
    )
    picture = draw_matrix("agreement", names, values, min(0.9, math.floor(least * 10) / 10), text)
    figure = f"<figure>{picture}<figcaption>{escape(text)}</figcaption></figure>\n"
    return lay_out_section("agreement", "Agreement", figure)


def _draw_calibration(summary: Summary) -> str:
    reading = _draw_truth(summary)
    if not summary.calibration:
        return lay_out_section("calibration", "Against the labels", reading) if reading else ""
    ordered = sorted(summary.calibration, key=lambda one: one.name != PREDICTION)
    probable = any(one.said for one in ordered)
    classes = summary.task != "regression"
    heads = (
        "",
        "rows with label",
        *(("right",) if classes else ()),
        *(("ECE", "Brier score") if probable else ("mean absolute error",)),
    )
    lines = (
        (
            escape(one.name) if one.name else "<em>the ensemble</em>",
            f"{one.rows:,}",
            *((("–" if one.right is None else f"{one.right:.1%}"),) if classes else ()),
            *((write_number(one.expected),) if probable else ()),
            write_number(one.error),
        )
        for one in ordered
    )
    table = lay_out_table("What was said against the labels", heads, lines, texts=1)
    members = [_curve(one) for one in ordered if one.name and one.said][:CURVES]
    ensemble = next((_curve(one) for one in ordered if not one.name and one.said), None)
    if not members and ensemble is None:
        return lay_out_section("calibration", "Against the labels", reading + _draw_residuals(summary) + table)
    text = "How often what was said came true, over what was said; on the diagonal both are equal. " + "; ".join(
        f"{one.name or 'the ensemble'}: ECE {write_number(one.expected)}" for one in ordered if one.said
    )
    picture = draw_reliability("calibration", members, ensemble, text)
    bins = "" if ensemble is None else _list_bins(ensemble)
    note = '<p class="note">ECE, the expected calibration error, is the mean distance of a bin from the diagonal, '
    note += "weighted by its rows. Of both scores smaller is better. Bins have about as many rows each; the bounds are "
    note += "those of 95 % (Wilson's score interval): where they hold the diagonal, the rows show no difference.</p>\n"
    return lay_out_section("calibration", "Calibration", f"{reading}<figure>{picture}</figure>\n{table}{bins}{note}")


def _draw_truth(summary: Summary) -> str:
    if summary.truth is None:
        return ""
    lines = describe_truth(summary.truth, summary.classes)
    return "".join(f'<p class="{"cause" if serious else "note"}">{escape(line)}</p>\n' for line, serious in lines)


def _curve(calibration: Calibration) -> Curve:
    bounds = [
        bound_share(true * rows, rows) for true, rows in zip(calibration.true, calibration.counts, strict=True) if rows
    ]
    name = calibration.name or "the ensemble"
    return Curve(name, calibration.said, calibration.true, calibration.counts, bounds)


def _list_bins(curve: Curve) -> str:
    lines = (
        (f"{said:.3f}", f"{true:.3f}", f"{low:.3f} to {high:.3f}", f"{rows:,}")
        for said, true, (low, high), rows in zip(
            curve.predicted, curve.observed, curve.bounds, curve.counts, strict=True
        )
    )
    return lay_out_table(f"The bins of {curve.name}", ("said, mean", "came true", "bounds", "rows"), lines, texts=0)


def _draw_residuals(summary: Summary) -> str:
    """Draw a regression's sample against its labels: actual over predicted, and the differences."""
    known = [(value, true) for value, true in summary.sample if true is not None]
    if not known:
        return ""
    predicted, actual = np.array(known).T
    of = f", a sample of {len(known):,} rows" if len(summary.sample) < summary.rows_out else f" of {len(known):,} rows"
    differences = predicted - actual
    text = (
        f"Actual over predicted{of}; on the diagonal both are equal. Mean difference {np.mean(differences):.4g}, half "
        f"of the differences within {np.median(np.abs(differences)):.4g}."
    )
    scatter = draw_scatter("scatter", predicted, actual, text)
    label = f"predicted less actual{of}"
    residuals = _draw_numbers("residuals", differences, np.empty(0), label, "Distribution of differences")
    caption = f"<figcaption>{escape(text)}</figcaption>"
    return f"<figure>{scatter}{caption}</figure>\n<figure>{residuals}</figure>\n"


def _draw_drift(summary: Summary) -> str:
    if summary.previous is None:
        return lay_out_section("drift", "Drift", say_none("There is no earlier run to compare with."))
    ordered = sorted(summary.drift, key=lambda drift: (drift.index is None, -(drift.index or 0), drift.name))
    lines = (
        (
            escape(drift.name) if drift.name else "<em>the prediction</em>",
            write_number(drift.index),
            "unknown" if drift.index is None else flag(name_shift(drift.index), bad=drift.index >= LARGE),
        )
        for drift in ordered[:MOST]
    )
    table = lay_out_table(f"Against {summary.previous}", ("feature", "PSI", "shift"), lines, texts=1)
    note = (
        f'<p class="note">PSI, the population stability index: below {MODERATE:g} little shift, below {LARGE:g} '
        f"moderate, from there on large ({SOURCE}).</p>\n"
    )
    return lay_out_section("drift", "Drift", table + count_others(len(ordered)) + note + _draw_shifts(summary))


def _draw_shifts(summary: Summary) -> str:
    """Draw how the features that have shifted most are distributed, beside the run before."""
    distributions = []
    for name, before in summary.shifted.items():
        now = summary.histograms[name]
        names = summary.bins.get(name, ())
        between = [] if names else ["", *(f"{edge:.6g}" for edge in now.edges), ""]
        counts, earlier = now.counts, before.counts
        if now.missing or before.missing:
            names = (*(names or _name_ranges(between)), "missing")
            counts, earlier = (*counts, now.missing), (*earlier, before.missing)
        distributions.append(Distribution(name, between, names, counts, earlier))
    if not distributions:
        return ""
    listed = ", ".join(one.name for one in distributions)
    text = f"Shares of rows by bins of {listed}: bars are this run, the outline is the run before."
    picture = draw_shifts("shifts", distributions, text)
    return f"<figure>{picture}<figcaption>{escape(text)}</figcaption></figure>\n"


def _name_ranges(between: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"< {high}" if not low else f"≥ {low}" for low, high in pairwise(between))


def _draw_rejected(summary: Summary) -> str:
    if not summary.rejections:
        return lay_out_section("rejected", "Rejected rows", say_none("No row was rejected."))
    ordered = sorted(
        ((column, reason, told) for column, reasons in summary.rejections.items() for reason, told in reasons.items()),
        key=lambda one: (-one[2].rows, one[:2]),
    )
    lines = (
        (
            escape(column) if column else "<em>the row</em>",
            escape(reason),
            escape(", ".join(f"{file} {row:,}" for file, row in told.places)),
            f"{told.rows:,}",
        )
        for column, reason, told in ordered[:MOST]
    )
    heads = ("column", "reason", "for instance, file and row", "rows")
    table = lay_out_table("A row may have several reasons", heads, lines, texts=3)
    return lay_out_section("rejected", "Rejected rows", table + count_others(len(ordered)))


def _draw_failures(summary: Summary) -> str:
    if not summary.failures:
        return ""
    lines = (
        (
            f"{shard.number}",
            escape(shard.file),
            escape(f"{shard.error}: {shard.cause}"),
            "–" if shard.rows is None else f"{shard.rows:,}",
        )
        for shard in summary.failures[:MOST]
    )
    table = lay_out_table("Shards without an answer", ("shard", "file", "cause", "rows"), lines, texts=3)
    return lay_out_section("failures", "Failed shards", table + count_others(summary.failed_shards))


def _draw_slowest(summary: Summary) -> str:
    if not summary.slowest:
        return ""
    lines = (
        (f"{shard.number}", escape(shard.file), f"{shard.rows:,}", write_duration(shard.seconds))
        for shard in summary.slowest[:MOST]
    )
    table = lay_out_table("The shards that took longest", ("shard", "file", "rows", "time"), lines, texts=2)
    return lay_out_section("slowest", "Slowest shards", table)


def _draw_cost(summary: Summary) -> str:
    cost = summary.cost
    lines = [
        (
            escape(used.function),
            f"{used.memory:,} MB",
            f"{used.requests:,}",
            write_duration(used.seconds),
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
    return lay_out_section("cost", "Cost", lay_out_table("What the run used", heads, lines, texts=1) + note)


def _dollars(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 1 or not amount else f"{amount:.2g}" if amount >= 1e-4 else f"{amount:.6f}"
