"""Lambda, one for each slot: run the model of the member that the event names."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from stepensemble.handlers.bootstrap import wire_scorer
from stepensemble.handlers.redaction import conceal_values

logger = Logger()
score = wire_scorer()


@logger.inject_lambda_context
@conceal_values
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """See `stepensemble.handlers.prediction.score`."""
    return score(event)
