"""The tables of a replay: the policy that was tried, what it changes, and the rows that change most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import UNSET
from rich.console import Group, RenderableType
from rich.text import Text

from stepensemble.cli.tables.common import make_table
from stepensemble.cli.tables.prediction import SHOWN_ROWS
from stepensemble.cli.what_if import ReplayResult
from stepensemble.core.releases.release import SHORT
from stepensemble.core.replay.report import Change, ChangeCount, ChangedRow, MissingOutputs, ReleaseMismatch, Replay
from stepensemble.core.replay.what_if import WhatIf

REASONS = {"not invoked": "was not invoked", "failed": "failed", "invalid": "has invalid outputs"}


def render_replay(replayed: ReplayResult) -> RenderableType:
    """Render the summary, then the rows that change, those with the largest shift first."""
    table = make_table()
    table.show_header = False
    table.add_column(style="dim")
    table.add_column()
    for name, text in _summarize(replayed):
        table.add_row(name, Text(text))
    rows = replayed.report.changed_rows
    return Group(table, "", _render_rows(rows)) if rows else table


def _summarize(replayed: ReplayResult) -> Iterator[tuple[str, str]]:
    report = replayed.report
    yield "policy", _name_policy(replayed.what_if)
    unreadable = f"; {replayed.unreadable:,} deleted or of another version" if replayed.unreadable else ""
    others = f"; {replayed.other_ensembles:,} of other ensembles" if replayed.other_ensembles else ""
    yield "records", f"{report.records:,} since {replayed.since}{unreadable}{others}"
    yield "rows", f"{report.rows:,}, of which {report.compared:,} compared"
    yield "labels", f"{report.labels_flipped:,} changed{_list_changes(report.flips)}"
    yield "decisions", f"{report.decisions_changed:,} changed{_list_changes(report.decisions)}"
    yield "statuses", f"{report.statuses_changed:,} changed{_list_changes(report.statuses)}"
    yield "shift", _name_shift(report)
    for missing in report.missing:
        yield "missing", _name_missing(missing)
    for mismatch in report.mismatches:
        yield "models", _name_mismatch(mismatch)


def _name_policy(what_if: WhatIf) -> str:
    weights = ",".join(f"{member}={weight:g}" for member, weight in what_if.weights.items())
    given = {"manifest": what_if.origin, "method": what_if.method, "weights": weights}
    return ", ".join(f"{name} {value}" for name, value in given.items() if value) or "the recorded policy"


def _list_changes(changes: Sequence[ChangeCount]) -> str:
    listed = ", ".join(f"{_format_change(one.change)} {one.count:,}" for one in changes)
    return f": {listed}" if listed else ""


def _name_shift(report: Replay) -> str:
    shift = report.shift
    if shift is None:
        return "no rows to compare"
    return f"mean {shift.mean:+.4g}, mean absolute {shift.mean_absolute:.4g}, largest {shift.greatest:+.4g}"


def _name_missing(missing: MissingOutputs) -> str:
    extent = f"{_count_nouns(missing.records, 'record')}, {_count_nouns(missing.rows, 'row')}"
    return f"{missing.member} {REASONS[missing.reason]} in {extent}" + (
        f": {missing.example}" if missing.example else ""
    )


def _name_mismatch(mismatch: ReleaseMismatch) -> str:
    recorded, manifest = mismatch.recorded, mismatch.manifest
    if mismatch.of == "artifact":
        recorded, manifest = recorded[:SHORT], manifest[:SHORT]
    extent = _count_nouns(mismatch.records, "record")
    return f"{mismatch.member}: recorded with {mismatch.of} {recorded}, the manifest has {manifest} ({extent})"


def _render_rows(rows: Sequence[ChangedRow]) -> RenderableType:
    classes = any(row.label is not UNSET for row in rows)
    table = make_table()
    table.add_column("prediction")
    table.add_column("row", justify="right")
    if classes:
        table.add_column("label", style="bold")
    table.add_column("decision")
    table.add_column("value", justify="right")
    table.add_column("shift", justify="right")
    for row in rows[:SHOWN_ROWS]:
        label = [] if row.label is UNSET else [Text(_format_change(row.label))]
        decision = _format_change(row.decision)
        value = f"{_format_number(row.value.before)} → {_format_number(row.value.after)}"
        table.add_row(Text(row.prediction_id), str(row.row), *label, decision, value, f"{row.shift:+.4g}")
    rest = len(rows) - SHOWN_ROWS
    return Group(table, Text(f"and {rest:,} more rows; --json lists all", style="dim")) if rest > 0 else table


def _format_change(change: Change[str | None]) -> str:
    before, after = change.before or "none", change.after or "none"
    return before if before == after else f"{before} → {after}"


def _format_number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _count_nouns(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
