"""What people see of an execution: the fan-out, the answer, and what to think of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stepensemble.cli.pictures import name_member, plain_table
from stepensemble.cli.terminal import STATUS_STYLES
from stepensemble.core.answer import MemberReport, Output, Prediction
from stepensemble.core.outputs import (
    Label,
    Logit,
    Logits,
    Probabilities,
    Probability,
    find_usable,
    read_entries,
    read_output,
    shape_output,
)
from stepensemble.core.outputs import Output as Contract
from stepensemble.core.policy import name_method
from stepensemble.core.records import Record
from stepensemble.core.releases.release import SHORT, Release
from stepensemble.core.task import BinaryTask, RegressionTask, Task, name_classes

BAR_CELLS = 16
SHOWN_ROWS = 20
VALUE_CELLS = 60
MEMBER_STYLES = {"ok": "green", "partial": "yellow", "failed": "red", "skipped": "dim"}


def draw_fan_out(output: Output, release: Release) -> RenderableType:
    """Draw a line a member, then the answer."""
    parts: list[RenderableType] = [_members_table(output, release), ""]
    predictions = list_rows(output)
    if len(predictions) == 1:
        parts.append(_answer_line(predictions[0], release.task))
    elif predictions:
        parts.append(_predictions_table(output, release))
    parts += _shadow_lines(output)
    parts += _cascade_line(output, release)
    parts.append(_status_line(output))
    return Group(*parts)


def draw_input(record: Record) -> RenderableType:
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
    table.add_column("member", style="bold")
    table.add_column("version")
    table.add_column("output" if len(list_rows(output)) <= 1 else "output, mean of its rows")
    table.add_column("weight", justify="right")
    table.add_column("time", justify="right")
    table.add_column("")
    table.add_column("state")
    contracts = {member.id: member.output for member in release.members}
    for member in output.members:
        table.add_row(
            name_member(member.id, member.role),
            member.version,
            Text(member.error.type, style="red")
            if member.status == "failed" and member.error
            else _said(member, contracts[member.id], release.task),
            f"{member.weight:.2f}",
            "" if member.duration_ms is None else f"{member.duration_ms:.1f} ms",
            "" if member.cold is None else "cold" if member.cold else "warm",
            Text(member.status, style=MEMBER_STYLES[member.status]),
        )
    return table


def _said(member: MemberReport, contract: Contract, task: Task) -> Text:
    """Draw what a member says, in the numbers it says: a bar for a probability; the class where there are several."""
    if not isinstance(member.outputs, list):
        return Text("")
    numbers, _ = read_output(shape_output(read_entries(member.outputs), len(member.outputs)), task, contract)
    outputs = list(compress(member.outputs, find_usable(numbers).tolist()))
    if not outputs:
        return Text("")
    classes = name_classes(task)
    match contract:
        case Label(classes=order):
            (entry, count), *_ = Counter(outputs).most_common(1)
            name = entry if isinstance(entry, str) else (order or classes)[int(entry)]
            return Text(name if len(outputs) == 1 else f"{name} in {count} of {len(outputs)}")
        case Probabilities(classes=order) | Logits(classes=order):
            means = [sum(column) / len(outputs) for column in zip(*outputs, strict=True)]
            best = max(range(len(means)), key=means.__getitem__)
            line = draw_bar(means[best]).append(" ") if isinstance(contract, Probabilities) else Text()
            return line.append(f"{means[best]:.3f} {(order or classes)[best]}")
        case Probability(of=of) | Logit(of=of):
            mean = sum(outputs) / len(outputs)
            line = draw_bar(mean).append(f" {mean:.3f}") if isinstance(contract, Probability) else Text(f"{mean:.3f}")
            return line if of in {None, classes[1]} else line.append(f" {of}")
        case _:
            return Text(f"{sum(outputs) / len(outputs):g}")


def _is_void(entry: Any) -> bool:
    return entry is None or (isinstance(entry, list) and None in entry)


def draw_bar(share: float) -> Text:
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


def _predictions_table(output: Output, release: Release) -> RenderableType:
    predictions = list_rows(output)
    table = plain_table()
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
    table.add_column("", style="yellow")
    entries = {member.id: _place_entries(member, release, predictions) for member in output.members}
    for row, prediction in enumerate(predictions[:SHOWN_ROWS]):
        cells = [str(row)]
        cells += [prediction.label if isinstance(prediction.label, str) else "none"] if classes else []
        cells.append("" if prediction.value is None else f"{prediction.value:.3f}")
        cells += [_entry_cell(entries[member.id].get(row)) for member in output.members]
        cells += [_percent(prediction)] if classes else []
        spread = "" if prediction.spread is None else f"{prediction.spread:.3f}"
        table.add_row(*cells, spread, _remarks(prediction).removeprefix("needs "))
    rest = len(predictions) - SHOWN_ROWS
    return Group(table, Text(f"and {rest:,} rows more; --json shows all", style="dim")) if rest > 0 else table


def _place_entries(member: MemberReport, release: Release, predictions: Sequence[Prediction]) -> Mapping[int, Any]:
    """Return a member's outputs by row: those that reached its tier."""
    if not isinstance(member.outputs, list) or member.status == "failed":
        return {}
    (tier,) = (one.tier for one in release.members if one.id == member.id)
    reached = [row for row, one in enumerate(predictions) if not isinstance(one.tier, int) or one.tier >= tier]
    return dict(zip(reached, member.outputs, strict=True))


def _entry_cell(entry: Any) -> str:
    if isinstance(entry, str):
        return entry
    if _is_void(entry):
        return "–"
    return f"{max(entry):.3f}" if isinstance(entry, list) else f"{entry:.3f}"


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
    if output.unanswered:
        line.append(f"   {output.unanswered} of {len(list_rows(output))} without an answer", style="yellow")
    for member in output.members:
        if member.error is not None and member.role == "voter":
            without = "in some rows without" if member.status == "partial" else "without"
            line.append(f"\n        {without} {member.id}: {member.error.message.splitlines()[0]}", style="yellow")
    method, answered = name_method(output.policy.aggregation), output.attendance["voter"].answered
    line.append(f"\n        {method} of {answered} voter{'s' if answered != 1 else ''}", style="dim")
    return line.append(f", release {output.release[:SHORT]}, kept as {output.prediction_id}", style="dim")


def _percent(prediction: Prediction) -> str:
    return f"{prediction.agreement:.0%}" if isinstance(prediction.agreement, float) else ""
