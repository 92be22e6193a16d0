"""Lambda: combine the members' outputs, record the prediction and return it, or list the rows for the next tier."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from stepensemble.handlers.bootstrap import wire_aggregator
from stepensemble.handlers.redaction import conceal_values

logger = Logger()
aggregate = wire_aggregator()


@logger.inject_lambda_context
@conceal_values
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """See `stepensemble.handlers.prediction.aggregate`."""
    return aggregate(event)
