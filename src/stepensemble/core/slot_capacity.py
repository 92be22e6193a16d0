"""The capacity of a slot in bytes, and of an execution in seconds.

The template and the state machine state the same numbers; a test holds them equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stepensemble.core.releases.release import Release, ReleasedMember

MEBIBYTE = 1024 * 1024

RESERVE = 192 * MEBIBYTE
"""Bytes of memory reserved for an invocation's rows, and for what the interpreter allocates while it runs."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """The resources of one score function.

    Attributes:
        memory: bytes, in total.
        most: the most bytes of memory that the template's parameter allows.
        disk: bytes in /tmp, where a SavedModel is unpacked.
        start: seconds to import Python and the runtime in a new environment (measured; see the parts chosen in
            docs/design.md).
    """

    memory: int
    most: int
    disk: int
    start: float

    @property
    def comfort(self) -> int:
        """Bytes of memory without the reserve for an invocation's rows."""
        return self.memory - RESERVE


CAPACITIES: Mapping[str, Capacity] = {
    "litert": Capacity(1024 * MEBIBYTE, 1024 * MEBIBYTE, 512 * MEBIBYTE, 0.25),
    "tensorflow": Capacity(2048 * MEBIBYTE, 10240 * MEBIBYTE, 2048 * MEBIBYTE, 3.5),
}
"""By runtime."""

EXECUTION_SECONDS = 300
"""Seconds after which AWS ends an EXPRESS execution; a STANDARD one may take a year
(https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html)."""

NORMALIZE_SECONDS = 30
AGGREGATE_SECONDS = 30
REVIEW_SECONDS = 30
"""The most seconds that the state machine waits for each of them."""

TIMEOUT_ATTEMPTS = 2
"""How often a voter is invoked that does not respond in time."""

TIMEOUT_WAIT = 1
"""The most seconds before it is invoked again."""


def execution_seconds(release: Release) -> int:
    """Return the seconds until an execution ends if everything takes until its timeout and all tiers are invoked.

    Transient errors are not included: they occur at once, and their retries wait only some seconds. Nor is the event
    that some stacks send for a prediction: it replaces the event for a review, or takes at most as long.
    """
    tiers = sum(tier_seconds(release.in_tier(tier)) for tier in range(1, release.tiers + 1))
    review = REVIEW_SECONDS if release.policy.review is not None else 0
    return NORMALIZE_SECONDS + tiers + release.tiers * AGGREGATE_SECONDS + review


def tier_seconds(members: Iterable[ReleasedMember]) -> int:
    """Return the most seconds that a tier takes; its members are invoked at the same time."""
    return max(member_seconds(member) for member in members)


def member_seconds(member: ReleasedMember) -> int:
    """Return the most seconds that a member takes; a shadow is invoked once."""
    if member.role == "shadow":
        return member.timeout
    return TIMEOUT_ATTEMPTS * member.timeout + (TIMEOUT_ATTEMPTS - 1) * TIMEOUT_WAIT
