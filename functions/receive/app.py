"""Lambda: read an object in the inbox and return which execution to start for it."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from stepensemble.handlers.bootstrap import wire_receiver
from stepensemble.handlers.redaction import conceal_values

logger = Logger()
receive = wire_receiver()


@logger.inject_lambda_context
@conceal_values
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """See `stepensemble.handlers.inbox.receive`."""
    return receive(event)
