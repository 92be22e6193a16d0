"""The gate's checks of the whole ensemble: the size of an execution's states, and its deadline."""

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
    """Check that an execution's states can carry what they must, and report how many rows fit inline.

    Args:
        release: the release that the execution predicts with.
        columns: of the golden rows.
        rows: the golden rows; the longest of them stands for any row.
    """
    needed = pointer_bytes(release)
    figure = f"{needed / 1024:,.0f} KiB; {count_inline(release, columns, rows):,} rows inline"
    check = Check(None, "state", figure, f"{STATE_BYTES / 1024:,.0f} KiB")
    if needed <= STATE_BYTES:
        return check
    policy, members = len(msgspec.json.encode(release.policy)), sum(invoked_bytes(release).values())
    reason = (
        f"a state of an execution has {needed:,} bytes without any row, and can carry {STATE_BYTES:,}: "
        f"the policy has {policy:,}, the list of members {members:,}"
    )
    path, remedy = "$.members", "use fewer members, or fewer columns"
    if policy > members:
        path, remedy = "$.aggregation", "use another method, or fewer voters or classes"
    return structs.replace(check, verdict="refused", problem=Problem(path, reason, remedy))


def count_inline(release: Release, columns: Columns, rows: Sequence[Mapping[str, Any]]) -> int:
    """Return how many rows an execution carries in its states; more are stored in S3."""
    members_bytes = invoked_bytes(release)
    row_bytes = max(len(msgspec.json.encode(row)) for row in rows) + 1
    numbers = sum(int(column[0].size) for column in columns.values())
    names = sum(len(name.encode()) + 64 for name in columns)

    def measure(count: int) -> int:
        return inline_bytes(
            release,
            release.policy,
            input_bytes=count * row_bytes,
            columns_bytes=names + count * numbers * NUMBER_BYTES,
            members_bytes=members_bytes,
            rows=count,
        )

    return bisect_right(range(1, MAX_ROWS + 1), STATE_BYTES, key=measure)


def check_deadline(release: Release) -> Check:
    """Check that an execution ends before AWS stops it, even if members time out."""
    seconds = execution_seconds(release)
    check = Check(None, "deadline", f"{seconds} s", f"{EXECUTION_SECONDS} s")
    if seconds <= EXECUTION_SECONDS:
        return check
    waits = [tier_seconds(release.in_tier(tier)) for tier in range(1, release.tiers + 1)]
    slowest = [max(release.in_tier(tier), key=member_seconds).id for tier in range(1, release.tiers + 1)]
    reason = (
        f"if members time out, an execution takes {seconds} s, and AWS stops an EXPRESS one after "
        f"{EXECUTION_SECONDS}: {' + '.join(map(str, waits))} s for {', '.join(slowest)}, the rest for the functions "
        "before and after"
    )
    remedy = "give the members of each tier shorter timeouts, or use fewer tiers"
    return structs.replace(check, verdict="refused", problem=Problem("$.members", reason, remedy))
