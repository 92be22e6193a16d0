"""Lambda: find the dataset, claim the run, and split the dataset into shards."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from stepensemble.handlers.bootstrap import wire_planner
from stepensemble.handlers.redaction import conceal_values

logger = Logger()
plan = wire_planner()


@logger.inject_lambda_context
@conceal_values
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """See `stepensemble.handlers.batch.plan`."""
    return plan(event)
