"""What people see of runs and of the schedule."""

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
from stepensemble.cli.batch_runs import Followed
from stepensemble.cli.schedules import Scheduled
from stepensemble.cli.tables.common import name_member, plain_table
from stepensemble.core.releases.release import SHORT

HOW = {
    "new": "",
    "resumed": "resumed: shards that were finished are not done again",
    "joined": "joined: another execution worked on it",
    "returned": "returned: it was whole already",
}
MOST_REASONS = 5
"""Reasons for rejections that are shown; the report has all."""


def draw_run(followed: Followed, summary: Summary, folder: Path | None) -> RenderableType:
    """Draw how a run ended: counts, members, and where everything is.

    Args:
        followed: the run.
        summary: its summary.
        folder: where the results are on this machine; None where they were not brought there.
    """
    return Group(_draw_members(summary), "", _draw_facts(followed, summary, folder))


def draw_schedule(scheduled: Scheduled, times: Sequence[datetime]) -> RenderableType:
    """Draw a schedule and its next times."""
    table = _plain_grid()
    enabled = scheduled.state == "ENABLED"
    table.add_row("schedule", f"{scheduled.name}, {scheduled.expression} in {scheduled.timezone}")
    table.add_row("state", Text(scheduled.state.lower(), style="bold green" if enabled else "bold yellow"))
    if "dataset" in scheduled.input:
        table.add_row("dataset", Text(str(scheduled.input["dataset"])))
    table.add_row("starts", Text(scheduled.target.rsplit(":", 1)[-1]))
    shown = [f"{time:%a %Y-%m-%d %H:%M %Z}" for time in times] or ["never again"]
    for number, line in enumerate(shown):
        table.add_row(("next" if enabled else "would be next") if number == 0 else "", line)
    return table


def _draw_members(summary: Summary) -> RenderableType:
    table = plain_table()
    classes = summary.task != "regression"
    for name in ("member", "version", "rows", "mean", *(("tips",) if classes else ()), "failed shards", "time"):
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
    yield say_seconds(member.seconds)


def _draw_facts(followed: Followed, summary: Summary, folder: Path | None) -> RenderableType:
    table = _plain_grid()
    for name, fact in _tell(followed, summary, folder):
        table.add_row(name, fact)
    return table


def _tell(followed: Followed, summary: Summary, folder: Path | None) -> Iterator[tuple[str, str | Text]]:
    yield "rows", f"{summary.rows:,} in, {summary.rows_out:,} answered"
    answers = ", ".join(f"{count:,} {what}" for what, count in _count_answers(summary) if count)
    if answers:
        yield "answers", Text(answers)
    if summary.rows_rejected:
        yield "rejected", Text(_tell_rejected(summary))
    yield from _describe_labels(summary)
    yield from _tell_drift(summary)
    failed = f", {summary.failed_shards:,} failed" if summary.failed_shards else ""
    yield "shards", f"{summary.shards:,}{failed}, in {say_seconds(summary.seconds)}"
    cost = summary.cost
    took = f"{cost.gb_seconds:,.1f} GB-seconds, {cost.requests:,} requests, {cost.state_transitions:,} transitions"
    yield "cost", f"{took}: ${cost.dollars:.4f}"
    style = "bold green" if summary.status == "SUCCEEDED" else "bold red"
    how = f", {HOW[followed.how]}" if HOW[followed.how] else ""
    named = f"  run {summary.run} of {summary.date}, release {summary.release[:SHORT]}{how}"
    yield "status", Text(summary.status, style=style) + Text(named)
    places = (summary.results, summary.rejected, summary.report)
    if folder is not None:
        rejected = None if summary.rejected is None else f"{folder}/rejected-*.parquet"
        places = (None if summary.results is None else f"{folder}/", rejected, f"{folder}/report.html")
    for name, place in zip(("results", "rejected", "report"), places, strict=True):
        if place is not None:
            yield name, Text(place, overflow="fold")


def _tell_accuracy(one: Calibration) -> str:
    right = "" if one.accuracy is None else f"{one.accuracy:.1%} right, "
    kind = "mean absolute error" if one.accuracy is None else "Brier score"
    error = "" if one.error is None else f"{kind} {one.error:.4g}, "
    return f"{right}{error}of {one.rows:,} rows whose truth is known"


def _describe_labels(summary: Summary) -> Iterator[tuple[str, str | Text]]:
    labels = summary.ground_truth
    if summary.calibration is not None:
        yield "labels", _tell_accuracy(summary.calibration.ensemble)
    if labels is None:
        return
    if summary.calibration is None:
        yield "labels", Text(f'none of {labels.rows:,} in column "{labels.column}" could be compared')
    for line, serious in describe_labels(labels, summary.classes):
        yield "", Text(line, style="bold yellow" if serious else "")


def _count_answers(summary: Summary) -> Iterator[tuple[str, int]]:
    yield from summary.labels.items()
    yield "abstained", summary.decisions.get("abstain", 0)
    yield "for review", summary.needs_review
    yield "DEGRADED", summary.statuses.get("DEGRADED", 0)


def _tell_rejected(summary: Summary) -> str:
    reasons = {
        f"{column} {reason}".strip(): rejection.rows
        for column, kinds in summary.rejections.items()
        for reason, rejection in kinds.items()
    }
    ordered = sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0]))
    shown = [f"{reason} ({count:,})" for reason, count in ordered[:MOST_REASONS]]
    more = f", and {len(ordered) - MOST_REASONS} more reasons" if len(ordered) > MOST_REASONS else ""
    return f"{summary.rows_rejected:,}: {', '.join(shown)}{more}"


def _tell_drift(summary: Summary) -> Iterator[tuple[str, str | Text]]:
    if summary.drift is None:
        return
    measured = [*summary.drift.features.items(), ("the prediction", summary.drift.prediction)]
    known = [(index, name) for name, index in measured if index is not None]
    if known:
        index, name = max(known)
        style = "bold red" if index >= 0.25 else "bold yellow" if index >= 0.1 else ""
        day = (summary.previous_summary or "").partition("/dt=")[2].partition("/")[0]
        yield "drift", Text(f"{index:.3f} at most ({name}), since the run of {day}", style=style)


def say_seconds(seconds: float) -> str:
    """Write a time as people do."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def _plain_grid() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table
