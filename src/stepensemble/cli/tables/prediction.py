"""What people see of an execution: the fan-out, the answer, and what to think of it."""

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

from stepensemble.cli.tables.common import name_member, plain_table
from stepensemble.cli.terminal import STATUS_STYLES, clean_line
from stepensemble.core.aggregation.canonical import find_usable, read_entries, read_output, shape_output
from stepensemble.core.aggregation.prediction import MemberReport, Output, Prediction
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
"""Of a member's column at least; its name is folded into it."""

GAP = 2
"""Cells between columns."""

WIDTH = 160
"""Where no terminal says its own."""

MEMBER_STYLES = {"ok": "green", "partial": "yellow", "failed": "red", "skipped": "dim"}


def render_output(output: Output, release: Release, width: int = WIDTH) -> RenderableType:
    """Draw a line a member, then the answer; `width` is that of the terminal."""
    parts: list[RenderableType] = [_members_table(output, release), ""]
    predictions = list_rows(output)
    if len(predictions) == 1:
        parts.append(_answer_line(predictions[0], release.task))
    elif predictions:
        parts.append(_predictions_table(output, release, width))
    parts += _shadow_lines(output)
    parts += _cascade_line(output, release)
    parts.append(_status_line(output))
    return Group(*parts)


def render_input(record: Record) -> RenderableType:
    """Draw what was asked: a row's features, or how many rows; and the metadata."""
    table = plain_table()
    table.add_column("asked", style="dim")
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


def _members_table(output: Output, release: Release) -> Table:
    table = plain_table()
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
    """Draw a member's mean over its rows in the form that all members share: a value, or a probability with a bar.

    Of two classes it is the probability of the second, else that of the member's most probable class. A label
    is named.
    """
    entries = member.outputs if isinstance(member.outputs, list) else []
    said = [one for one in list_canonical(entries, contract, task) if one is not None]
    if not said:
        return Text("")
    mean = np.mean(said, axis=0)
    if isinstance(task, RegressionTask):
        return Text(f"{float(mean):.6g}")
    names = [clean_line(name) for name in name_classes(task)]
    if isinstance(contract, Label):
        counts = np.bincount([int(one.argmax()) for one in said], minlength=len(names))
        name = names[int(counts.argmax())]
        return Text(name if len(said) == 1 else f"{name} in {counts.max()} of {len(said)}")
    if isinstance(task, BinaryTask):
        return render_bar(float(mean[1])).append(f" {mean[1]:.3f}")
    place = int(mean.argmax())
    return render_bar(float(mean[place])).append(f" {mean[place]:.3f} {names[place]}")


def list_canonical(entries: Sequence[Any], contract: Contract, task: Task) -> list[Any]:
    """Return entries of a member's output in the form that all members share; an entry that is not usable is None.

    `core.aggregation.canonical.read_output` defines that form.
    """
    if not entries:
        return []
    numbers, _ = read_output(shape_output(read_entries(entries), len(entries)), task, contract)
    return [one if usable else None for one, usable in zip(numbers, find_usable(numbers), strict=True)]


def render_bar(share: float) -> Text:
    """Draw a share of `BAR_CELLS`."""
    filled = round(min(max(share, 0.0), 1.0) * BAR_CELLS)
    return Text("█" * filled, style="cyan").append("░" * (BAR_CELLS - filled), style="dim")


def _answer_line(prediction: Prediction, task: Task) -> Text:
    line = Text("answer  ", style="bold")
    if prediction.decision == "failed":
        return line.append("none", style="bold red").append(f"   {prediction.failure}", style="yellow")
    if isinstance(task, RegressionTask):
        line.append(f"{prediction.value:g}", style="bold cyan")
        line.append(f"   spread {prediction.spread:.3g}   range {prediction.range:.3g}")
        return line.append(f"   {_remarks(prediction)}".rstrip(), style="yellow")
    line.append(prediction.label if isinstance(prediction.label, str) else "none", style="bold cyan")
    if isinstance(task, BinaryTask):
        line.append(f"   {task.classes[1]} with probability {prediction.value:.3f}")
    elif isinstance(prediction.score, float):
        line.append(f"   with probability {prediction.score:.3f}")
    line.append(f"   {_remarks(prediction)}".rstrip(), style="yellow")
    line.append(f"\n        agreement {_percent(prediction)}   spread {prediction.spread:.3f}")
    line.append(f"   margin {prediction.margin:.3f}")
    if prediction.pivotal:
        line.append(f"\n        another answer without {' or '.join(prediction.pivotal)}", style="yellow")
    return line


