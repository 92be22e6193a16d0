"""An expected failure as data, in the form the state machines' Choice and Fail states read."""

from __future__ import annotations

from typing import Any

from stepensemble.core.errors import DatasetRefused, EnsembleError, InvalidPayload
from stepensemble.core.limits import CAUSE_BYTES
from stepensemble.core.problems import list_problems


def refuse(error: EnsembleError) -> dict[str, Any]:
    """Return `{"failure": {"error": name, "cause": text}}`, the text within what a cause may hold."""
    if isinstance(error, InvalidPayload | DatasetRefused):
        cause = list_problems(error.problems, max_bytes=CAUSE_BYTES)
    else:
        cause = str(error)
    return {"failure": {"error": type(error).__name__, "cause": cause}}
