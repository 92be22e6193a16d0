"""Lambda: the HTTP API. API Gateway sends every request to it, in payload format 2.0."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from stepensemble.handlers.bootstrap import wire_api
from stepensemble.handlers.http.routes import check_event
from stepensemble.handlers.redaction import conceal_values

logger = Logger()
api = wire_api()


@logger.inject_lambda_context
@conceal_values
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """See `stepensemble.handlers.http.routes`; an event that is not from API Gateway raises InvalidPayload."""
    check_event(event)
    return api.resolve(event, context)
