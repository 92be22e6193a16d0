"""The tables of batch runs and of schedules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stepensemble.batch.report.calibration import Calibration
from stepensemble.batch.report.label_summary import describe_labels
from stepensemble.batch.report.summary import MemberSummary, Summary
from stepensemble.cli.batch_runs import FollowedRun
from stepensemble.cli.schedules import Schedule
from stepensemble.cli.tables.common import make_table, name_member
from stepensemble.core.releases.release import SHORT

MODES = {
    "new": "",
    "resumed": "resumed: finished shards were not predicted again",
    "joined": "joined: another execution worked on it",
    "returned": "returned: it was complete already",
}
MAX_REASONS = 5
"""How many reasons for rejections are shown; the report has all."""


def render_run(followed: FollowedRun, summary: Summary, folder: Path | None) -> RenderableType:
    """Render how a run ended: its members, counts, and where its files are.

    Args:
        followed: the run.
        summary: its summary.
        folder: the folder with the results on this machine; None if they were not downloaded.
    """
    return Group(_render_members(summary), "", _render_facts(followed, summary, folder))


def render_schedule(schedule: Schedule, times: Sequence[datetime]) -> RenderableType:
    """Render a schedule and its next times."""
    table = _make_grid()
    enabled = schedule.state == "ENABLED"
    table.add_row("schedule", f"{schedule.name}, {schedule.expression} in {schedule.timezone}")
    table.add_row("state", Text(schedule.state.lower(), style="bold green" if enabled else "bold yellow"))
    if "dataset" in schedule.input:
        table.add_row("dataset", Text(str(schedule.input["dataset"])))
    table.add_row("starts", Text(schedule.target.rsplit(":", 1)[-1]))
    lines = [f"{time:%a %Y-%m-%d %H:%M %Z}" for time in times] or ["never again"]
    for number, line in enumerate(lines):
        table.add_row(("next" if enabled else "would be next") if number == 0 else "", line)
    return table


def _render_members(summary: Summary) -> RenderableType:
    table = make_table()
    classes = summary.task != "regression"
    for name in ("member", "version", "rows", "mean", *(("pivotal",) if classes else ()), "failed shards", "time"):
        table.add_column(name, justify="left" if name in {"member", "version"} else "right")
    for member in summary.members:
        table.add_row(*_describe_member(member, classes=classes))
    return table


def _describe_member(member: MemberSummary, *, classes: bool) -> Iterator[str | Text]:
    failed = sum(member.failures.values())
    names = f" {', '.join(member.failures)}" if failed else ""
    yield name_member(member.id, member.role)
    yield member.version
    yield Text(f"{member.rows:,}").append(
        f", {member.unusable:,} unusable" if member.unusable else "", style="bold red"
    )
    yield "" if member.mean is None else f"{member.mean:.4g}"
    if classes:
        yield "" if member.pivotal is None else f"{member.pivotal:.1%}"
    yield Text(f"{failed:,}{names}", style="bold red" if failed else "")
    yield format_seconds(member.seconds)


def _render_facts(followed: FollowedRun, summary: Summary, folder: Path | None) -> RenderableType:
    table = _make_grid()
    for name, fact in _list_facts(followed, summary, folder):
        table.add_row(name, fact)
    return table


def _list_facts(followed: FollowedRun, summary: Summary, folder: Path | None) -> Iterator[tuple[str, str | Text]]:
    yield "rows", f"{summary.rows:,} in, {summary.rows_out:,} predicted"
    predictions = ", ".join(f"{count:,} {name}" for name, count in _count_predictions(summary) if count)
    if predictions:
        yield "predictions", Text(predictions)
    if summary.rows_rejected:
        yield "rejected", Text(_describe_rejections(summary))
    yield from _describe_labels(summary)
    yield from _describe_drift(summary)
    failed = f", {summary.failed_shards:,} failed" if summary.failed_shards else ""
    yield "shards", f"{summary.shards:,}{failed}, in {format_seconds(summary.seconds)}"
    cost = summary.cost
    usage = f"{cost.gb_seconds:,.1f} GB-seconds, {cost.requests:,} requests, {cost.state_transitions:,} transitions"
    yield "cost", f"{usage}: ${cost.dollars:.4f}"
    style = "bold green" if summary.status == "SUCCEEDED" else "bold red"
    mode = f", {MODES[followed.mode]}" if MODES[followed.mode] else ""
    details = f"  run {summary.run} of {summary.date}, release {summary.release[:SHORT]}{mode}"
    yield "status", Text(summary.status, style=style) + Text(details)
    paths = (summary.results, summary.rejected, summary.report)
    if folder is not None:
        rejected = None if summary.rejected is None else f"{folder}/rejected-*.parquet"
        paths = (None if summary.results is None else f"{folder}/", rejected, f"{folder}/report.html")
    for name, path in zip(("results", "rejected", "report"), paths, strict=True):
        if path is not None:
            yield name, Text(path, overflow="fold")


def _describe_accuracy(one: Calibration) -> str:
    accuracy = "" if one.accuracy is None else f"accuracy {one.accuracy:.1%}, "
    kind = "mean absolute error" if one.accuracy is None else "Brier score"
    error = "" if one.error is None else f"{kind} {one.error:.4g}, "
    return f"{accuracy}{error}on {one.rows:,} rows with a label"


def _describe_labels(summary: Summary) -> Iterator[tuple[str, str | Text]]:
    labels = summary.ground_truth
    if summary.calibration is not None:
        yield "labels", _describe_accuracy(summary.calibration.ensemble)
    if labels is None:
        return
    if summary.calibration is None:
        column = f'none of the {labels.rows:,} in column "{labels.column}"'
        yield "labels", Text(f"{column} could be compared")
    for note in describe_labels(labels, summary.classes):
        yield "", Text(note.text, style="bold yellow" if note.is_warning else "")


def _count_predictions(summary: Summary) -> Iterator[tuple[str, int]]:
    yield from summary.labels.items()
    yield "abstained", summary.decisions.get("abstain", 0)
    yield "for review", summary.needs_review
    yield "DEGRADED", summary.statuses.get("DEGRADED", 0)


def _describe_rejections(summary: Summary) -> str:
    reasons = {
        f"{column} {reason}".strip(): rejection.rows
        for column, kinds in summary.rejections.items()
        for reason, rejection in kinds.items()
    }
    ordered = sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0]))
    first = [f"{reason} ({count:,})" for reason, count in ordered[:MAX_REASONS]]
    more = f", and {len(ordered) - MAX_REASONS} more reasons" if len(ordered) > MAX_REASONS else ""
    return f"{summary.rows_rejected:,}: {', '.join(first)}{more}"


def _describe_drift(summary: Summary) -> Iterator[tuple[str, str | Text]]:
    if summary.drift is None:
        return
    measured = [*summary.drift.features.items(), ("the prediction", summary.drift.prediction)]
    known = [(index, name) for name, index in measured if index is not None]
    if known:
        index, name = max(known)
        style = "bold red" if index >= 0.25 else "bold yellow" if index >= 0.1 else ""
        day = (summary.previous_summary or "").partition("/dt=")[2].partition("/")[0]
        yield "drift", Text(f"at most {index:.3f} ({name}), compared with the run of {day}", style=style)


def format_seconds(seconds: float) -> str:
    """Return a duration in milliseconds, seconds or minutes, whichever fits."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def _make_grid() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table
