"""Lambda: combine the members' outputs about a shard, and write its results."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from stepensemble.handlers.faults import conceal_values
from stepensemble.handlers.wiring import wire_shard_aggregator

logger = Logger()
aggregate_shard = wire_shard_aggregator()


@logger.inject_lambda_context
@conceal_values
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """See `stepensemble.handlers.aggregate_shard`."""
    return aggregate_shard(event)
