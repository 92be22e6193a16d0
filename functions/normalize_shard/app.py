"""Lambda: read a shard, reject invalid rows, encode the others, list the members to invoke."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from stepensemble.handlers.bootstrap import wire_shard_normalizer
from stepensemble.handlers.redaction import conceal_values

logger = Logger()
normalize_shard = wire_shard_normalizer()


@logger.inject_lambda_context
@conceal_values
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """See `stepensemble.handlers.batch.normalize_shard`."""
    return normalize_shard(event)
