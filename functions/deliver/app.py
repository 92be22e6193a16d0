"""Lambda: store the result for an object of the inbox, or its error, in the outbox."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from stepensemble.handlers.bootstrap import wire_deliverer
from stepensemble.handlers.redaction import conceal_values

logger = Logger()
deliver = wire_deliverer()


@logger.inject_lambda_context
@conceal_values
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """See `stepensemble.handlers.inbox.deliver`."""
    return deliver(event)
