"""Build each function's work from its environment; called once a process, at import of `functions/*/app.py`."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from stepensemble.handlers.environment import (
    AggregateEnvironment,
    NormalizeEnvironment,
    ScoreEnvironment,
    read_environment,
)
from stepensemble.storage.objects import open_bucket
from stepensemble.storage.releases import ReleaseStore

MEBIBYTE = 1024 * 1024

# Each function imports its own module only: an import is part of a cold start.
if TYPE_CHECKING:
    from stepensemble.handlers.aggregate import Aggregator
    from stepensemble.handlers.normalize import Normalizer
    from stepensemble.handlers.score import Scorer


def wire_normalizer() -> Normalizer:
    """Build what functions/normalize does."""
    from stepensemble.handlers.normalize import CurrentRelease, Normalizer

    env = read_environment(NormalizeEnvironment, os.environ)
    releases = ReleaseStore(open_bucket(env.artifact_bucket))
    return Normalizer(CurrentRelease(releases, time.monotonic), open_bucket(env.data_bucket), env.score_function_prefix)


def wire_scorer() -> Scorer:
    """Build what functions/score does."""
    from stepensemble.handlers.models import ModelCache, measure_process
    from stepensemble.handlers.score import Scorer

    env = read_environment(ScoreEnvironment, os.environ)
    releases = ReleaseStore(open_bucket(env.artifact_bucket))
    models = ModelCache(releases, env.aws_lambda_function_memory_size * MEBIBYTE, measure_process)
    return Scorer(models, open_bucket(env.data_bucket))


def wire_aggregator() -> Aggregator:
    """Build what functions/aggregate does."""
    import boto3

    # At DEBUG, which the stage dev asks for, botocore writes whole requests to the log, feature values included.
    logging.getLogger("botocore").setLevel(logging.INFO)

    from stepensemble.handlers.aggregate import Aggregator
    from stepensemble.storage.records import RecordTable

    env = read_environment(AggregateEnvironment, os.environ)
    data = open_bucket(env.data_bucket)
    records = RecordTable(boto3.client("dynamodb"), env.records_table, data, env.record_retention_days)
    return Aggregator(ReleaseStore(open_bucket(env.artifact_bucket)), records, data)
