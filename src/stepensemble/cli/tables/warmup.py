"""The table of a warm-up."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stepensemble.cli.tables.batch import format_seconds
from stepensemble.cli.tables.common import make_table, name_member
from stepensemble.cli.warmup import WarmUpComparison
from stepensemble.core.releases.release import SHORT
from stepensemble.handlers.prediction.warmup import WarmedMember


def render_warmup(warmups: WarmUpComparison) -> RenderableType:
    """Render one line per member with the times of both warm-ups, then a summary."""
    return Group(_render_members(warmups), "", *_summarize(warmups))


def _render_members(warmups: WarmUpComparison) -> Table:
    table = make_table()
    for name in ("member", "version", "slot", "model", "first", "second"):
        table.add_column(name, justify="right" if name in {"first", "second"} else "left")
    canary, listed = warmups.second.warm_up.canary, ""
    for member in warmups.first.warm_up.members:
        name = name_member(member.id, member.role)
        table.add_row(
            f"{name} (canary)" if member.release == canary else name,
            member.version,
            member.function.removeprefix(warmups.prefix),
            _name_load_state(member),
            # A slot has several members and one time.
            *([""] * 2 if member.function == listed else _list_times(warmups, member.function)),
        )
        listed = member.function
    table.add_row()
    table.add_row("Normalize", "", "", "", *_list_times(warmups, warmups.normalize))
    table.add_row("Aggregate", "", "", "", *_list_times(warmups, warmups.aggregate))
    totals = [format_seconds(one.total / 1000) for one in (warmups.first, warmups.second)]
    table.add_row("whole execution", "", "", "", *totals)
    return table


def _name_load_state(member: WarmedMember) -> Text:
    if member.error is not None:
        return Text(member.error.type, style="red")
    return Text("loaded") if member.cold else Text("already loaded", style="dim")


def _list_times(warmups: WarmUpComparison, function: str) -> list[str]:
    times = [one.round_trips.get(function) for one in (warmups.first, warmups.second)]
    return ["" if time is None else format_seconds(time / 1000) for time in times]


def _summarize(warmups: WarmUpComparison) -> Iterator[RenderableType]:
    """List how many models were loaded, which were loaded twice, and which could not be loaded."""
    first, second = warmups.first.warm_up, warmups.second.warm_up
    members, loaded = len(first.members), sum(member.cold is True for member in first.members)
    if loaded == members:
        message = f"{loaded} of {members} models were loaded and are warm now"
    elif all(member.cold is False for member in first.members):
        message = "no model had to be loaded, so both columns show warm slots"
    else:
        message = f"{loaded} of {members} models were loaded"
    canary = "" if second.canary is None else f", canary {second.canary[:SHORT]}"
    style = "bold red" if warmups.failed else "bold green"
    yield Text.assemble(Text("warm  ", style=style), f"{message}; release {second.release[:SHORT]}{canary}")
    for member in second.members:
        if member.error is not None:
            yield Text(f"      {member.id} failed: {member.error.message.splitlines()[0]}", style="red")
        elif member.cold:
            reason = "another execution environment was used, or the slot cannot hold all of its models"
            yield Text(f"      {member.id} was loaded again: {reason}", style="yellow")
