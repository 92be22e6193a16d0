"""The report of a run: one HTML file without scripts or requests, for light and dark screens and for paper.

Equal summaries give byte-identical pages. All text from data is escaped, and a Content-Security-Policy forbids the page
scripts and requests.
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
    HistogramText,
    ValueBins,
    choose_bounds,
    draw_bars,
    draw_histogram,
    draw_matrix,
    draw_reliability,
    draw_scatter,
    draw_shifts,
)
from stepensemble.batch.report.html_elements import (
    MAX_LINES,
    STYLE,
    escape,
    flag,
    write_duration,
    write_empty,
    write_number,
    write_remainder,
    write_section,
    write_share,
    write_table,
)
from stepensemble.batch.report.label_summary import describe_labels
from stepensemble.batch.report.statistics import Histogram
from stepensemble.batch.report.summary import Summary
from stepensemble.core.arrays import Floats

MODERATE, LARGE = 0.1, 0.25
"""Population stability indexes from which a shift is called moderate, and large."""

SOURCE = "N. Siddiqi, Credit Risk Scorecards, Wiley 2006"
"""Source of these words and bounds."""

FEW_MEMBERS = 3
"""Up to so many members, the agreement of pairs is a table instead of a chart."""

CURVES = 16
"""How many members' calibration curves are drawn; the table has all members."""

ENSEMBLE = "the ensemble"
"""What the ensemble is called among the members."""


