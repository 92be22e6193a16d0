"""Prepares the state for the next tier, with the rows that are undecided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from stepensemble.core.aggregation.decision import Undecided
from stepensemble.core.errors import TierMismatch
from stepensemble.core.payload import Pointer
from stepensemble.core.preprocessing.columns import (
    columns_from_bytes,
    columns_from_json,
    columns_to_bytes,
    columns_to_json,
    select_rows,
)
from stepensemble.handlers.prediction.member_results import MEANWHILE
from stepensemble.handlers.state import Cascade, Frame, TierColumns, TierRequest, prepare_tier
from stepensemble.storage.keys import columns_key
from stepensemble.storage.objects import Bucket


def prepare_next_tier(
    data: Bucket,
    frame: Frame,
    cascade: Cascade | None,
    undecided: Undecided,
    *,
    prefix: str,
    earlier: Sequence[TierRequest],
) -> dict[str, Any]:
    """Return the state from which the next tier's members are invoked, with the number of `undecided` rows.

    Args:
        data: the data bucket.
        frame: of the execution.
        cascade: what the state carries for later tiers.
        undecided: the next tier, and the rows.
        prefix: of the execution's objects, to store the columns of these rows.
        earlier: the tiers that were invoked.

    Raises:
        TierMismatch: the state carries nothing for that tier.
    """
    if cascade is None:
        raise TierMismatch(f"the execution has no members of tier {undecided.tier}; {MEANWHILE}")
    if frame.inline:
        columns = columns_to_json(select_rows(columns_from_json(cascade.columns), undecided.numbers))
    else:
        _, key = msgspec.convert(cascade.columns, Pointer).split()
        selected = select_rows(columns_from_bytes(data.read(key)), undecided.numbers)
        pointer = data.write(columns_key(prefix, undecided.tier), columns_to_bytes(selected))
        columns = msgspec.to_builtins(pointer)
    reaching = TierColumns(len(undecided.numbers), columns, cascade.columns)
    state = prepare_tier(frame, undecided.tier, cascade.later, reaching, earlier)
    return {**state, "undecided": len(undecided.numbers)}
