"""The tables of an execution: the members' outputs, the predictions, and the status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stepensemble.cli.tables.common import make_table, name_member
from stepensemble.cli.terminal import STATUS_STYLES, clean_line
from stepensemble.core.aggregation.canonical import find_usable, read_entries, read_output, shape_output
from stepensemble.core.aggregation.output import MemberReport, Output, Prediction
from stepensemble.core.record import Record
from stepensemble.core.releases.release import SHORT, Release, ReleasedMember
from stepensemble.core.schema.outputs import Label
from stepensemble.core.schema.outputs import Output as Contract
from stepensemble.core.schema.policy import name_method
from stepensemble.core.schema.task import BinaryTask, RegressionTask, Task, name_classes

BAR_CELLS = 16
SHOWN_ROWS = 20
VALUE_CELLS = 60
MEMBER_CELLS = 5
"""The least width of a member's column; its name is folded to fit."""

GAP = 2
"""Cells between columns."""

WIDTH = 160
"""The width where there is no terminal."""

MEMBER_STYLES = {"ok": "green", "partial": "yellow", "failed": "red", "skipped": "dim"}


def render_output(output: Output, release: Release, width: int = WIDTH) -> RenderableType:
    """Render one line per member, then the predictions; `width` is the terminal's, in cells."""
    parts: list[RenderableType] = [_render_members(output, release), ""]
    predictions = list_rows(output)
    if len(predictions) == 1:
        parts.append(_render_prediction(predictions[0], release.task))
    elif predictions:
        parts.append(_render_predictions(output, release, width))
    parts += _render_shadows(output)
    parts += _render_cascade(output, release)
    parts.append(_render_status(output))
    return Group(*parts)


def render_input(record: Record) -> RenderableType:
    """Render the input: the features of a single row, or the number of rows; and the metadata."""
    table = make_table()
    table.add_column("started", style="dim")
    table.add_column(record.started_at[:19].replace("T", " "))
    features = record.input.get("features")
    if isinstance(features, dict):
        for name, value in features.items():
            text = str(value)
            table.add_row(name, text if len(text) <= VALUE_CELLS else f"{text[: VALUE_CELLS - 1]}…")
    else:
        table.add_row("rows", f"{record.rows:,}")
    for name, value in record.metadata.items():
        table.add_row(f"metadata {name}", str(value))
    return Group(table, "")


def list_rows(output: Output) -> Sequence[Prediction]:
    """Return the predictions of an output whose pointers are followed."""
    return output.predictions if isinstance(output.predictions, list) else []


def _render_members(output: Output, release: Release) -> Table:
    table = make_table()
    table.add_column("member", style="bold", overflow="fold")
    table.add_column("version")
    table.add_column("output" if len(list_rows(output)) <= 1 else "output, mean of its rows", overflow="fold")
    table.add_column("weight", justify="right")
    table.add_column("time", justify="right")
    table.add_column("")
    table.add_column("state")
    for member, declared in zip(output.members, release.members, strict=True):
        table.add_row(
            name_member(member.id, member.role),
            member.version,
            Text(member.error.type, style="red")
            if member.error and member.status == "failed"
            else _summarize_member(member, declared.output, release.task),
            f"{member.weight:.2f}",
            "" if member.duration_ms is None else f"{member.duration_ms:.1f} ms",
            "" if member.cold is None else "cold" if member.cold else "warm",
            Text(member.status, style=MEMBER_STYLES.get(member.status, "yellow")),
        )
    return table


def _summarize_member(member: MemberReport, contract: Contract, task: Task) -> Text:
    """Render the mean of a member's canonical outputs: a value, or a probability with a bar.

    For two classes it is the probability of the second; for more, that of the member's most probable class. For a
    member that returns labels it is the most frequent one.
    """
    entries = member.outputs if isinstance(member.outputs, list) else []
    usable = [one for one in list_canonical(entries, contract, task) if one is not None]
    if not usable:
        return Text("")
    mean = np.mean(usable, axis=0)
    if isinstance(task, RegressionTask):
        return Text(f"{float(mean):.6g}")
    names = [clean_line(name) for name in name_classes(task)]
    if isinstance(contract, Label):
        counts = np.bincount([int(one.argmax()) for one in usable], minlength=len(names))
        name = names[int(counts.argmax())]
        return Text(name if len(usable) == 1 else f"{name} in {counts.max()} of {len(usable)}")
    if isinstance(task, BinaryTask):
        return render_bar(float(mean[1])).append(f" {mean[1]:.3f}")
    likeliest = int(mean.argmax())
    return render_bar(float(mean[likeliest])).append(f" {mean[likeliest]:.3f} {names[likeliest]}")


def list_canonical(entries: Sequence[Any], contract: Contract, task: Task) -> list[Any]:
    """Return the entries of a member's output in canonical form; None for an entry that is not usable.

    `core.aggregation.canonical.read_output` defines the form.
    """
    if not entries:
        return []
    numbers, _ = read_output(shape_output(read_entries(entries), len(entries)), task, contract)
    return [one if usable else None for one, usable in zip(numbers, find_usable(numbers), strict=True)]


