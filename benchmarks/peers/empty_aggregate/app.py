"""What Aggregate answers, from nothing."""

from __future__ import annotations

from typing import Any


def handler(_event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Answer that nothing needs a review."""
    return {"status": "COMPLETE", "needs_review": 0}
