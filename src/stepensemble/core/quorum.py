"""Whether enough voters answered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from stepensemble.core.release import ReleasedMember

Status = Literal["COMPLETE", "DEGRADED", "FAILED"]


def judge(voters: Sequence[ReleasedMember], answered: Collection[str], min_members: int) -> Status:
    """Judge an execution.

    Args:
        voters: every member that counts.
        answered: ids of those that gave a valid output.
        min_members: fewest that must have.

    Returns:
        COMPLETE: all answered. DEGRADED: some did not, and the quorum holds. FAILED: it does not, or those that
        answered have no weight.
    """
    present = [member for member in voters if member.id in answered]
    if len(present) < min_members or not any(member.weight > 0 for member in present):
        return "FAILED"
    return "COMPLETE" if len(present) == len(voters) else "DEGRADED"


def explain_failure(voters: Sequence[ReleasedMember], answered: Collection[str], min_members: int) -> str:
    """Say in a sentence why there is no quorum."""
    missing = [member.id for member in voters if member.id not in answered]
    count = len(voters) - len(missing)
    why = f"the quorum is {min_members}" if count < min_members else "none of them has a weight above 0"
    return f"{count} of {len(voters)} voters answered, and {why}; missing: {', '.join(missing)}"
