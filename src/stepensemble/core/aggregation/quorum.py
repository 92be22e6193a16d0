"""Whether what must have answered has."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from stepensemble.core.schema.manifest import EnsembleMember
from stepensemble.core.schema.policy import WEIGHTED_METHODS, Policy, Quorum, Stacking, name_method

Status = Literal["COMPLETE", "DEGRADED", "FAILED"]


def quorum_status(policy: Policy, asked: Sequence[EnsembleMember], answered: Collection[str]) -> Status:
    """Judge an execution.

    Args:
        policy: whose quorum and method say what must have answered.
        asked: the voters that were asked.
        answered: ids of those that gave a valid output.

    Returns:
        COMPLETE: all of them answered. DEGRADED: some did not, and the quorum holds. FAILED: it does not.
    """
    if find_shortfalls(policy, asked, answered):
        return "FAILED"
    return "COMPLETE" if all(voter.id in answered for voter in asked) else "DEGRADED"


def find_shortfalls(policy: Policy, asked: Sequence[EnsembleMember], answered: Collection[str]) -> list[str]:
    """List what the quorum misses, in words; nothing where it holds."""
    present = [voter for voter in asked if voter.id in answered]
    least = least_members(policy.quorum, len(asked))
    if not present:
        return [f"the quorum is {least}"]
    found: list[str] = []
    if len(present) < least:
        found.append(f"the quorum is {least}")
    share = weight_share(asked, answered)
    if policy.quorum.min_weight is not None and share < policy.quorum.min_weight - 1e-12:
        found.append(f"their share of the weight is {share:.3g}, below {policy.quorum.min_weight:g}")
    absent = [voter.id for voter in asked if voter.id in policy.quorum.required and voter.id not in answered]
    if absent:
        found.append(f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} required")
    if (
        isinstance(policy.aggregation, Stacking)
        and policy.aggregation.missing == "refuse"
        and len(present) < len(asked)
    ):
        found.append("the stack refuses to go on without one")
    if name_method(policy.aggregation) in WEIGHTED_METHODS and not any(voter.weight > 0 for voter in present):
        found.append("none of them has a weight above 0")
    return found


def least_members(quorum: Quorum, asked: int) -> int:
    """Return how many voters must answer: as declared, else more than half of those asked."""
    return quorum.min_members or asked // 2 + 1


def weight_share(asked: Sequence[EnsembleMember], answered: Collection[str]) -> float:
    """Return the share of the weight of those asked that answered, 0 to 1; by heads where all weigh nothing."""
    total = sum(voter.weight for voter in asked)
    if total == 0:
        return sum(voter.id in answered for voter in asked) / max(len(asked), 1)
    return sum(voter.weight for voter in asked if voter.id in answered) / total


def explain_failure(policy: Policy, asked: Sequence[EnsembleMember], answered: Collection[str]) -> str:
    """Say in a sentence why there is no quorum."""
    missing = [voter.id for voter in asked if voter.id not in answered]
    count = len(asked) - len(missing)
    why = "; ".join(find_shortfalls(policy, asked, answered))
    return f"{count} of {len(asked)} voters answered, and {why}; missing: {', '.join(missing)}"
