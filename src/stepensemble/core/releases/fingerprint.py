"""A release's fingerprint: its members' outputs for the golden rows, stored when it was published.

`ensemble verify` compares a stack's outputs with it. It is not part of the release, because the last bits of a float
depend on the processor, and a release has the same digest everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct


class MemberFingerprint(Struct, frozen=True):
    """One member's outputs.

    Attributes:
        runtime: the one that executed it.
        outputs: raw, one entry for each row: a number, a name, or a list of numbers.
    """

    runtime: str
    outputs: Sequence[Any]


class Fingerprint(Struct, frozen=True):
    """All members' outputs.

    Attributes:
        release: its digest.
        taken_at: ISO 8601 in UTC.
        instances: the golden rows, as in a payload.
        members: by id.
    """

    release: str
    taken_at: str
    instances: Sequence[Mapping[str, Any]]
    members: Mapping[str, MemberFingerprint]
