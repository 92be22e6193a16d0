"""Returns what Normalize would, without work: the number of members in the environment, and no columns."""

from __future__ import annotations

import os
from typing import Any

PREFIX = os.environ["SCORE_FUNCTION_PREFIX"]


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return the members to invoke."""
    names = event["payload"]["slots"]
    members = [{"id": name, "function": f"{PREFIX}{name}", "timeout": 10} for name in names]
    return {
        "prediction_id": event["execution"]["name"],
        "release": "0" * 64,
        "inline": True,
        "rows": 1,
        "members": members,
        "columns": {},
        "earlier": [],
        "cascade": None,
    }