def _remarks(prediction: Prediction) -> str:
    """Say what is unusual about an answer."""
    words = [{"review": "needs review", "failed": "no answer"}.get(prediction.decision, "")]
    words += ["tie"] if prediction.tie is True else []
    words += [f"without {', '.join(prediction.missing)}"] if isinstance(prediction.missing, list) else []
    return ", ".join(word for word in words if word)


def _predictions_table(output: Output, release: Release, width: int) -> RenderableType:
    """Draw a line a row: the answer, and in the same terms what each member says.

    That is the member's own probability of the answered class, however it says it; the label of one that gives labels;
    of a regression the value in the ensemble's unit. As many members are shown as fit into the width; where not even
    the answers fit without any, they are folded, so that the remarks stay.
    """
    predictions = list_rows(output)
    classes = not isinstance(release.task, RegressionTask)
    shown = predictions[:SHOWN_ROWS]
    cells = {
        member.id: _list_cells(member, declared, release, predictions)
        for member, declared in zip(output.members, release.members, strict=True)
    }
    before = [_Column("row", [str(row) for row in range(len(shown))])]
    spread = ".3f" if classes else ".3g"
    after = [_Column("spread", [_write(one.spread, spread) for one in shown])]
    if classes:
        labels = [clean_line(one.label) if isinstance(one.label, str) else "none" for one in shown]
        before.append(_Column("answer", labels, "left", "bold cyan"))
        before.append(_Column("score", [_write(one.score, ".3f") for one in shown]))
        after.insert(0, _Column("agreement", [_percent(one) for one in shown]))
    else:
        before.append(_Column("value", [_write(one.value, ".6g") for one in shown]))
    after.append(_Column("", [_remarks(one).removeprefix("needs ") for one in shown], "left", "yellow"))
    room = width + GAP - sum(column.cells for column in [*before, *after])  # there is no gap after the last
    folded = [column for column in before if column.name == "answer"] if room < 0 else []
    fitting: list[_Column] = []
    for member in output.members:
        said = [clean_line(cells[member.id].get(row, "–")) for row in range(len(shown))]
        column = _Column(member.id, said, style="dim")
        room -= max(column.body_cells, MEMBER_CELLS) + GAP
        if room < 0:
            break
        fitting.append(column)
    table = plain_table()
    columns = [*before, *fitting, *after]
    for column in columns:
        least = column.cells - GAP
        if column in fitting:
            least = max(column.body_cells, MEMBER_CELLS)
        elif column in folded:
            least = MEMBER_CELLS
        table.add_column(
            column.name,
            justify=column.justify,
            style=column.style,
            min_width=least,
            overflow="fold",
            no_wrap=column not in fitting and column not in folded,
        )
    for line in zip(*(column.lines for column in columns), strict=True):
        table.add_row(*map(Text, line))
    notes = []
    if (more := len(predictions) - SHOWN_ROWS) > 0:
        notes.append(f"and {more:,} row{'' if more == 1 else 's'} more; --json shows all")
    if (more := len(output.members) - len(fitting)) > 0:
        notes.append(f"and {more} member{'' if more == 1 else 's'} more; a wider terminal or --json shows all")
    if classes and fitting:
        notes.insert(0, "of each member: its probability of the row's answer, or its label")
    return Group(table, *(Text(note, style="dim") for note in notes))


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table of rows."""

    name: str
    lines: Sequence[str]
    justify: Literal["left", "right"] = "right"
    style: str = ""

    @property
    def body_cells(self) -> int:
        """Cells that its lines take."""
        return max(map(cell_len, self.lines), default=0)

    @property
    def cells(self) -> int:
        """Cells that it takes with its name, and with those between it and the next."""
        return max(cell_len(self.name), self.body_cells) + GAP


def _list_cells(
    member: MemberReport, declared: ReleasedMember, release: Release, predictions: Sequence[Prediction]
) -> Mapping[int, str]:
    """Write what a member says of each row that reached its tier."""
    if not isinstance(member.outputs, list) or (member.error is not None and member.status == "failed"):
        return {}
    reached = [row for row, one in enumerate(predictions) if not isinstance(one.tier, int) or one.tier >= declared.tier]
    reached = [row for row in reached if row < SHOWN_ROWS]
    said = list_canonical(member.outputs[: len(reached)], declared.output, release.task)
    return {
        row: _write_entry(one, declared.output, release.task, predictions[row].label)
        for row, one in zip(reached, said, strict=True)
        if one is not None
    }


def _write_entry(entry: Any, contract: Contract, task: Task, answered: Any) -> str:
    if isinstance(task, RegressionTask):
        return f"{float(entry):.6g}"
    names = name_classes(task)
    if isinstance(contract, Label):
        return names[int(entry.argmax())]
    if answered in names:
        return f"{entry[names.index(answered)]:.3f}"
    return f"{names[int(entry.argmax())]} {entry.max():.3f}"  # there is no answer to speak of


def _write(number: Any, form: str) -> str:
    return format(number, form) if isinstance(number, float) else ""


def _shadow_lines(output: Output) -> list[RenderableType]:
    """Say of each shadow how often it would have agreed, and how often counting it would have changed the answer."""
    told = [one.shadows for one in list_rows(output) if isinstance(one.shadows, dict)]
    lines: list[RenderableType] = []
    for id_ in dict.fromkeys(id_ for shadows in told for id_ in shadows):
        reports = [shadows[id_] for shadows in told if id_ in shadows]
        agrees, flips = sum(one.agrees for one in reports), [one.flips for one in reports]
        many, changed = len(reports) > 1, sum(flip is True for flip in flips)
        line = Text("shadow  ", style="bold").append(f"{id_} ", style="cyan")
        line.append(f"agrees in {agrees} of {len(reports)} rows" if many else "agrees" if agrees else "disagrees")
        if None not in flips:
            line.append(
                f", counting it would change {f'{changed} of them' if many else 'it' if changed else 'nothing'}"
            )
        lines.append(line)
    return lines


def _cascade_line(output: Output, release: Release) -> list[RenderableType]:
    """Say which tier decided how many rows, and what was not asked for it."""
    tiers = Counter(one.tier for one in list_rows(output) if isinstance(one.tier, int))
    if not tiers:
        return []
    rows = sum(tiers.values())
    reached = {tier: sum(tiers[later] for later in tiers if later >= tier) for tier in range(1, release.tiers + 1)}
    skipped = sum(member.status == "skipped" for member in output.members)
    unsent = sum(rows - reached[member.tier] for member in release.members)
    line = Text("cascade ", style="bold")
    line.append(", ".join(f"tier {tier} decided {tiers[tier]} of {rows}" for tier in sorted(tiers)))
    total = rows * len(output.members)
    line.append(f"; saved {skipped} of {len(output.members)} calls and {unsent:,} of {total:,} rows to score")
    return [line]


def _status_line(output: Output) -> Text:
    line = Text("status  ", style="bold").append(output.status, style=STATUS_STYLES[output.status])
    if output.needs_review:
        line.append(f"   {output.needs_review} of {len(list_rows(output))} to review", style="yellow")
    if output.rows_failed:
        line.append(f"   {output.rows_failed} of {len(list_rows(output))} without an answer", style="yellow")
    for member in output.members:
        if member.error is not None and member.role == "voter":
            without = "in some rows without" if member.status == "partial" else "without"
            line.append(f"\n        {without} {member.id}: {member.error.message.splitlines()[0]}", style="yellow")
    method, answered = name_method(output.policy.aggregation), output.participation["voter"].responded
    line.append(f"\n        {method} of {answered} voter{'s' if answered != 1 else ''}", style="dim")
    return line.append(f", release {output.release[:SHORT]}, kept as {output.prediction_id}", style="dim")


def _percent(prediction: Prediction) -> str:
    return f"{prediction.agreement:.0%}" if isinstance(prediction.agreement, float) else ""
