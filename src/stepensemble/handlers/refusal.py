"""An expected failure as data, in the form the state machine's Choice and Fail states read."""

from __future__ import annotations

from typing import Any

from stepensemble.core.errors import EnsembleError, InvalidPayload
from stepensemble.core.limits import CAUSE_BYTES
from stepensemble.core.problems import list_problems


def refuse(error: EnsembleError) -> dict[str, Any]:
    """Return `{"failure": {"error": name, "cause": text}}`, the text within what a cause may hold."""
    cause = list_problems(error.problems, max_bytes=CAUSE_BYTES) if isinstance(error, InvalidPayload) else str(error)
    return {"failure": {"error": type(error).__name__, "cause": cause}}
