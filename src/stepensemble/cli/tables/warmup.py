"""What people see of a warm-up."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stepensemble.cli.tables.batch import say_seconds
from stepensemble.cli.tables.common import name_member, plain_table
from stepensemble.cli.warmup import Warmed
from stepensemble.core.releases.release import SHORT
from stepensemble.handlers.prediction.warmup import WarmedMember


def draw_warmed(warmed: Warmed) -> RenderableType:
    """Draw a line a member with the times of both warm-ups, then what they come to."""
    return Group(_draw_members(warmed), "", *_tell(warmed))


def _draw_members(warmed: Warmed) -> Table:
    table = plain_table()
    for name in ("member", "version", "slot", "model", "first", "again"):
        table.add_column(name, justify="right" if name in {"first", "again"} else "left")
    canary, shown = warmed.again.warm_up.canary, ""
    for member in warmed.first.warm_up.members:
        name = name_member(member.id, member.role)
        table.add_row(
            f"{name} (canary)" if member.release == canary else name,
            member.version,
            member.function.removeprefix(warmed.prefix),
            _say_what(member),
            *([""] * 2 if member.function == shown else _times(warmed, member.function)),  # once a slot
        )
        shown = member.function
    table.add_row()
    table.add_row("Normalize", "", "", "", *_times(warmed, warmed.normalize))
    table.add_row("Aggregate", "", "", "", *_times(warmed, warmed.aggregate))
    whole = [say_seconds(one.total / 1000) for one in (warmed.first, warmed.again)]
    table.add_row("the execution", "", "", "", *whole)
    return table


def _say_what(member: WarmedMember) -> Text:
    if member.error is not None:
        return Text(member.error.type, style="red")
    return Text("loaded") if member.cold else Text("already there", style="dim")


def _times(warmed: Warmed, function: str) -> list[str]:
    trips = [one.trips.get(function) for one in (warmed.first, warmed.again)]
    return ["" if trip is None else say_seconds(trip / 1000) for trip in trips]


def _tell(warmed: Warmed) -> Iterator[RenderableType]:
    """Say what had to be loaded, what was loaded twice, and what could not be."""
    first, again = warmed.first.warm_up, warmed.again.warm_up
    members, loaded = len(first.members), sum(member.cold is True for member in first.members)
    if loaded == members:
        words = f"{members} models were loaded, and are there now"
    elif all(member.cold is False for member in first.members):
        words = "no model had to be loaded, so both columns are of warm slots"
    else:
        words = f"{loaded} of {members} models were loaded"
    canary = "" if again.canary is None else f", canary {again.canary[:SHORT]}"
    style = "bold red" if warmed.failed else "bold green"
    found = Text("warm  ", style=style)
    yield Text.assemble(found, f"{words}; release {again.release[:SHORT]}{canary}")
    for member in again.members:
        if member.error is not None:
            yield Text(f"      without {member.id}: {member.error.message.splitlines()[0]}", style="red")
        elif member.cold:
            why = "another environment answered, or the slot cannot hold all of its models"
            yield Text(f"      {member.id} was loaded again: {why}", style="yellow")
