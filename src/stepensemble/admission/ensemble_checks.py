"""The gate's checks of the whole ensemble: can an execution of this release end well?"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import structs

from stepensemble.admission.member_checks import Check
from stepensemble.core.payload import MAX_ROWS
from stepensemble.core.preprocessing.columns import Columns
from stepensemble.core.problems import Problem
from stepensemble.core.releases.release import Release
from stepensemble.core.slot_capacity import EXECUTION_SECONDS, execution_seconds, member_seconds, tier_seconds
from stepensemble.core.state_size import NUMBER_BYTES, STATE_BYTES, inline_bytes, invoked_bytes, pointer_bytes


def check_states(release: Release, columns: Columns, rows: Sequence[Mapping[str, Any]]) -> Check:
    """Check that an execution's states can carry what must travel in them, and tell how many rows can besides.

    Args:
        release: what an execution is about.
        columns: of the golden rows.
        rows: the golden rows; the longest of them stands for any.
    """
    needed = pointer_bytes(release)
    figure = f"{needed / 1024:,.0f} KiB; {count_inline(release, columns, rows):,} rows inline"
    check = Check(None, "state", figure, f"{STATE_BYTES / 1024:,.0f} KiB")
    if needed <= STATE_BYTES:
        return check
    policy, members = len(msgspec.json.encode(release.policy)), sum(invoked_bytes(release).values())
    reason = (
        f"a state of an execution has {needed:,} bytes without any row, and can carry {STATE_BYTES:,}: "
        f"the policy comes to {policy:,}, the list of members to {members:,}"
    )
    path, remedy = "$.members", "use fewer members, or fewer columns"
    if policy > members:
        path, remedy = "$.aggregation", "use another method, or fewer voters or classes"
    return structs.replace(check, verdict="refused", problem=Problem(path, reason, remedy))


def count_inline(release: Release, columns: Columns, rows: Sequence[Mapping[str, Any]]) -> int:
    """Return how many rows travel in the states themselves, and not by way of S3."""
    members_bytes = invoked_bytes(release)
    row_bytes = max(len(msgspec.json.encode(row)) for row in rows) + 1
    numbers = sum(int(column[0].size) for column in columns.values())
    names = sum(len(name.encode()) + 64 for name in columns)

    def weigh(count: int) -> int:
        return inline_bytes(
            release,
            release.policy,
            input_bytes=count * row_bytes,
            columns_bytes=names + count * numbers * NUMBER_BYTES,
            members_bytes=members_bytes,
            rows=count,
        )

    return bisect_right(range(1, MAX_ROWS + 1), STATE_BYTES, key=weigh)


def check_deadline(release: Release) -> Check:
    """Check that an execution answers before AWS ends it, even where members do not answer in time."""
    seconds = execution_seconds(release)
    check = Check(None, "deadline", f"{seconds} s", f"{EXECUTION_SECONDS} s")
    if seconds <= EXECUTION_SECONDS:
        return check
    waits = [tier_seconds(release.in_tier(tier)) for tier in range(1, release.tiers + 1)]
    slowest = [max(release.in_tier(tier), key=member_seconds).id for tier in range(1, release.tiers + 1)]
    reason = (
        f"if members do not answer in time, an execution takes {seconds} s, and AWS ends an EXPRESS one after "
        f"{EXECUTION_SECONDS}: {' + '.join(map(str, waits))} s for {', '.join(slowest)}, the rest for the functions "
        "before and after"
    )
    remedy = "give the members of each tier shorter timeouts, or use fewer tiers"
    return structs.replace(check, verdict="refused", problem=Problem("$.members", reason, remedy))
