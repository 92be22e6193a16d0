"""A release's fingerprint: what its members said of the golden rows when it was published.

It tells later whether a stack answers as the publisher's machine did. It is no part of the release: the last bits of a
float depend on the processor, and a release has one name everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct


class MemberFingerprint(Struct, frozen=True):
    """What one member said.

    Attributes:
        runtime: that executed it.
        outputs: raw, one entry a row: a number, a name, or a list of numbers.
    """

    runtime: str
    outputs: Sequence[Any]


class Fingerprint(Struct, frozen=True):
    """What all members said.

    Attributes:
        release: its digest.
        taken_at: ISO 8601 in UTC.
        instances: the golden rows, as a payload has them.
        members: by id.
    """

    release: str
    taken_at: str
    instances: Sequence[Mapping[str, Any]]
    members: Mapping[str, MemberFingerprint]
