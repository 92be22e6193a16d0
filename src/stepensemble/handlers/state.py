"""What travels between Normalize, the score functions and Aggregate: one tier's columns and members, and their results.

Without a cascade there is one tier. With one, Aggregate sends the undecided rows to the next tier, in the form in which
Normalize sends all rows to the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Struct

from stepensemble.core.preprocessing.precision import list_narrow_inputs
from stepensemble.core.releases.release import Artifact, Release

DESCRIBE = "describe"
"""The key of an event to which a slot responds with the signature of a model."""


class MemberToScore(Struct, frozen=True, omit_defaults=True):
    """The part of a member that its slot needs.

    Attributes:
        output: name of the output to use, of a model that has several.
        outputs_key: where to store outputs that are too large to travel.
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
    """A member as the state machine carries it: `function` is its slot's name, `timeout` is in seconds."""

    tier: int
    role: Literal["voter", "shadow"]
    function: str
    timeout: int


class TierResults(Struct, frozen=True):
    """The results of a tier, an entry a member: its outputs, or the error that was caught."""

    voters: tuple[Mapping[str, Any], ...]
    shadows: tuple[Mapping[str, Any], ...] = ()

    @property
    def all(self) -> tuple[Mapping[str, Any], ...]:
        """The results of voters and shadows."""
        return self.voters + self.shadows


class TierRequest(Struct, frozen=True):
    """A tier whose members were invoked, with the number of rows and the results."""

    rows: int
    results: TierResults


class Cascade(Struct, frozen=True):
    """What later tiers need: the columns of all rows, inline or as a pointer, and the members."""

    columns: Mapping[str, Any]
    later: tuple[MemberToInvoke, ...]


class Frame(Struct, frozen=True):
    """What stays the same from tier to tier; `inline`: outputs and predictions travel in the state, not as pointers."""

    prediction_id: str
    release: str
    inline: bool


def list_members(release: Release, slots: Mapping[str, str], function_prefix: str) -> list[MemberToInvoke]:
    """Return a release's members as the state machine carries them.

    Args:
        release: the one that predicts.
        slots: each member's slot, by its id.
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


class TierColumns(NamedTuple):
    """The rows that reach a tier; columns are inline or a pointer.

    Attributes:
        rows: how many there are.
        columns: of these rows.
        all_columns: of all rows of the execution.
    """

    rows: int
    columns: Mapping[str, Any]
    all_columns: Mapping[str, Any]


def prepare_tier(
    frame: Frame,
    tier: int,
    members: Sequence[MemberToInvoke],
    reaching: TierColumns,
    earlier: Sequence[TierRequest] = (),
) -> dict[str, Any]:
    """Return the state from which the state machine invokes a tier's members.

    Args:
        frame: of the execution.
        tier: the tier to invoke.
        members: of this tier and those after it.
        reaching: the rows that reach this tier.
        earlier: the tiers before, in order.
    """
    invoked = [member for member in members if member.tier == tier]
    later = tuple(member for member in members if member.tier > tier)
    shadows = [member for member in invoked if member.role == "shadow"]
    state = {
        "prediction_id": frame.prediction_id,
        "release": frame.release,
        "inline": frame.inline,
        "rows": reaching.rows,
        "columns": reaching.columns,
        "members": [member for member in invoked if member.role == "voter"],
        "earlier": earlier,
        "cascade": Cascade(reaching.all_columns, later) if later else None,
    }
    if shadows:  # the state machine tests whether this key is present
        state["shadows"] = shadows
    return dict(msgspec.to_builtins(state))


class Execution(Struct, frozen=True):
    """The execution, as the state machine's context object names it."""

    id: str
    name: str
    started_at: str
