"""Lambda: validate a payload, pin the release, encode the features, list the members to invoke."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from stepensemble.handlers.bootstrap import wire_normalizer
from stepensemble.handlers.redaction import conceal_values

logger = Logger()
normalize = wire_normalizer()


@logger.inject_lambda_context
@conceal_values
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """See `stepensemble.handlers.prediction.normalize`."""
    return normalize(event)
