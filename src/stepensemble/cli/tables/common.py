"""Tables of the gate, of records and of the review queue; and what all tables share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from stepensemble.cli.terminal import STATUS_STYLES
from stepensemble.core.record import RecordSummary
from stepensemble.core.releases.release import SHORT
from stepensemble.storage.review_log import ReviewEvent

# `ensemble run` uses this module and should not import the gate.
if TYPE_CHECKING:
    from stepensemble.admission.gate import GateReport
    from stepensemble.admission.member_checks import Check

VERDICT_STYLES = {"ok": "green", "warning": "bold yellow", "refused": "bold red"}


def render_members(report: GateReport) -> RenderableType:
    """Render one line per member: its version and model file, and its times at the gate."""
    table = make_table()
    for name in ("member", "version", "weight", "artifact", "bytes", "load", f"{report.batch_rows} rows"):
        table.add_column(name, justify="left" if name in {"member", "version", "artifact"} else "right")
    release = report.sources.release
    for entry, member in zip(report.sources.manifest.members, release.members, strict=True):
        measured = report.results[entry.id]
        table.add_row(
            name_member(entry.id, entry.role),
            entry.version,
            f"{entry.weight:g}",
            entry.artifact,
            f"{member.artifact.size:,}",
            f"{measured.load_ms:.1f} ms",
            f"{measured.predict_ms:.2f} ms",
        )
    return table


def render_checks(checks: Sequence[Check]) -> RenderableType:
    """Render one line per check."""
    table = make_table()
    for name in ("member", "check", "figure", "limit", "verdict"):
        table.add_column(name)
    named: str | None = ""
    for check in checks:
        table.add_row(
            "" if check.member == named else check.member or "ensemble",
            check.name,
            check.figure,
            check.limit or "",
            Text(check.verdict, style=VERDICT_STYLES[check.verdict]),
        )
        named = check.member
    return table


def render_records(summaries: Sequence[RecordSummary]) -> RenderableType:
    """Render one line per record."""
    table = make_table()
    for name in ("prediction", "recorded", "status", "rows", "release"):
        table.add_column(name, justify="right" if name == "rows" else "left")
    for summary in summaries:
        table.add_row(
            summary.prediction_id,
            summary.recorded_at[:19].replace("T", " "),
            Text(summary.status, style=STATUS_STYLES.get(summary.status, "")),
            f"{summary.rows:,}",
            summary.release[:SHORT],
        )
    return table


def render_reviews(events: Sequence[ReviewEvent]) -> RenderableType:
    """Render one line per prediction that needs a review."""
    table = make_table()
    for name in ("prediction", "started", "status", "to review", "release"):
        table.add_column(name, justify="right" if name == "to review" else "left")
    for event in events:
        table.add_row(
            event.prediction_id,
            event.time[:19].replace("T", " "),
            Text(event.status, style=STATUS_STYLES.get(event.status, "")),
            f"{event.needs_review:,}",
            event.release[:SHORT],
        )
    return table


def name_member(member: str, role: str) -> str:
    """Return a member's id; for a shadow, marked as one."""
    return f"{member} (shadow)" if role == "shadow" else member


def make_table() -> Table:
    """Return an empty table in the project's style: no lines, dim headers."""
    return Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
