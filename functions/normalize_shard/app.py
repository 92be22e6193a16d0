"""Lambda: read a shard, find the rows that are rejected, encode the others, name the members to ask."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from stepensemble.handlers.faults import conceal_values
from stepensemble.handlers.wiring import wire_shard_normalizer

logger = Logger()
normalize_shard = wire_shard_normalizer()


@logger.inject_lambda_context
@conceal_values
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """See `stepensemble.handlers.normalize_shard`."""
    return normalize_shard(event)
