"""Hides the messages of unexpected exceptions, which may quote feature values.

Lambda logs and returns the message of any exception that a handler raises.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from stepensemble.core.errors import EnsembleError, InternalError

Response = TypeVar("Response")


def conceal_values(handler: Callable[[Any, Any], Response]) -> Callable[[Any, Any], Response]:
    """Return a handler that raises `InternalError` instead of any exception that is not an `EnsembleError`.

    Its message names the exception's type and the place; its traceback is the exception's own. This includes Polars'
    panics, which do not derive from `Exception` and would end the process.
    """

    @wraps(handler)
    def call(event: Any, context: Any) -> Response:
        try:
            return handler(event, context)
        except (EnsembleError, KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 (any unexpected exception)
            raise InternalError(_describe(error)).with_traceback(error.__traceback__) from None

    return call


def _describe(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{last.name}, {last.filename.rpartition('/')[2]}:{last.lineno}"
    # AWS errors keep their code and operation: without them, a missing permission could not be found.
    aws_code = getattr(error, "response", {}).get("Error", {}).get("Code")
    code = f" {aws_code} of {getattr(error, 'operation_name', None)}" if aws_code else ""
    kind = f"{type(error).__name__}{code}"
    return f"{kind} in {place}; its message may quote values and is left out; please report the fault"
