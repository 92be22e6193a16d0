"""Lambda: the HTTP door; API Gateway sends it every request, in payload format 2.0."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from stepensemble.handlers.api import check_event
from stepensemble.handlers.faults import conceal_values
from stepensemble.handlers.wiring import wire_api

logger = Logger()
api = wire_api()


@logger.inject_lambda_context
@conceal_values
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """See `stepensemble.handlers.api`; an event that is not API Gateway's raises InvalidPayload."""
    check_event(event)
    return api.resolve(event, context)
