"""A Lambda function that does nothing: what the runtime itself takes."""

from __future__ import annotations

from typing import Any


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return a slot's response, without work."""
    return {"id": event.get("member", {}).get("id", ""), "outputs": [0.5], "duration_ms": 0.1, "cold": False}