def draw_report(summary: Summary) -> str:
    """Return the report as an HTML page."""
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
        '<link rel="icon" href="data:,">\n'  # otherwise browsers request one
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{_draw_header(summary)}{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def name_shift(index: float) -> str:
    """Return the usual word for a population stability index."""
    return "small" if index < MODERATE else "moderate" if index < LARGE else "large"


def count_by_bounds(values: Floats, bounds: Floats) -> list[int]:
    """Count numbers by bins between bounds; numbers outside the bounds belong to the first and the last bin."""
    bins = np.clip(np.searchsorted(bounds, values, "right") - 1, 0, len(bounds) - 2)
    counts: list[int] = np.bincount(bins, minlength=len(bounds) - 1).tolist()
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
        ("predicted", f"{summary.rows_out:,}", write_share(summary.rows_out, summary.rows)),
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
    counts += _describe_accuracy(summary)
    failed = f"{summary.failed_shards:,} failed" if summary.failed_shards else "none failed"
    if summary.rows_failed:
        counts.append(("without prediction", f"{summary.rows_failed:,}", "in failed shards"))
    counts.append(("shards", f"{summary.shards:,}", failed if summary.shards else ""))
    rate = f"{summary.rows_in / summary.seconds:,.0f} rows/s" if summary.seconds > 0 and summary.rows_in else ""
    counts.append(("time", write_duration(summary.seconds), rate))
    tiles = "".join(
        f'<div><span class="number">{number}</span> <span class="name">{name}</span> <small>{beside}</small></div>'
        for name, number, beside in counts
    )
    return f'<div class="counts">{tiles}</div>\n'


def _describe_accuracy(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """Yield the ensemble's accuracy and error, and the labels that were not recognized."""
    if summary.calibration is not None:
        ensemble = summary.calibration.ensemble
        labels = f"of {ensemble.rows:,} labels"
        if ensemble.accuracy is not None:
            low, high = bound_share(ensemble.accuracy * ensemble.rows, ensemble.rows)
            yield "accuracy", f"{ensemble.accuracy:.1%}", f"{100 * low:.1f} to {high:.1%} {labels}"
        if ensemble.brier_score is not None:
            yield "Brier score", write_number(ensemble.brier_score), labels
        if ensemble.mean_absolute_error is not None:
            yield "mean absolute error", write_number(ensemble.mean_absolute_error), labels
    labels_read = summary.ground_truth
    if labels_read is not None and labels_read.unrecognized:
        share = write_share(labels_read.unrecognized, labels_read.rows)
        yield "unrecognized labels", f"{labels_read.unrecognized:,}", share


def _draw_predictions(summary: Summary) -> str:
    if not summary.rows_out:
        return write_section("predictions", "Predictions", write_empty("No row has a prediction."))
    charts = []
    if summary.labels:
        charts.append(_draw_labels(summary))
    bins = summary.histograms.prediction
    if bins is not None and any(bins.counts) and (summary.task == "binary" or summary.sample):
        charts.append(_draw_values(summary, bins))
    content = "".join(f"<figure>{chart}</figure>\n" for chart in charts)
    return write_section("predictions", "Predictions", content or write_empty("There is nothing to show."))


def _draw_labels(summary: Summary) -> str:
    counts = {name: summary.labels.get(name, 0) for name in summary.classes}
    shown = sorted(counts, key=lambda name: -counts[name])[:MAX_LINES] if len(counts) > MAX_LINES else list(counts)
    text = f"Predictions by class, of {summary.rows_out:,} rows. " + "; ".join(
        f"{name}: {counts[name]:,}" for name in shown
    )
    return draw_bars("classes", shown, [counts[name] for name in shown], summary.rows_out, text)


def _draw_values(summary: Summary, bins: Histogram) -> str:
    if summary.task == "binary":
        label = f"probability of “{summary.classes[1]}”"
        between = ["0", *(f"{edge:.4g}" for edge in bins.edges), "1"]
        previous = summary.previous_histograms.prediction
        before = None if previous is None or previous.edges != bins.edges else previous.counts
        return draw_histogram("values", ValueBins(between, bins.counts, before), HistogramText(label))
    values, earlier = np.array([row.predicted for row in summary.sample]), np.array(summary.previous_sample)
    label = f"prediction{_describe_sample(summary)}"
    return _draw_numbers("values", values, earlier, label, "Distribution of predictions")


def _draw_numbers(name: str, values: Floats, earlier: Floats, label: str, title: str) -> str:
    """Draw numbers in bins of equal width on a linear scale, and those of the previous run in the same bins."""
    bounds = choose_bounds(values, earlier)
    between = [f"{bound:.6g}" for bound in bounds]
    counts = count_by_bounds(values, bounds)
    before = count_by_bounds(earlier, bounds) if len(earlier) else None
    return draw_histogram(name, ValueBins(between, counts, before), HistogramText(label, title))


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
    pivotal = ("pivotal",) if classes else ()
    heads = ("member", "version", "role", "rows", "failures", "time", "mean", *pivotal)
    about = "; pivotal is the share of rows whose label would be another without the member" if classes else ""
    table = write_table(f"Time is the sum over all invocations{about}", heads, lines, texts=3)
    return write_section("members", "Members", table if summary.members else write_empty("No member was invoked."))


def _name_failures(failures: Mapping[str, int], unusable: int) -> str:
    """Write in how many shards a member failed, by error, and how many other rows have no usable output of it."""
    errors = [f"{escape(error)} {count:,}" for error, count in sorted(failures.items())]
    named = ", ".join(errors + ([f"{unusable:,} row{'' if unusable == 1 else 's'} unusable"] if unusable else []))
    return f'<strong class="bad">{named}</strong>' if named else "none"


def _draw_agreement(summary: Summary) -> str:
    if summary.task == "regression":
        return ""  # numbers have no labels to agree on
    names = [member.id for member in summary.members]
    if len(names) < 2 or not summary.agreement:
        message = "There is only one member." if len(names) == 1 else "There is nothing to compare."
        return write_section("agreement", "Agreement", write_empty(message))
    values = np.array([[np.nan if value is None else value for value in row] for row in summary.agreement], np.float64)
    pairs = [
        (float(values[row, column]), names[row], names[column])
        for row, column in zip(*np.triu_indices(len(names), 1), strict=True)
        if np.isfinite(values[row, column])
    ]
    if not pairs:
        return write_section("agreement", "Agreement", write_empty("No row has outputs of two members."))
    (least, one, other), (most, this, that) = min(pairs), max(pairs)
    if len(names) <= FEW_MEMBERS:
        lines = ((escape(first), escape(second), f"{share:.1%}") for share, first, second in sorted(pairs))
        table = write_table(
            "Share of rows for which two members have the same label", ("member", "and", "same label"), lines, texts=2
        )
        return write_section("agreement", "Agreement", table)
    text = (
        f"Share of rows for which two members have the same label. Least: {one} and {other}, {least:.1%}. "
        f"Most: {this} and {that}, {most:.1%}."
    )
    chart = draw_matrix("agreement", names, values, min(0.9, math.floor(least * 10) / 10), text)
    figure = f"<figure>{chart}<figcaption>{escape(text)}</figcaption></figure>\n"
    return write_section("agreement", "Agreement", figure)


def _draw_calibration(summary: Summary) -> str:
    notes = _draw_label_notes(summary)
    if summary.calibration is None:
        return write_section("calibration", "Against the labels", notes) if notes else ""
    measured = {ENSEMBLE: summary.calibration.ensemble, **summary.calibration.members}
    table = _list_calibrations(measured, classes=summary.task != "regression")
    curves = [_to_curve(name, one) for name, one in summary.calibration.members.items() if one.counts][:CURVES]
    ensemble = _to_curve(ENSEMBLE, summary.calibration.ensemble) if summary.calibration.ensemble.counts else None
    if not curves and ensemble is None:
        return write_section("calibration", "Against the labels", notes + _draw_residuals(summary) + table)
    text = "Observed share over predicted probability; on the diagonal both are equal. " + "; ".join(
        f"{name}: ECE {write_number(one.calibration_error)}" for name, one in measured.items() if one.counts
    )
    chart = draw_reliability("calibration", curves, ensemble, text)
    bins = "" if ensemble is None else _list_bins(ensemble)
    note = (
        '<p class="note">ECE, the expected calibration error, is the mean distance of a bin from the diagonal, '
        "weighted by its rows. For ECE and Brier score smaller is better. Bins have about as many rows each. The "
        "bounds are 95 % bounds (Wilson's score interval): if they include the diagonal, the rows show no "
        "difference.</p>\n"
    )
    return write_section("calibration", "Calibration", f"{notes}<figure>{chart}</figure>\n{table}{bins}{note}")


def _list_calibrations(measured: Mapping[str, Calibration], *, classes: bool) -> str:
    probable = any(one.counts for one in measured.values())
    heads = (
        "",
        "rows with label",
        *(("accuracy",) if classes else ()),
        *(("ECE", "Brier score") if probable else ("Brier score",) if classes else ("mean absolute error",)),
    )
    lines = (
        (
            f"<em>{name}</em>" if number == 0 else escape(name),  # the ensemble comes first
            f"{one.rows:,}",
            *((("–" if one.accuracy is None else f"{one.accuracy:.1%}"),) if classes else ()),
            *((write_number(one.calibration_error),) if probable else ()),
            write_number(one.error),
        )
        for number, (name, one) in enumerate(measured.items())
    )
    return write_table("Predictions compared with the labels", heads, lines, texts=1)


def _draw_label_notes(summary: Summary) -> str:
    if summary.ground_truth is None:
        return ""
    notes = describe_labels(summary.ground_truth, summary.classes)
    return "".join(f'<p class="{"cause" if note.is_warning else "note"}">{escape(note.text)}</p>\n' for note in notes)


def _to_curve(name: str, calibration: Calibration) -> Curve:
    bounds = [
        bound_share(share * rows, rows)
        for share, rows in zip(calibration.observed, calibration.counts, strict=True)
        if rows
    ]
    return Curve(name, calibration.mean_predicted, calibration.observed, calibration.counts, bounds)


def _list_bins(curve: Curve) -> str:
    lines = (
        (f"{predicted:.3f}", f"{observed:.3f}", f"{low:.3f} to {high:.3f}", f"{rows:,}")
        for predicted, observed, (low, high), rows in zip(
            curve.predicted, curve.observed, curve.bounds, curve.counts, strict=True
        )
    )
    heads = ("mean predicted", "observed", "bounds", "rows")
    return write_table(f"The bins of {curve.name}", heads, lines, texts=0)


def _draw_residuals(summary: Summary) -> str:
    """Draw a regression's sample against its labels: actual over predicted, and the differences."""
    known = [(row.predicted, row.actual) for row in summary.sample if row.actual is not None]
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
    label = f"predicted minus actual{of}"
    residuals = _draw_numbers("residuals", differences, np.empty(0), label, "Distribution of differences")
    caption = f"<figcaption>{escape(text)}</figcaption>"
    return f"<figure>{scatter}{caption}</figure>\n<figure>{residuals}</figure>\n"


def _draw_drift(summary: Summary) -> str:
    if summary.drift is None:
        return write_section("drift", "Drift", write_empty("There is no earlier run to compare with."))
    measured = [(escape(name), index) for name, index in summary.drift.features.items()]
    measured.append(("<em>the prediction</em>", summary.drift.prediction))
    ordered = sorted(measured, key=lambda one: (one[1] is None, -(one[1] or 0), one[0]))
    lines = (
        (name, write_number(index), "unknown" if index is None else flag(name_shift(index), bad=index >= LARGE))
        for name, index in ordered[:MAX_LINES]
    )
    table = write_table(f"Compared with {summary.previous_summary}", ("feature", "PSI", "shift"), lines, texts=1)
    note = (
        f'<p class="note">PSI, the population stability index: a shift below {MODERATE:g} is small, below {LARGE:g} '
        f"moderate, from {LARGE:g} on large ({SOURCE}).</p>\n"
    )
    return write_section("drift", "Drift", table + write_remainder(len(ordered)) + note + _draw_shifts(summary))


def _draw_shifts(summary: Summary) -> str:
    """Draw the distributions of the features with the largest drift, in this run and in the previous one."""
    distributions = []
    for name, before in summary.previous_histograms.features.items():
        now = summary.histograms.features[name]
        names = summary.bin_names.get(name, ())
        between = [] if names else ["", *(f"{edge:.6g}" for edge in now.edges), ""]
        counts, earlier = now.counts, before.counts
        if now.missing or before.missing:
            names = (*(names or _name_ranges(between)), "missing")
            counts, earlier = (*counts, now.missing), (*earlier, before.missing)
        distributions.append(Distribution(name, between, names, counts, earlier))
    if not distributions:
        return ""
    listed = ", ".join(one.name for one in distributions)
    text = f"Share of rows by bins of {listed}: bars are this run, the outline is the previous run."
    chart = draw_shifts("shifts", distributions, text)
    return f"<figure>{chart}<figcaption>{escape(text)}</figcaption></figure>\n"


def _name_ranges(between: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"< {high}" if not low else f"≥ {low}" for low, high in pairwise(between))


def _draw_rejected(summary: Summary) -> str:
    if not summary.rejections:
        return write_section("rejected", "Rejected rows", write_empty("No row was rejected."))
    ordered = sorted(
        ((column, reason, one) for column, reasons in summary.rejections.items() for reason, one in reasons.items()),
        key=lambda one: (-one[2].rows, one[:2]),
    )
    lines = (
        (
            escape(column) if column else "<em>the row</em>",
            escape(reason),
            escape(", ".join(f"{file} {row:,}" for file, row in rejection.examples)),
            f"{rejection.rows:,}",
        )
        for column, reason, rejection in ordered[:MAX_LINES]
    )
    heads = ("column", "reason", "examples: file and row", "rows")
    table = write_table("A row may be rejected for several reasons", heads, lines, texts=3)
    return write_section("rejected", "Rejected rows", table + write_remainder(len(ordered)))


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
        for shard in summary.failures[:MAX_LINES]
    )
    table = write_table("Shards without predictions", ("shard", "file", "cause", "rows"), lines, texts=3)
    return write_section("failures", "Failed shards", table + write_remainder(summary.failed_shards))


def _draw_slowest(summary: Summary) -> str:
    if not summary.slowest:
        return ""
    lines = (
        (f"{shard.number}", escape(shard.file), f"{shard.rows:,}", write_duration(shard.seconds))
        for shard in summary.slowest[:MAX_LINES]
    )
    table = write_table("The shards that took the longest", ("shard", "file", "rows", "time"), lines, texts=2)
    return write_section("slowest", "Slowest shards", table)


def _draw_cost(summary: Summary) -> str:
    cost = summary.cost
    lines = [
        (
            escape(used.function),
            f"{used.memory_mb:,} MB",
            f"{used.requests:,}",
            write_duration(used.seconds),
            f"{used.gb_seconds:,.1f}",
        )
        for used in cost.functions
    ]
    lines.append(("<em>all</em>", "", f"{cost.requests:,}", "", f"{cost.gb_seconds:,.1f}"))
    heads = ("function", "memory", "requests", "time", "GB-seconds")
    note = (
        f'<p class="note">With {cost.state_transitions:,} state transitions, about ${_dollars(cost.dollars)} at list '
        "prices, without storage, requests to S3 and logs.</p>\n"
    )
    return write_section("cost", "Cost", write_table("What the run used", heads, lines, texts=1) + note)


def _dollars(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 1 or not amount else f"{amount:.2g}" if amount >= 1e-4 else f"{amount:.6f}"