def render_bar(share: float) -> Text:
    """Render a share, 0 to 1, as a bar of `BAR_CELLS`."""
    filled = round(min(max(share, 0.0), 1.0) * BAR_CELLS)
    return Text("█" * filled, style="cyan").append("░" * (BAR_CELLS - filled), style="dim")


def _render_prediction(prediction: Prediction, task: Task) -> Text:
    line = Text("prediction  ", style="bold")
    if prediction.decision == "failed":
        return line.append("none", style="bold red").append(f"   {prediction.failure}", style="yellow")
    if isinstance(task, RegressionTask):
        line.append(f"{prediction.value:g}", style="bold cyan")
        line.append(f"   spread {prediction.spread:.3g}   range {prediction.range:.3g}")
        return line.append(f"   {_list_flags(prediction)}".rstrip(), style="yellow")
    line.append(prediction.label if isinstance(prediction.label, str) else "none", style="bold cyan")
    if isinstance(task, BinaryTask):
        line.append(f"   probability of {task.classes[1]} {prediction.value:.3f}")
    elif isinstance(prediction.score, float):
        line.append(f"   probability {prediction.score:.3f}")
    line.append(f"   {_list_flags(prediction)}".rstrip(), style="yellow")
    line.append(f"\n            agreement {_format_agreement(prediction)}   spread {prediction.spread:.3f}")
    line.append(f"   margin {prediction.margin:.3f}")
    if prediction.pivotal:
        line.append(f"\n            another label without {' or '.join(prediction.pivotal)}", style="yellow")
    return line


def _list_flags(prediction: Prediction) -> str:
    """List what is unusual about a prediction."""
    flags = [{"review": "needs review", "failed": "no prediction"}.get(prediction.decision, "")]
    flags += ["tie"] if prediction.tie is True else []
    flags += [f"without {', '.join(prediction.missing)}"] if isinstance(prediction.missing, list) else []
    return ", ".join(flag for flag in flags if flag)


def _render_predictions(output: Output, release: Release, width: int) -> RenderableType:
    """Render one line per row: the prediction, and each member's canonical output for it.

    A member's output is its probability of the predicted class, or its label if it returns labels, or its value in the
    ensemble's unit. As many members are shown as fit into the width; if the predictions alone do not fit, the labels
    are folded, so that the last column stays.
    """
    predictions = list_rows(output)
    shown = predictions[:SHOWN_ROWS]
    classes = not isinstance(release.task, RegressionTask)
    before, after = _list_own_columns(shown, classes=classes)
    room = width + GAP - sum(column.cells for column in [*before, *after])  # the last column has no gap
    folded = [column for column in before if column.name == "label"] if room < 0 else []
    fitting = _list_member_columns(output, release, room)
    table = make_table()
    columns = [*before, *fitting, *after]
    for column in columns:
        narrow = column in folded or column in fitting
        body = column.body_cells if column in fitting else 0
        table.add_column(
            column.name,
            justify=column.justify,
            style=column.style,
            min_width=max(body, MEMBER_CELLS) if narrow else column.cells - GAP,
            overflow="fold",
            no_wrap=not narrow,
        )
    for line in zip(*(column.lines for column in columns), strict=True):
        table.add_row(*map(Text, line))
    notes = []
    if classes and fitting:
        notes.append("members: the probability of the predicted label, or the member's own label")
    if (more := len(predictions) - SHOWN_ROWS) > 0:
        notes.append(f"and {more:,} more row{'' if more == 1 else 's'}; --json lists all")
    if (more := len(output.members) - len(fitting)) > 0:
        notes.append(f"and {more} more member{'' if more == 1 else 's'}; a wider terminal or --json shows all")
    return Group(table, *(Text(note, style="dim") for note in notes))


def _list_own_columns(shown: Sequence[Prediction], *, classes: bool) -> tuple[list[_Column], list[_Column]]:
    """Return the ensemble's columns: those left of the members' columns, and those right of them."""
    before = [_Column("row", [str(row) for row in range(len(shown))])]
    spread = ".3f" if classes else ".3g"
    after = [_Column("spread", [_format_number(one.spread, spread) for one in shown])]
    if classes:
        labels = [clean_line(one.label) if isinstance(one.label, str) else "none" for one in shown]
        before.append(_Column("label", labels, "left", "bold cyan"))
        before.append(_Column("score", [_format_number(one.score, ".3f") for one in shown]))
        after.insert(0, _Column("agreement", [_format_agreement(one) for one in shown]))
    else:
        before.append(_Column("value", [_format_number(one.value, ".6g") for one in shown]))
    after.append(_Column("", [_list_flags(one).removeprefix("needs ") for one in shown], "left", "yellow"))
    return before, after


