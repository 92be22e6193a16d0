"""An expected failure as data, for the state machines' Choice and Fail states and for clients."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from stepensemble.core.errors import DatasetRefused, EnsembleError, InvalidPayload
from stepensemble.core.problems import Problem, list_problems
from stepensemble.core.state_size import CAUSE_BYTES


class Failure(Struct, frozen=True, omit_defaults=True):
    """Why there is no prediction: the body of an HTTP error, and of a failure in the outbox.

    Attributes:
        error: its name.
        problems: every bad field of a payload.
        prediction_id: the id of the record, if there is one.
    """

    error: str
    message: str
    problems: tuple[Problem, ...] = ()
    prediction_id: str | None = None


def refuse(error: EnsembleError) -> dict[str, Any]:
    """Return `{"failure": {"error": name, "cause": text}}`, the text within `CAUSE_BYTES`."""
    if isinstance(error, InvalidPayload | DatasetRefused):
        cause = list_problems(error.problems, max_bytes=CAUSE_BYTES)
    else:
        cause = str(error)
    return {"failure": {"error": type(error).__name__, "cause": cause}}
