"""What travels between Normalize, the score functions and Aggregate: one tier's question, and what came back.

Without a cascade there is one tier. With one, Aggregate asks the next tier about the rows that are undecided, in the
words in which Normalize asks the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from stepensemble.core.preprocessing.precision import list_narrow_inputs
from stepensemble.core.releases.release import Artifact, Release

DESCRIBE = "describe"
"""The key of an event that a slot answers with what a model takes and gives."""


class MemberToScore(Struct, frozen=True, omit_defaults=True):
    """The part of a member that its slot needs.

    Attributes:
        output: name of the output that is wanted, of a model that has several.
        outputs_key: where outputs go that are too large to travel.
        trusted: as a release has it; left out where it is false.
        narrow: the inputs that a model of float64 may not have, as `list_narrow_inputs` returns them.
    """

    id: str
    runtime: str
    artifact: Artifact
    inputs: Mapping[str, tuple[str, ...]]
    signature: str | None
    output: str | None
    outputs_key: str | None
    trusted: bool = False
    narrow: Mapping[str, str] = {}


class MemberToInvoke(MemberToScore, frozen=True, kw_only=True):
    """A member as the state machine carries it: `function` serves it, `timeout` is in seconds."""

    tier: int
    role: Literal["voter", "shadow"]
    function: str
    timeout: int


class TierResults(Struct, frozen=True):
    """What came back from a tier, an entry a member: its outputs, or the error that was caught."""

    voters: tuple[Mapping[str, Any], ...]
    shadows: tuple[Mapping[str, Any], ...] = ()

    @property
    def all(self) -> tuple[Mapping[str, Any], ...]:
        """Those of voters and shadows."""
        return self.voters + self.shadows


class TierRequest(Struct, frozen=True):
    """A tier that was asked, about how many rows, and what came back."""

    rows: int
    results: TierResults


class Cascade(Struct, frozen=True):
    """What the tiers after the present one need: the columns of all rows, inline or as a pointer, and the members."""

    columns: Mapping[str, Any]
    later: tuple[MemberToInvoke, ...]


class Frame(Struct, frozen=True):
    """What stays the same from tier to tier; `inline` where outputs and predictions travel themselves."""

    prediction_id: str
    release: str
    inline: bool


def list_members(release: Release, slots: Mapping[str, str], function_prefix: str) -> list[MemberToInvoke]:
    """Return a release's members as the state machine carries them.

    Args:
        release: the one that answers.
        slots: its placement.
        function_prefix: the name of every score function without its slot.
    """
    return [
        MemberToInvoke(
            id=member.id,
            runtime=member.runtime,
            artifact=member.artifact,
            inputs=member.inputs,
            signature=member.signature,
            output=member.output.name,
            outputs_key=None,
            tier=member.tier,
            role=member.role,
            function=f"{function_prefix}{slots[member.id]}",
            timeout=member.timeout,
            trusted=member.trusted,
            narrow=list_narrow_inputs(member.inputs, release.features),
        )
        for member in release.members
    ]


def prepare_tier(
    frame: Frame,
    tier: int,
    members: Iterable[MemberToInvoke],
    *,
    rows: int,
    columns: Mapping[str, Any],
    all_columns: Mapping[str, Any],
    earlier: Sequence[TierRequest] = (),
) -> dict[str, Any]:
    """Return the state from which the state machine asks a tier.

    Args:
        frame: of the execution.
        tier: which is asked.
        members: of this tier and those after it.
        rows: how many reach this tier.
        columns: of these rows, inline or as a pointer.
        all_columns: of all rows, likewise.
        earlier: the tiers before, in order.
    """
    asked = [member for member in members if member.tier == tier]
    later = tuple(member for member in members if member.tier > tier)
    shadows = [member for member in asked if member.role == "shadow"]
    state = {
        "prediction_id": frame.prediction_id,
        "release": frame.release,
        "inline": frame.inline,
        "rows": rows,
        "columns": columns,
        "members": [member for member in asked if member.role == "voter"],
        "earlier": earlier,
        "cascade": Cascade(all_columns, later) if later else None,
    }
    if shadows:  # by which the state machine knows them
        state["shadows"] = shadows
    return dict(msgspec.to_builtins(state))


class Execution(Struct, frozen=True):
    """The execution, as the state machine's context names it."""

    id: str
    name: str
    started_at: str
