"""The arithmetic of what may travel.

Step Functions carries at most 256 KiB from state to state, and a state that exceeds it fails in a way no `Catch` sees
(https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html). So it is decided beforehand, from counts
alone, whether an execution's columns, outputs and predictions travel inline or as pointers into S3.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from stepensemble.core.releases.release import Release
from stepensemble.core.schema.outputs import Label, Output, output_width
from stepensemble.core.schema.policy import Policy
from stepensemble.core.schema.task import Task, name_classes

STATE_BYTES = 256 * 1024
"""Most bytes of UTF-8 JSON in a state's input or output, and in an execution's."""

CAUSE_BYTES = 30_000
"""Most bytes we put into a cause; Step Functions cuts at 32,768 characters."""

ITEM_BYTES = 400 * 1024
"""Most bytes of a DynamoDB item, names included."""

NUMBER_BYTES = 26
"""A float64 in JSON at its longest, -2.2250738585072014e-308, with a separator."""

MEMBER_BYTES = 6 * 1024
"""Reserve a member: its report, an error's cause with its stack trace."""

INPUT_BYTES = 64 * 1024
"""Rows of more bytes are uploaded by our own clients before they start an execution; leaves room for 31 members."""

FRAME_BYTES = 4 * 1024
"""Reserve for everything else: ids, execution names, metadata's frame."""

ASKED_BYTES = 512
"""What is known of a member when it is asked, beside what the release says: its function, and a key for its outputs."""

POINTER_BYTES = 512
"""Reserve for a pointer in the place of rows."""

# Keys, words and punctuation of one prediction; numbers, the label and members' ids count apart.
VALUE_BYTES, VALUE_NUMBERS = 90, 3
"""Every prediction: value, spread, range and decision; tier and the frame of shadows."""

CLASS_BYTES, CLASS_NUMBERS = 150, 6
"""A classification's besides: score, agreement, margin and three entropies; label, tie, the frames of lists."""

SHADOW_BYTES = 40
"""How one shadow would have fared."""


def room_for_input(later_bytes: int, members: int) -> int:
    """Return the most bytes of an execution's input: Aggregate gets it once more, beside the members' results.

    Args:
        later_bytes: of the list of members in later tiers, as JSON; 0 where there are none.
        members: how many are asked; their outputs travel as pointers if need be.
    """
    return STATE_BYTES - FRAME_BYTES - MEMBER_BYTES * members - later_bytes


def travels_inline(
    release: Release,
    policy: Policy,
    *,
    input_bytes: int,
    columns_bytes: int,
    members_bytes: Mapping[int, int],
    rows: int,
) -> bool:
    """Say whether everything an execution carries fits into its states; see `inline_bytes`."""
    heaviest = inline_bytes(
        release,
        policy,
        input_bytes=input_bytes,
        columns_bytes=columns_bytes,
        members_bytes=members_bytes,
        rows=rows,
    )
    return heaviest <= STATE_BYTES


def inline_bytes(
    release: Release,
    policy: Policy,
    *,
    input_bytes: int,
    columns_bytes: int,
    members_bytes: Mapping[int, int],
    rows: int,
) -> int:
    """Return the bytes of an execution's heaviest state at its worst, with everything inline: all rows pass all tiers.

    Args:
        release: whose members are asked.
        policy: as it is in force; the output states it.
        input_bytes: of the execution's input, as JSON.
        columns_bytes: of the normalized columns, as JSON.
        members_bytes: of the list of members to ask, as JSON, by tier.
        rows: how many.
    """
    heaviest = 0
    outputs = 0
    for tier in range(1, release.tiers + 1):
        later = [members_bytes[other] for other in range(tier + 1, release.tiers + 1)]
        ahead = columns_bytes + sum(later) if later else 0
        outputs += rows * sum(entry_bytes(release.task, member.output) for member in release.in_tier(tier))
        heaviest = max(
            heaviest,
            columns_bytes + members_bytes[tier] + ahead + outputs,  # after the fan-out: what went in and what came back
            input_bytes + ahead + outputs,  # into Aggregate, which records the input
        )
    policy_bytes = len(msgspec.json.encode(policy))
    heaviest = max(heaviest, policy_bytes + rows * prediction_bytes(release) + outputs)  # the execution's output
    return FRAME_BYTES + MEMBER_BYTES * len(release.members) + heaviest


def pointer_bytes(release: Release) -> int:
    """Return the bytes of an execution's heaviest state, with rows, outputs and predictions in S3.

    The input has `INPUT_BYTES`, which is what our own clients start executions with.
    """
    members_bytes = asked_bytes(release)
    every = sum(members_bytes.values())
    heaviest = max(
        every,  # out of Normalize
        INPUT_BYTES + every - members_bytes[1],  # into Aggregate, which records the input
        len(msgspec.json.encode(release.policy)),  # the execution's output, which states it
    )
    return FRAME_BYTES + MEMBER_BYTES * len(release.members) + heaviest


def asked_bytes(release: Release) -> dict[int, int]:
    """Return the most bytes that the list of members to ask has, by tier, before anything is placed."""
    return {
        tier: sum(len(msgspec.json.encode(member)) + ASKED_BYTES for member in release.in_tier(tier))
        for tier in range(1, release.tiers + 1)
    }


def entry_bytes(task: Task, output: Output) -> int:
    """Return the most bytes that a member's output has a row; a label may be a class's name."""
    numbers = output_width(task, output) * NUMBER_BYTES
    return max(numbers, _longest_label(task)) if isinstance(output, Label) else numbers


def prediction_bytes(release: Release) -> int:
    """Return the most bytes that a prediction has that no voter is missing in; Aggregate measures the others."""
    shadows = [member for member in release.members if member.role == "shadow"]
    reckoned = VALUE_BYTES + VALUE_NUMBERS * NUMBER_BYTES
    reckoned += sum(SHADOW_BYTES + _name_bytes(shadow.id) for shadow in shadows)
    classes = len(name_classes(release.task))
    if classes:
        pivotal = sum(_name_bytes(voter.id) for voter in release.voters)
        numbers = (CLASS_NUMBERS + classes) * NUMBER_BYTES
        reckoned += CLASS_BYTES + numbers + _longest_label(release.task) + pivotal
    return reckoned


def _longest_label(task: Task) -> int:
    return max((_name_bytes(name) for name in name_classes(task)), default=0)


def _name_bytes(name: str) -> int:
    """Return the bytes of a name in JSON, with a separator."""
    return len(msgspec.json.encode(name)) + 2
