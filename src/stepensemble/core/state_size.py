"""Computes whether an execution's data fits into Step Functions' states.

Step Functions carries at most 256 KiB from state to state, and a larger state fails in a way that no `Catch` handles
(https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html). So Normalize decides beforehand, from counts
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
"""Most bytes of UTF-8 JSON in the input or output of a state or an execution."""

CAUSE_BYTES = 30_000
"""Most bytes that we write into a cause; Step Functions truncates it at 32,768 characters."""

ITEM_BYTES = 400 * 1024
"""Most bytes of a DynamoDB item, names included."""

NUMBER_BYTES = 26
"""The longest float64 in JSON, -2.2250738585072014e-308, with a separator."""

MEMBER_BYTES = 6 * 1024
"""Reserved for each member: its report, an error's cause with its stack trace."""

INPUT_BYTES = 64 * 1024
"""Our own clients upload rows of more bytes before they start an execution; this leaves room for 31 members."""

FRAME_BYTES = 4 * 1024
"""Reserved for everything else: ids, execution names, the keys around metadata."""

INVOKED_BYTES = 512
"""What a state has of a member in addition to the release: its function, and a key for its outputs."""

POINTER_BYTES = 512
"""Reserved for a pointer that replaces rows."""

# Keys, words and punctuation of one prediction; numbers, the label and members' ids are counted separately.
VALUE_BYTES, VALUE_NUMBERS = 90, 3
"""Every prediction: value, spread, range and decision; tier and the keys around shadows."""

CLASS_BYTES, CLASS_NUMBERS = 150, 6
"""A classification also has: score, agreement, margin and three entropies; label, tie, the brackets of lists."""

SHADOW_BYTES = 40
"""How one shadow compares."""


def room_for_input(later_bytes: int, members: int) -> int:
    """Return the most bytes of an execution's input, which Aggregate gets together with the members' results.

    Args:
        later_bytes: of the list of members in later tiers, as JSON; 0 where there are none.
        members: how many are invoked; their outputs travel as pointers if necessary.
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
    """Return whether everything that an execution carries fits into its states; see `inline_bytes`."""
    largest = inline_bytes(
        release,
        policy,
        input_bytes=input_bytes,
        columns_bytes=columns_bytes,
        members_bytes=members_bytes,
        rows=rows,
    )
    return largest <= STATE_BYTES


def inline_bytes(
    release: Release,
    policy: Policy,
    *,
    input_bytes: int,
    columns_bytes: int,
    members_bytes: Mapping[int, int],
    rows: int,
) -> int:
    """Return the most bytes of an execution's largest state, with everything inline and all rows in all tiers.

    Args:
        release: whose members are invoked.
        policy: that is applied; the output states it.
        input_bytes: of the execution's input, as JSON.
        columns_bytes: of the normalized columns, as JSON.
        members_bytes: of the list of members to invoke, as JSON, by tier.
        rows: how many.
    """
    largest = 0
    outputs = 0
    for tier in range(1, release.tiers + 1):
        later = [members_bytes[other] for other in range(tier + 1, release.tiers + 1)]
        ahead = columns_bytes + sum(later) if later else 0
        outputs += rows * sum(entry_bytes(release.task, member.output) for member in release.in_tier(tier))
        largest = max(
            largest,
            columns_bytes + members_bytes[tier] + ahead + outputs,  # after the fan-out: its input and the results
            input_bytes + ahead + outputs,  # into Aggregate, which records the input
        )
    policy_bytes = len(msgspec.json.encode(policy))
    largest = max(largest, policy_bytes + rows * prediction_bytes(release) + outputs)  # the execution's output
    return FRAME_BYTES + MEMBER_BYTES * len(release.members) + largest


def pointer_bytes(release: Release) -> int:
    """Return the bytes of an execution's largest state, with rows, outputs and predictions in S3.

    The input has `INPUT_BYTES`, the most that our own clients send.
    """
    members_bytes = invoked_bytes(release)
    every = sum(members_bytes.values())
    largest = max(
        every,  # out of Normalize
        INPUT_BYTES + every - members_bytes[1],  # into Aggregate, which records the input
        len(msgspec.json.encode(release.policy)),  # the execution's output, which states it
    )
    return FRAME_BYTES + MEMBER_BYTES * len(release.members) + largest


def invoked_bytes(release: Release) -> dict[int, int]:
    """Return the most bytes of the list of members to invoke, by tier, before the members have slots."""
    return {
        tier: sum(len(msgspec.json.encode(member)) + INVOKED_BYTES for member in release.in_tier(tier))
        for tier in range(1, release.tiers + 1)
    }


def entry_bytes(task: Task, output: Output) -> int:
    """Return the most bytes of a member's output for one row; a label may be a class's name."""
    numbers = output_width(task, output) * NUMBER_BYTES
    return max(numbers, _longest_label(task)) if isinstance(output, Label) else numbers


def prediction_bytes(release: Release) -> int:
    """Return the most bytes of a prediction without missing voters; Aggregate measures the others."""
    shadows = [member for member in release.members if member.role == "shadow"]
    counted = VALUE_BYTES + VALUE_NUMBERS * NUMBER_BYTES
    counted += sum(SHADOW_BYTES + _name_bytes(shadow.id) for shadow in shadows)
    classes = len(name_classes(release.task))
    if classes:
        pivotal = sum(_name_bytes(voter.id) for voter in release.voters)
        numbers = (CLASS_NUMBERS + classes) * NUMBER_BYTES
        counted += CLASS_BYTES + numbers + _longest_label(release.task) + pivotal
    return counted


def _longest_label(task: Task) -> int:
    return max((_name_bytes(name) for name in name_classes(task)), default=0)


def _name_bytes(name: str) -> int:
    """Return the bytes of a name in JSON, with a separator."""
    return len(msgspec.json.encode(name)) + 2
