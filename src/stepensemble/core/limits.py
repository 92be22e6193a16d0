"""The arithmetic of what may travel.

Step Functions carries at most 256 KiB from state to state, and a state that exceeds it fails in a way no `Catch` sees
(https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html). So it is decided beforehand, from counts
alone, whether an execution's columns, outputs and predictions travel inline or as pointers into S3.
"""

from __future__ import annotations

import msgspec

STATE_BYTES = 256 * 1024
"""Most bytes of UTF-8 JSON in a state's input or output, and in an execution's."""

CAUSE_BYTES = 30_000
"""Most bytes we put into a cause; Step Functions cuts at 32,768 characters."""

ITEM_BYTES = 400 * 1024
"""Most bytes of a DynamoDB item, names included."""

NUMBER_BYTES = 26
"""A float64 in JSON at its longest, -2.2250738585072014e-308, with a separator."""

PREDICTION_BYTES = 160
"""Keys, punctuation and label of one prediction without its numbers (labels count apart)."""

PREDICTION_NUMBERS = 4
"""value, spread, score and agreement."""

MEMBER_BYTES = 6 * 1024
"""Reserve a member: its report, an error's cause with its stack trace."""

INPUT_BYTES = 64 * 1024
"""Rows of more bytes are uploaded by our own clients before they start an execution; leaves room for 31 members."""

FRAME_BYTES = 4 * 1024
"""Reserve for everything else: ids, execution names, metadata's frame."""


def leaves_room(input_bytes: int, members: int) -> bool:
    """Say whether an execution's input, which Aggregate gets once more to record it, fits beside the members' results.

    Args:
        input_bytes: of the execution's input, as JSON.
        members: how many are asked; their outputs travel as pointers if need be.
    """
    return FRAME_BYTES + MEMBER_BYTES * members + input_bytes <= STATE_BYTES


def travels_inline(
    *,
    input_bytes: int,
    columns_bytes: int,
    members_bytes: int,
    rows: int,
    output_widths: list[int],
    classes: tuple[str, ...],
) -> bool:
    """Say whether everything an execution carries fits into its states at their worst.

    Args:
        input_bytes: of the execution's input, as JSON.
        columns_bytes: of the normalized columns, as JSON.
        members_bytes: of the list of members to ask, as JSON.
        rows: how many.
        output_widths: numbers a row, one entry a member.
        classes: the task's; empty for a regression.
    """
    reserve = FRAME_BYTES + MEMBER_BYTES * len(output_widths)
    outputs = rows * sum(output_widths) * NUMBER_BYTES
    longest_label = max((len(msgspec.json.encode(name)) for name in classes), default=0)
    prediction = PREDICTION_BYTES + longest_label + (PREDICTION_NUMBERS + len(classes)) * NUMBER_BYTES
    heaviest = max(
        columns_bytes + members_bytes + outputs,  # after the fan-out: what went in and what came back
        input_bytes + outputs,  # into Aggregate, which records the input
        rows * prediction + outputs,  # the execution's output
    )
    return reserve + heaviest <= STATE_BYTES
