"""What people see in tables: what the gate saw, the records, the reviews asked for."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from stepensemble.core.records import RecordSummary
from stepensemble.core.release import SHORT
from stepensemble.publishing.gate import TRIAL_ROWS, Trial
from stepensemble.publishing.sources import Sources
from stepensemble.storage.reviews import ReviewEvent

STATUS_STYLES = {"COMPLETE": "bold green", "DEGRADED": "bold yellow", "FAILED": "bold red"}


def draw_trials(sources: Sources, trials: Sequence[Trial]) -> RenderableType:
    """Draw what the gate saw of each member."""
    table = plain_table()
    for name in ("member", "version", "weight", "artifact", "bytes", "load", f"{TRIAL_ROWS} rows"):
        table.add_column(name, justify="left" if name in {"member", "version", "artifact"} else "right")
    for trial, member in zip(trials, sources.manifest.members, strict=True):
        table.add_row(
            name_member(member.id, member.role),
            member.version,
            f"{member.weight:g}",
            member.artifact,
            f"{trial.member.artifact.size:,}",
            f"{trial.load_ms:.1f} ms",
            f"{trial.predict_ms:.2f} ms",
        )
    return table


def draw_records(summaries: Sequence[RecordSummary]) -> RenderableType:
    """Draw a line a record."""
    table = plain_table()
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


def draw_events(events: Sequence[ReviewEvent]) -> RenderableType:
    """Draw a line an event."""
    table = plain_table()
    for name in ("prediction", "asked", "status", "to review", "release"):
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
    """Name a member, and a shadow as one."""
    return f"{member} (shadow)" if role == "shadow" else member


def plain_table() -> Table:
    """Return an empty table in the project's style: no lines, dim headers."""
    return Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
