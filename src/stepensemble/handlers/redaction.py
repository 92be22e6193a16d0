"""Faults that were not foreseen: raised on without their messages, which may quote feature values.

Lambda logs and returns the message of whatever a handler raises.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from stepensemble.core.errors import EnsembleError, InternalError

Answer = TypeVar("Answer")


def conceal_values(handler: Callable[[Any, Any], Answer]) -> Callable[[Any, Any], Answer]:
    """Return a handler that raises `InternalError` instead of any exception that is not an `EnsembleError`.

    Its message names the exception's type and the place; its traceback is the exception's own. Panics of Polars, which
    are no `Exception`, are such faults too: raised on, they would end the process.
    """

    @wraps(handler)
    def call(event: Any, context: Any) -> Answer:
        try:
            return handler(event, context)
        except (EnsembleError, KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 (whatever was not foreseen)
            raise InternalError(_describe(error)).with_traceback(error.__traceback__) from None

    return call


def _describe(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{last.name}, {last.filename.rpartition('/')[2]}:{last.lineno}"
    # What AWS refuses is known by its code and operation: without them a missing permission could not be found.
    refused = getattr(error, "response", {}).get("Error", {}).get("Code")
    code = f" {refused} of {getattr(error, 'operation_name', None)}" if refused else ""
    kind = f"{type(error).__name__}{code}"
    return f"{kind} in {place}; its message may quote values and is left out; please report the fault"
