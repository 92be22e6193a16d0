"""Returns what Aggregate would, without work."""

from __future__ import annotations

from typing import Any


def handler(_event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return a response without reviews."""
    return {"status": "COMPLETE", "needs_review": 0}
