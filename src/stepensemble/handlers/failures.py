"""An expected failure as data: as the state machines' Choice and Fail states read it, and as clients do."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from stepensemble.core.errors import DatasetRefused, EnsembleError, InvalidPayload
from stepensemble.core.problems import Problem, list_problems
from stepensemble.core.state_size import CAUSE_BYTES


class Failure(Struct, frozen=True, omit_defaults=True):
    """Why there is no answer: the body of an error by HTTP, and what is written into the outbox.

    Attributes:
        error: its name.
        problems: every bad field of a payload.
        prediction_id: under which something is recorded, if anything is.
    """

    error: str
    message: str
    problems: tuple[Problem, ...] = ()
    prediction_id: str | None = None


def refuse(error: EnsembleError) -> dict[str, Any]:
    """Return `{"failure": {"error": name, "cause": text}}`, the text within what a cause may hold."""
    if isinstance(error, InvalidPayload | DatasetRefused):
        cause = list_problems(error.problems, max_bytes=CAUSE_BYTES)
    else:
        cause = str(error)
    return {"failure": {"error": type(error).__name__, "cause": cause}}
