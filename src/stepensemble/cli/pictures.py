"""What people see: the fan-out, the answer, tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stepensemble.core.answer import MemberReport, Output, Prediction
from stepensemble.core.manifest import BinaryTask, RegressionTask, Task
from stepensemble.core.records import Record, RecordSummary
from stepensemble.core.release import SHORT, Release
from stepensemble.publishing.gate import TRIAL_ROWS, Trial
from stepensemble.publishing.sources import Sources

BAR_CELLS = 20
SHOWN_ROWS = 20
STATUS_STYLES = {"COMPLETE": "bold green", "DEGRADED": "bold yellow", "FAILED": "bold red"}


def draw_fan_out(output: Output, release: Release) -> RenderableType:
    """Draw a line a member, then the answer."""
    parts: list[RenderableType] = [_members_table(output, release), ""]
    if output.predictions and isinstance(output.predictions, list):
        one = len(output.predictions) == 1
        parts.append(_answer_line(output.predictions[0], release.task) if one else _predictions_table(output, release))
    parts.append(_status_line(output, release))
    return Group(*parts)


def draw_input(record: Record) -> RenderableType:
    """Draw what was asked: a row's features, or how many rows; and the metadata."""
    table = _table()
    table.add_column("asked", style="dim")
    table.add_column(record.started_at[:19].replace("T", " "))
    features = record.input.get("features")
    if isinstance(features, dict):
        for name, value in features.items():
            table.add_row(name, str(value))
    else:
        table.add_row("rows", f"{record.rows:,}")
    for name, value in record.metadata.items():
        table.add_row(f"metadata {name}", str(value))
    return Group(table, "")


def _members_table(output: Output, release: Release) -> Table:
    table = _table()
    table.add_column("member", style="bold")
    table.add_column("version")
    table.add_column("output" if _rows(output) == 1 else f"output, mean of {_rows(output)} rows")
    table.add_column("weight", justify="right")
    table.add_column("time", justify="right")
    table.add_column("")
    table.add_column("state")
    for member in output.members:
        failed = member.error is not None
        table.add_row(
            _name(member.id, member.role),
            member.version,
            Text(member.error.type, style="red") if member.error else _output_cell(member, release.task),
            f"{member.weight:.2f}",
            "" if member.duration_ms is None else f"{member.duration_ms:.1f} ms",
            "" if member.cold is None else "cold" if member.cold else "warm",
            Text("failed", style="red") if failed else Text("ok", style="green"),
        )
    return table


def _output_cell(member: MemberReport, task: Task) -> Text:
    outputs = member.outputs
    if not isinstance(outputs, list) or not outputs:
        return Text("")
    if isinstance(outputs[0], list):
        columns = [sum(column) / len(outputs) for column in zip(*outputs, strict=True)]
        best = max(range(len(columns)), key=columns.__getitem__)
        name = task.classes[best] if not isinstance(task, RegressionTask) and best < len(task.classes) else str(best)
        return _bar(columns[best]).append(f" {columns[best]:.3f} {name}")
    mean = sum(outputs) / len(outputs)
    if isinstance(task, RegressionTask):
        return Text(f"{mean:g}")
    return _bar(mean).append(f" {mean:.3f}")


def _bar(share: float) -> Text:
    filled = round(min(max(share, 0.0), 1.0) * BAR_CELLS)
    return Text("█" * filled, style="cyan").append("░" * (BAR_CELLS - filled), style="dim")


def _answer_line(prediction: Prediction, task: Task) -> Text:
    line = Text("answer  ", style="bold")
    if isinstance(task, RegressionTask):
        return line.append(f"{prediction.value:g}", style="bold cyan").append(f"   spread {prediction.spread:.3g}")
    line.append(str(prediction.label), style="bold cyan")
    if isinstance(task, BinaryTask):
        line.append(f"   {task.classes[1]} with probability {prediction.value:.3f}")
    else:
        line.append(f"   with probability {prediction.score:.3f}")
    line.append(f"   agreement {_percent(prediction)}   spread {prediction.spread:.3f}")
    return line.append("   tie", style="yellow") if prediction.tie is True else line


def _predictions_table(output: Output, release: Release) -> RenderableType:
    predictions = output.predictions if isinstance(output.predictions, list) else []
    table = _table()
    table.add_column("row", justify="right")
    classes = not isinstance(release.task, RegressionTask)
    if classes:
        table.add_column("answer", style="bold cyan")
    table.add_column("value", justify="right")
    for member in output.members:
        table.add_column(member.id, justify="right", style="dim")
    if classes:
        table.add_column("agreement", justify="right")
    table.add_column("spread", justify="right")
    for row, prediction in enumerate(predictions[:SHOWN_ROWS]):
        cells = [str(row)]
        cells += [str(prediction.label) + (" (tie)" if prediction.tie is True else "")] if classes else []
        cells.append(f"{prediction.value:.3f}")
        cells += [_member_cell(member, row) for member in output.members]
        cells += [_percent(prediction)] if classes else []
        table.add_row(*cells, f"{prediction.spread:.3f}")
    rest = len(predictions) - SHOWN_ROWS
    return Group(table, Text(f"and {rest:,} rows more; --json shows all", style="dim")) if rest > 0 else table


def _member_cell(member: MemberReport, row: int) -> str:
    if not isinstance(member.outputs, list) or member.error is not None:
        return "–"
    entry = member.outputs[row]
    return f"{max(entry):.3f}" if isinstance(entry, list) else f"{entry:.3f}"


def _status_line(output: Output, release: Release) -> Text:
    line = Text("status  ", style="bold").append(output.status, style=STATUS_STYLES[output.status])
    missing = [member for member in output.members if member.error is not None and member.role == "voter"]
    for member in missing:
        message = member.error.message.splitlines()[0] if member.error else ""
        line.append(f"\n        without {member.id}: {message}", style="yellow")
    line.append(f"\n        {release.aggregation.method} of {len(release.voters) - len(missing)} voters", style="dim")
    return line.append(f", release {output.release[:SHORT]}, kept as {output.prediction_id}", style="dim")


def _percent(prediction: Prediction) -> str:
    return f"{prediction.agreement:.0%}" if isinstance(prediction.agreement, float) else ""


def draw_trials(sources: Sources, trials: Sequence[Trial]) -> RenderableType:
    """Draw what the gate saw of each member."""
    table = _table()
    for name in ("member", "version", "weight", "artifact", "bytes", "load", f"{TRIAL_ROWS} rows"):
        table.add_column(name, justify="left" if name in {"member", "version", "artifact"} else "right")
    for trial, member in zip(trials, sources.manifest.members, strict=True):
        table.add_row(
            _name(member.id, member.role),
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
    table = _table()
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


def _name(member: str, role: str) -> str:
    return f"{member} (shadow)" if role == "shadow" else member


def _rows(output: Output) -> int:
    return len(output.predictions) if isinstance(output.predictions, list) and output.predictions else 1


def _table() -> Table:
    return Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
