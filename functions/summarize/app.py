"""Lambda: merge a run's statistics, publish its results, and draw its report."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from stepensemble.handlers.bootstrap import wire_summarizer
from stepensemble.handlers.redaction import conceal_values

logger = Logger()
summarize = wire_summarizer()


@logger.inject_lambda_context
@conceal_values
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """See `stepensemble.handlers.batch.summarize`."""
    return summarize(event)