def _list_member_columns(output: Output, release: Release, room: int) -> list[_Column]:
    """Return the columns of the first members, as many as fit into `room` cells."""
    predictions = list_rows(output)
    fitting: list[_Column] = []
    for member, declared in zip(output.members, release.members, strict=True):
        by_row = _list_outputs(member, declared, release, predictions)
        lines = [clean_line(by_row.get(row, "–")) for row in range(len(predictions[:SHOWN_ROWS]))]
        column = _Column(member.id, lines, style="dim")
        room -= max(column.body_cells, MEMBER_CELLS) + GAP
        if room < 0:
            break
        fitting.append(column)
    return fitting


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table of rows."""

    name: str
    lines: Sequence[str]
    justify: Literal["left", "right"] = "right"
    style: str = ""

    @property
    def body_cells(self) -> int:
        """The width of its lines, in cells."""
        return max(map(cell_len, self.lines), default=0)

    @property
    def cells(self) -> int:
        """Its width with its name and the gap after it, in cells."""
        return max(cell_len(self.name), self.body_cells) + GAP


def _list_outputs(
    member: MemberReport, declared: ReleasedMember, release: Release, predictions: Sequence[Prediction]
) -> Mapping[int, str]:
    """Return the text of a member's output for each row that reached its tier, by the row's number."""
    if not isinstance(member.outputs, list) or (member.error is not None and member.status == "failed"):
        return {}
    reached = [row for row, one in enumerate(predictions) if not isinstance(one.tier, int) or one.tier >= declared.tier]
    reached = [row for row in reached if row < SHOWN_ROWS]
    outputs = list_canonical(member.outputs[: len(reached)], declared.output, release.task)
    return {
        row: _format_output(one, declared.output, release.task, predictions[row].label)
        for row, one in zip(reached, outputs, strict=True)
        if one is not None
    }


def _format_output(entry: Any, contract: Contract, task: Task, label: Any) -> str:
    if isinstance(task, RegressionTask):
        return f"{float(entry):.6g}"
    names = name_classes(task)
    if isinstance(contract, Label):
        return names[int(entry.argmax())]
    if label in names:
        return f"{entry[names.index(label)]:.3f}"
    return f"{names[int(entry.argmax())]} {entry.max():.3f}"  # the row has no predicted label


def _format_number(number: Any, form: str) -> str:
    return format(number, form) if isinstance(number, float) else ""


def _render_shadows(output: Output) -> list[RenderableType]:
    """Render for each shadow how often it agrees, and how often counting it would change the prediction."""
    by_row = [one.shadows for one in list_rows(output) if isinstance(one.shadows, dict)]
    lines: list[RenderableType] = []
    for id_ in dict.fromkeys(id_ for shadows in by_row for id_ in shadows):
        reports = [shadows[id_] for shadows in by_row if id_ in shadows]
        agrees, flips = sum(one.agrees for one in reports), [one.flips for one in reports]
        many, changed = len(reports) > 1, sum(flip is True for flip in flips)
        line = Text("shadow      ", style="bold").append(f"{id_} ", style="cyan")
        line.append(f"agrees in {agrees} of {len(reports)} rows" if many else "agrees" if agrees else "disagrees")
        if None not in flips:
            line.append(
                f", counting it would change {f'{changed} of them' if many else 'it' if changed else 'nothing'}"
            )
        lines.append(line)
    return lines


def _render_cascade(output: Output, release: Release) -> list[RenderableType]:
    """Render how many rows each tier decided, and how many invocations and rows that saved."""
    tiers = Counter(one.tier for one in list_rows(output) if isinstance(one.tier, int))
    if not tiers:
        return []
    rows = sum(tiers.values())
    reached = {tier: sum(tiers[later] for later in tiers if later >= tier) for tier in range(1, release.tiers + 1)}
    skipped = sum(member.status == "skipped" for member in output.members)
    saved = sum(rows - reached[member.tier] for member in release.members)
    line = Text("cascade     ", style="bold")
    line.append(", ".join(f"tier {tier} decided {tiers[tier]} of {rows}" for tier in sorted(tiers)))
    total = rows * len(output.members)
    line.append(f"; saved {skipped} of {len(output.members)} invocations and {saved:,} of {total:,} rows")
    return [line]


def _render_status(output: Output) -> Text:
    line = Text("status      ", style="bold").append(output.status, style=STATUS_STYLES[output.status])
    if output.needs_review:
        line.append(f"   {output.needs_review} of {len(list_rows(output))} to review", style="yellow")
    if output.rows_failed:
        line.append(f"   {output.rows_failed} of {len(list_rows(output))} without a prediction", style="yellow")
    for member in output.members:
        if member.error is not None and member.role == "voter":
            without = "in some rows without" if member.status == "partial" else "without"
            line.append(f"\n            {without} {member.id}: {member.error.message.splitlines()[0]}", style="yellow")
    method, voters = name_method(output.policy.aggregation), output.participation["voter"].responded
    line.append(f"\n            {method} of {voters} voter{'s' if voters != 1 else ''}", style="dim")
    return line.append(f", release {output.release[:SHORT]}, recorded as {output.prediction_id}", style="dim")


def _format_agreement(prediction: Prediction) -> str:
    return f"{prediction.agreement:.0%}" if isinstance(prediction.agreement, float) else ""
