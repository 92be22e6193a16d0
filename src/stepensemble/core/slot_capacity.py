"""What a slot has, in bytes, and an execution, in seconds.

Template and state machine say the same; a test holds that they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stepensemble.core.releases.release import Release, ReleasedMember

MEBIBYTE = 1024 * 1024

RESERVE = 192 * MEBIBYTE
"""Memory left for an invocation's rows, and for what the interpreter allocates as it goes."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one score function has.

    Attributes:
        memory: bytes, in all.
        most: bytes of memory that a parameter of its template can give it.
        disk: bytes in /tmp, into which a SavedModel is unpacked.
        start: seconds until Python and the runtime are imported, in an environment that has just begun (measured; see
            the parts chosen in docs/design.md).
    """

    memory: int
    most: int
    disk: int
    start: float

    @property
    def comfort(self) -> int:
        """Bytes of memory that leave room for an invocation's rows."""
        return self.memory - RESERVE


CAPACITIES: Mapping[str, Capacity] = {
    "litert": Capacity(1024 * MEBIBYTE, 1024 * MEBIBYTE, 512 * MEBIBYTE, 0.25),
    "tensorflow": Capacity(2048 * MEBIBYTE, 10240 * MEBIBYTE, 2048 * MEBIBYTE, 3.5),
}
"""By runtime."""

EXECUTION_SECONDS = 300
"""After which AWS ends an EXPRESS execution; a STANDARD one may take a year
(https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html)."""

NORMALIZE_SECONDS = 30
AGGREGATE_SECONDS = 30
REVIEW_SECONDS = 30
"""What the state machine waits for each of them at most."""

TIMEOUT_ATTEMPTS = 2
"""How often a voter is asked that does not answer in time."""

TIMEOUT_WAIT = 1
"""Seconds before it is asked again, at most."""


def execution_seconds(release: Release) -> int:
    """Return the seconds until an execution answers if nothing answers before its timeout: all tiers are asked.

    Errors that pass are not reckoned with: they come at once, and their retries wait some seconds only. Nor is an
    announcement, which some stacks make: it takes the place of a review, or as long as one at most.
    """
    tiers = sum(tier_seconds(release.in_tier(tier)) for tier in range(1, release.tiers + 1))
    review = REVIEW_SECONDS if release.policy.review is not None else 0
    return NORMALIZE_SECONDS + tiers + release.tiers * AGGREGATE_SECONDS + review


def tier_seconds(members: Iterable[ReleasedMember]) -> int:
    """Return the seconds until nobody waits for a tier's members any more; they are asked all at once."""
    return max(member_seconds(member) for member in members)


def member_seconds(member: ReleasedMember) -> int:
    """Return the seconds until nobody waits for a member any more; a shadow is asked once."""
    if member.role == "shadow":
        return member.timeout
    return TIMEOUT_ATTEMPTS * member.timeout + (TIMEOUT_ATTEMPTS - 1) * TIMEOUT_WAIT
