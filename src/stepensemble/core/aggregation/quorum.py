"""Checks whether enough voters have responded, and the required ones among them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from stepensemble.core.schema.manifest import EnsembleMember
from stepensemble.core.schema.policy import WEIGHTED_METHODS, Policy, Quorum, Stacking, name_method

Status = Literal["COMPLETE", "DEGRADED", "FAILED"]


def quorum_status(policy: Policy, invoked: Sequence[EnsembleMember], responded: Collection[str]) -> Status:
    """Return an execution's status by its quorum.

    Args:
        policy: whose quorum and method define which voters must respond.
        invoked: the voters that were invoked.
        responded: ids of those that gave a valid output.

    Returns:
        COMPLETE: all of them responded. DEGRADED: some did not, and the quorum holds. FAILED: it does not.
    """
    if find_shortfalls(policy, invoked, responded):
        return "FAILED"
    return "COMPLETE" if all(voter.id in responded for voter in invoked) else "DEGRADED"


def find_shortfalls(policy: Policy, invoked: Sequence[EnsembleMember], responded: Collection[str]) -> list[str]:
    """List in words what the quorum is missing; nothing where it holds."""
    present = [voter for voter in invoked if voter.id in responded]
    least = least_members(policy.quorum, len(invoked))
    if not present:
        return [f"the quorum is {least}"]
    found: list[str] = []
    if len(present) < least:
        found.append(f"the quorum is {least}")
    share = weight_share(invoked, responded)
    if policy.quorum.min_weight is not None and share < policy.quorum.min_weight - 1e-12:
        found.append(f"their share of the weight is {share:.3g}, below {policy.quorum.min_weight:g}")
    absent = [voter.id for voter in invoked if voter.id in policy.quorum.required and voter.id not in responded]
    if absent:
        found.append(f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} required")
    found += _find_method_shortfalls(policy, len(invoked), present)
    return found


def _find_method_shortfalls(policy: Policy, invoked: int, present: Sequence[EnsembleMember]) -> list[str]:
    """List what the method is missing with the voters that are present."""
    method = policy.aggregation
    found: list[str] = []
    if isinstance(method, Stacking) and method.missing == "refuse" and len(present) < invoked:
        found.append("the stack needs every voter")
    if name_method(method) in WEIGHTED_METHODS and not any(voter.weight > 0 for voter in present):
        found.append("none of them has a weight above 0")
    return found


def least_members(quorum: Quorum, invoked: int) -> int:
    """Return how many voters must respond: as declared, else more than half of the invoked ones."""
    return quorum.min_members or invoked // 2 + 1


def weight_share(invoked: Sequence[EnsembleMember], responded: Collection[str]) -> float:
    """Return the responding members' share of the invoked members' weight, 0 to 1; of their number if all weigh 0."""
    total = sum(voter.weight for voter in invoked)
    if total == 0:
        return sum(voter.id in responded for voter in invoked) / max(len(invoked), 1)
    return sum(voter.weight for voter in invoked if voter.id in responded) / total


def explain_failure(policy: Policy, invoked: Sequence[EnsembleMember], responded: Collection[str]) -> str:
    """Return a sentence with the reason why there is no quorum."""
    missing = [voter.id for voter in invoked if voter.id not in responded]
    count = len(invoked) - len(missing)
    why = "; ".join(find_shortfalls(policy, invoked, responded))
    return f"{count} of {len(invoked)} voters responded, and {why}; missing: {', '.join(missing)}"
